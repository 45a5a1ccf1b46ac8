"""Following the database: what other programs change there is forgotten here."""

import contextlib
from shlex import quote

from sqlalchemy import URL

from credenza import Cache, CacheError
from credenza.feeds import postgres, sqlite

from .errors import DemoError
from .profile import Profile
from .seeding import SCHEMA
from .settings import Settings

_LOG_SCHEMA = "credenza_demo_changes"
_NAME = "credenza-demo"
_COLUMNS = {"users": ["id"], "posts": ["user_id"], "follows": ["follower_id", "followee_id"]}
_KEYS = {"users": ["user:{id}"], "posts": ["user:{user_id}"], "follows": ["user:{follower_id}", "user:{followee_id}"]}
"""Who likes something is not followed: the profile that it shows on is that of the post's author, which a row of `likes`
does not name."""

_SECONDS = 10.0
_SQL = "UPDATE users SET name = 'Grace Hopper' WHERE id = {id}"


def install_feed(settings: Settings) -> None:
    """Make the change log and its triggers in the database, which may have them already.

    Raises:
        DemoError: the database refuses.
    """
    try:
        if _is_file(settings.database):
            sqlite.install(settings.database.database or "", _COLUMNS)
        else:
            tables = {f"{SCHEMA}.{name}": columns for name, columns in _COLUMNS.items()}
            postgres.install(_libpq(settings.database), tables, schema=_LOG_SCHEMA)
    except Exception as exc:  # any driver's; it may show no more than its kind, as there is a password in the URL
        kind = str(exc) if isinstance(exc, CacheError) else type(exc).__name__
        raise DemoError(f"--follow cannot put its triggers into the database: {kind}") from exc


class Following:
    """A cache that follows the database; the triggers are there. Returns when it has heard of everything until now.

    With a shared cache one worker reads for all, and another one takes over when it ends.
    """

    def __init__(self, cache: Cache[str, Profile], settings: Settings) -> None:
        name = None if settings.cache is None else _NAME
        if _is_file(settings.database):
            file_feed = sqlite.SqliteFeed(settings.database.database or "", name=name)
            self._follower = cache.follow(file_feed, keys=_KEYS)
        else:
            feed = postgres.PostgresFeed(_libpq(settings.database), name=name, schema=_LOG_SCHEMA)
            self._follower = cache.follow(feed, keys={f"{SCHEMA}.{table}": keys for table, keys in _KEYS.items()})
        with contextlib.suppress(CacheError):  # a database that is away is followed when it is back
            self.settle()

    @property
    def changes(self) -> int:
        """How many changed rows this worker has heard of."""
        return self._follower.status().applied

    def settle(self) -> None:
        """Block until the cache has forgotten whatever was changed before, or some seconds are over."""
        self._follower.wait_until_caught_up(_SECONDS)


def command_to_try(database: URL) -> str:
    """Return what one may type into a shell to see it, with {id} for the user; without a password."""
    if _is_file(database):
        return f'sqlite3 -cmd ".timeout 5000" {quote(database.database or "")} "{_SQL}"'
    query = {name: value for name, value in database.query.items() if "pass" not in name}
    url = URL.create(
        "postgresql", database.username, None, database.host, database.port, database.database, query
    ).render_as_string(hide_password=False)
    return f'psql {quote(url)} -c "{_SQL.replace("users", f"{SCHEMA}.users", 1)}"'


def _is_file(database: URL) -> bool:
    return database.get_backend_name() == "sqlite"


def _libpq(database: URL) -> str:
    return database.set(drivername="postgresql").render_as_string(hide_password=False)
