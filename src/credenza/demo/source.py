"""The source of truth behind the profiles, as the library's repositories want it."""

from sqlalchemy import Connection, delete, or_, select, update

from .database import Database
from .profile import Profile, read_profile
from .schema import follows, likes, posts, users

_LARGEST_ID = 2**31 - 1


class UserSource:
    """Loads and stores profiles; an `AsyncSource[int, Profile]`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, key: int, /) -> Profile | None:
        """Run the profile query; None if there is no such user."""
        if not 0 < key <= _LARGEST_ID:  # no column could hold it
            return None
        return await self._database.run(lambda connection: read_profile(connection, key))

    async def store(self, key: int, value: Profile, /) -> None:
        """Write what can be edited: the name and the e-mail address."""
        change = update(users).where(users.c.id == key).values(name=value.name, email=value.email)
        await self._database.run(lambda connection: connection.execute(change))

    async def delete(self, key: int, /) -> None:
        """Remove the user with everything that is theirs."""
        await self._database.run(lambda connection: _delete_user(connection, key))


def _delete_user(connection: Connection, user_id: int) -> None:
    theirs = select(posts.c.id).where(posts.c.user_id == user_id)
    connection.execute(delete(likes).where(or_(likes.c.user_id == user_id, likes.c.post_id.in_(theirs))))
    connection.execute(delete(follows).where(or_(follows.c.follower_id == user_id, follows.c.followee_id == user_id)))
    connection.execute(delete(posts).where(posts.c.user_id == user_id))
    connection.execute(delete(users).where(users.c.id == user_id))
