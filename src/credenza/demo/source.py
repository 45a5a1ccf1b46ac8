"""The source of truth behind the profiles, as the library's repositories want it."""

import contextlib
from collections.abc import Generator
from contextlib import AbstractContextManager

from sqlalchemy import Connection, delete, or_, select, update

from .behind import Edits
from .database import Database
from .errors import EditOvertaken
from .people import Person
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


class BehindSource:
    """The same with a journal above the database: an `AsyncSource[int, Profile]`.

    Args:
        source: what the database has.
        edits: what it will have.
    """

    def __init__(self, source: UserSource, edits: Edits) -> None:
        self._source = source
        self._edits = edits

    async def load(self, key: int, /) -> Profile | None:
        """Run the profile query, and show the last edit, which the database may not have yet."""
        # First the edit: one that the database takes between the two is shown by either, and not missed by both.
        edit = await self._edits.owed(key)
        profile = await self._source.load(key)
        return profile if profile is None or edit is None else edit.shown_in(profile)

    def expecting(self, profile: Profile) -> AbstractContextManager[None]:
        """Expect nothing of the database, which is written later."""
        return contextlib.nullcontext()

    async def store(self, key: int, value: Profile, /) -> None:
        """Have the journal take the edit."""
        await self._edits.write(Person.of(value))

    async def delete(self, key: int, /) -> None:
        """Remove the user with everything that is theirs."""
        await self._source.delete(key)


def _delete_user(connection: Connection, user_id: int) -> None:
    theirs = select(posts.c.id).where(posts.c.user_id == user_id)
    connection.execute(delete(likes).where(or_(likes.c.user_id == user_id, likes.c.post_id.in_(theirs))))
    connection.execute(delete(follows).where(or_(follows.c.follower_id == user_id, follows.c.followee_id == user_id)))
    connection.execute(delete(posts).where(posts.c.user_id == user_id))
    connection.execute(delete(users).where(users.c.id == user_id))
