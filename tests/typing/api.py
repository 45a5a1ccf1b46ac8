"""What type checkers must make of the public API. Never run: mypy and pyright both have to accept it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import credenza
from credenza import (
    Cache,
    CacheAside,
    CacheInfo,
    DeadLetter,
    DrainReport,
    Event,
    Fetched,
    Flights,
    Follower,
    FollowerStatus,
    JournalStatus,
    Loaded,
    NoCache,
    Policy,
    Repository,
    Stats,
    WriteBehind,
    WriteThrough,
)
from credenza.feeds.sqlite import SqliteFeed
from credenza.testing import FakeClock


@dataclass(frozen=True)
class User:
    """A record."""

    name: str


def load_user() -> User:
    """Load without arguments."""
    return User("Ann")


async def fetch_user() -> User:
    """Load as a coroutine."""
    return User("Ann")


def load_users(keys: Sequence[str]) -> Mapping[str, User]:
    """Load many."""
    return {key: User(key) for key in keys}


async def fetch_users(keys: Sequence[str]) -> Mapping[str, User]:
    """Load many as a coroutine."""
    return {key: User(key) for key in keys}


# A cache of known types -----------------------------------------------------------------------------------------------

users: Cache[str, User] = Cache(maxsize=100, ttl="5m", negative_ttl=30, clock=FakeClock())
users.set("user:1", User("Ann"), ttl=None, tags=["users"])
users.set("user:1", "Ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not a User
users.set(1, User("Ann"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not a str
assert_type(users.get("user:1"), User | None)
assert_type(users.get("user:1", 0), User | int)
assert_type(users.get_or_load("user:1", load_user, timeout="1s", ttl="1h"), User)
assert_type(users.get_or_load("user:1", lambda: Loaded(User("Ann"), ttl=60)), User)
assert_type(users.fetch("user:1", load_user), Fetched[User])
assert_type(users.fetch("user:1", load_user).value, User)
assert_type(users.get_many(["a", "b"]), dict[str, User])
assert_type(users.get_or_load_many(["a", "b"], load_users), dict[str, User])
assert_type("user:1" in users, bool)
assert_type(users.stats(), Stats)
assert_type(users.cache_info(), CacheInfo)
assert_type(users.subscribe(lambda event: None), Callable[[], None])
users.get_or_load("user:1", load_user, tll="1h")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # misspelt

with users.writing("user:1", tags=["users"]):
    pass


async def use_async_face() -> None:
    """The async face has the same types."""
    await users.aio.set("user:1", User("Ann"))
    assert_type(await users.aio.get("user:1"), User | None)
    assert_type(await users.aio.get_or_load("user:1", fetch_user), User)
    assert_type(await users.aio.get_or_load("user:1", load_user), User)
    assert_type(await users.aio.fetch("user:1", fetch_user), Fetched[User])
    assert_type(await users.aio.get_or_load_many(["a"], fetch_users), dict[str, User])
    async with users.aio.writing("user:1"):
        pass


# A bare cache takes anything ------------------------------------------------------------------------------------------

anything = Cache()
anything.set(("user", 1), User("Ann"))
anything.set("user:1", 1)
assert_type(anything, Cache[Any, Any])
assert_type(anything.policy, Policy)


def note(event: Event) -> None:
    """Listen."""
    assert_type(event.key, Hashable)


anything.subscribe(note)


# Decorated functions keep their signature -----------------------------------------------------------------------------


@anything.cached(key="user:{user_id}", tags=["users"], ttl=lambda user: 60)
def get_user(user_id: int, *, detailed: bool = False) -> User:
    """Get."""
    return User(str(user_id))


assert_type(get_user(1, detailed=True), User)
assert_type(get_user.refresh(1), User)
assert_type(get_user.peek(1), User | None)
assert_type(get_user.many([1, 2]), dict[Any, User])
assert_type(get_user.key_for(1), Hashable)
assert_type(get_user.cache_info(), CacheInfo)
assert_type(get_user.__wrapped__(1), User)
get_user.invalidate(1, detailed=True)
get_user("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not an int
get_user.invalidate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not an int
get_user.refresh()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an argument is missing


@anything.cached
def plain(number: int) -> str:
    """Go without options."""
    return str(number)


assert_type(plain(1), str)


@anything.cached(ttl=60)
async def get_user_async(user_id: int) -> User:
    """Get as a coroutine."""
    return User(str(user_id))


@credenza.cached(maxsize=100, ttl="1m")
def square(number: int) -> int:
    """Go with a private cache."""
    return number * number


@credenza.cached
def cube(number: int) -> int:
    """Go with a private cache and without options."""
    return number**3


class Shop:
    """Methods are bound as usual."""

    @anything.cached(ttl=60)
    def price(self, article: str) -> float:
        """Return the price."""
        return float(len(article))

    @anything.cached
    async def stock(self, article: str) -> int:
        """Return how many there are."""
        return len(article)


async def use_decorated() -> None:
    """Call them."""
    assert_type(await get_user_async(1), User)
    assert_type(await get_user_async.refresh(1), User)
    assert_type(await get_user_async.many([1]), dict[Any, User])
    assert_type(get_user_async.peek(1), User | None)
    get_user_async.invalidate(1)
    assert_type(square(2), int)
    assert_type(cube(2), int)
    assert_type(Shop().price("tea"), float)
    assert_type(await Shop().stock("tea"), int)
    Shop().price.invalidate("tea")
    Shop().price(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not a str


# Repositories ---------------------------------------------------------------------------------------------------------


class UserSource:
    """A source needs no base class."""

    def load(self, key: int) -> User | None:
        """Load one."""
        return User(str(key))

    def store(self, key: int, value: User) -> None:
        """Store one."""

    def delete(self, key: int) -> None:
        """Delete one."""

    def store_many(self, values: Mapping[int, User]) -> None:
        """Store many."""


class AsyncUserSource:
    """An async one."""

    async def load(self, key: int) -> User | None:
        """Load one."""
        return User(str(key))

    async def store(self, key: int, value: User) -> None:
        """Store one."""

    async def delete(self, key: int) -> None:
        """Delete one."""


repository = anything.repository(UserSource(), strategy=WriteThrough(), key="user:{}", ttl=60)
assert_type(repository, Repository[int, User])
assert_type(repository.get(1), User | None)
assert_type(repository.get_many([1, 2]), dict[int, User])
repository.put(1, User("Ann"))
repository.put(1, "Ann")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not a User
repository.delete("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not an int
people = anything.repository(AsyncUserSource(), strategy=CacheAside(), key="user:{}")
nobody = anything.repository(UserSource(), strategy=NoCache())
later = anything.repository(
    UserSource(), strategy=WriteBehind(Path("users.journal"), max_delay="1s", when_full="raise")
)
assert_type(later.flush(timeout=1), DrainReport)
assert_type(later.close(), DrainReport)
assert_type(later.journal.status(), JournalStatus)
assert_type(later.journal.dead(), list[DeadLetter])
WriteBehind("users.journal", durability="ram")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no such
follower = anything.follow(
    SqliteFeed("users.db"), keys={"users": "user:{id}"}, tags={"users": lambda row: [f"{row['team']}"]}
)
assert_type(follower, Follower)
assert_type(follower.status(), FollowerStatus)


async def use_repository() -> None:
    """The async face of a repository."""
    assert_type(people, Repository[int, User])
    assert_type(await people.aio.get(1), User | None)
    assert_type((await people.aio.fetch(1)).value, User | None)
    await people.aio.put(1, User("Ann"))


# Flights --------------------------------------------------------------------------------------------------------------

flights = Flights()
assert_type(flights.do("user:1", load_user), User)


async def use_flights() -> None:
    """The async face of flights."""
    assert_type(await flights.aio.do("user:1", fetch_user, timeout=1), User)


_coroutine: Callable[[int], Coroutine[Any, Any, User]] = get_user_async
_function: Callable[[int], str] = plain
