"""The source of truth behind the profiles, as the library's repositories want it."""

import contextlib
from collections.abc import Generator

from sqlalchemy import Connection, delete, or_, select, update

from .database import Database
from .errors import EditOvertaken
from .profile import Profile, read_profile
from .schema import follows, likes, posts, users

_LARGEST_ID = 2**31 - 1


class UserSource:
    """Loads and stores profiles; an `AsyncSource[int, Profile]`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expected: dict[int, Profile] = {}

    async def load(self, key: int, /) -> Profile | None:
        """Run the profile query; None if there is no such user."""
        if not 0 < key <= _LARGEST_ID:  # no column could hold it
            return None
        return await self._database.run(lambda connection: read_profile(connection, key))

    @contextlib.contextmanager
    def expecting(self, profile: Profile) -> Generator[None]:
        """Inside the block this user is stored only if the database still holds name and address of `profile`.

        Whoever calls it takes care that there is one block for a user at a time.
        """
        self._expected[profile.id] = profile
        try:
            yield
        finally:
            del self._expected[profile.id]

    async def store(self, key: int, value: Profile, /) -> None:
        """Write what can be edited: the name and the e-mail address.

        Raises:
            EditOvertaken: it is not what was expected.
        """
        expected = self._expected.get(key)
        change = update(users).where(users.c.id == key).values(name=value.name, email=value.email)
        if expected is not None:
            change = change.where(users.c.name == expected.name, users.c.email == expected.email)
        changed = await self._database.run(lambda connection: connection.execute(change).rowcount)
        if expected is not None and not changed:
            raise EditOvertaken

    async def delete(self, key: int, /) -> None:
        """Remove the user with everything that is theirs."""
        await self._database.run(lambda connection: _delete_user(connection, key))


def _delete_user(connection: Connection, user_id: int) -> None:
    theirs = select(posts.c.id).where(posts.c.user_id == user_id)
    connection.execute(delete(likes).where(or_(likes.c.user_id == user_id, likes.c.post_id.in_(theirs))))
    connection.execute(delete(follows).where(or_(follows.c.follower_id == user_id, follows.c.followee_id == user_id)))
    connection.execute(delete(posts).where(posts.c.user_id == user_id))
    connection.execute(delete(users).where(users.c.id == user_id))
