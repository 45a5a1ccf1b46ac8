"""What the two faces of a cache share."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Generic, TypeVar

from .durations import Duration, nanoseconds_of
from .errors import ConfigurationError, UsageError
from .keys import check_hashable
from .memory.entry import Entry
from .policy import Policy, ttl_ns_of
from .runtime.tasks import Tasks, is_coroutine_function
from .runtime.threads import Threads
from .runtime.workers import Workers
from .sentinel import MISSING, MissingType
from .state import State, make_entry
from .stats import Tally
from .steps import Request

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """A value, and where it came from.

    Attributes:
        value: the value.
        status: "hit", "miss", "stale", "joined" (somebody else's load) or "bypass" (straight from the source).
        age: how long ago it was stored, in seconds; 0.0 if it was loaded for this call.
        load_time: how long its load took, in seconds; 0.0 if it was at hand.
    """

    value: V
    status: str
    age: float
    load_time: float


class Engine:
    """The state of a cache, its policy and its two runtimes."""

    __slots__ = ("__weakref__", "policy", "state", "tasks", "threads")

    def __init__(self, state: State, policy: Policy) -> None:
        self.state = state
        self.policy = policy
        self.hire()
        _engines.add(self)

    def hire(self) -> None:
        """Take on new runtimes; those of a parent process have stayed there."""
        workers = Workers()
        self.threads = Threads(workers)
        self.tasks = Tasks(workers)

    def fast(self, key: Hashable, tally: Tally) -> Any:  # Any: a value of any type
        """Return the value of `key` if a look at the clock is all that it takes, else `MISSING`. Takes no lock."""
        try:
            entry = self.state.table.entries.get(key)
        except TypeError:
            check_hashable(key)
            raise
        if entry is None:
            return MISSING
        value = entry.value
        if self.state.clock_ns() < entry.fast_ns and entry.epoch == self.state.table.epoch:
            if entry.freq < 3:
                entry.freq += 1
            tally.hits += 1
            return value
        return MISSING

    def peek(self, key: Hashable) -> Any:  # Any: a value of any type
        """Return the fresh value of `key`, else `MISSING`, and leave no trace of the look."""
        check_hashable(key)
        state = self.state
        now_ns = state.clock_ns()
        with state.lock:
            entry = state.table.entries.get(key)
            if entry is None or entry.is_absent or now_ns >= entry.fresh_ns or not state.table.is_alive(entry, now_ns):
                return MISSING
            return self._copied(entry)

    def get(self, key: Hashable) -> Any:  # Any: a value of any type
        """Return the fresh value of `key`, else `MISSING`, and count it."""
        state, tally = self.state, self.state.tally
        value = self.fast(key, tally)
        if value is not MISSING:
            return value
        now_ns = state.clock_ns()
        with state.lock:
            state.check_open()
            entry = state.table.entries.get(key)
            if entry is not None and not state.table.is_alive(entry, now_ns):
                state.table.expire(entry)
                entry = None
            if entry is not None and now_ns < entry.fresh_ns and not entry.is_absent:
                state.note_read(entry, now_ns)
                tally.hits += 1
                value = entry.value
            else:
                tally.misses += 1
            gone = state.take_gone()
        state.bury(gone)
        return value if value is MISSING or entry is None else _copy(entry.policy, value)

    def set(self, key: Hashable, value: Any, ttl: Duration | None | MissingType, tags: Iterable[str]) -> None:
        """Store a written value. A ttl of 0 is refused; what must not be kept need not be set."""  # Any: any value
        check_hashable(key)
        state, policy = self.state, self.policy
        if ttl is not MISSING:
            ttl_ns = ttl_ns_of(ttl)
        elif callable(policy.ttl):
            ttl_ns = ttl_ns_of(policy.ttl(value))
        else:
            ttl_ns = policy.negative_ttl_ns if value is None and policy.negative_ttl_ns else policy.ttl_ns
        now_ns = state.clock_ns()
        state.store(make_entry(state, key, value, policy, ttl_ns, now_ns), check_tags(tags), now_ns)

    def request(
        self,
        key: Hashable,
        loader: Callable[..., Any],  # Any: a value, or an awaitable of one in the async face
        timeout: Duration | None,
        tags: Iterable[str],
        options: Mapping[str, Any],  # Any: checked by the policy
        *,
        is_async: bool,
    ) -> Request:
        """Return what a call by hand asks for."""
        check_hashable(key)
        return Request(
            key,
            loader,
            self.policy.replace(options),
            check_tags(tags) if tags else (),
            self.state.tally,
            timeout_ns_of(timeout),
            is_async=is_async,
        )

    def _copied(self, entry: Entry) -> Any:  # Any: a value of any type
        return _copy(entry.policy, entry.value)


def _copy(policy: Policy, value: Any) -> Any:  # Any: a value of any type
    return value if policy.copy is None else policy.copy(value)


def fetched(request: Request, value: V) -> Fetched[V]:
    """Return what a request brought, with where it came from."""
    return Fetched(value, request.status, request.age_ns / 1e9, request.load_ns / 1e9)


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags as a tuple; a lone str is refused, as it would be taken for its letters."""
    if isinstance(tags, str):
        raise UsageError(f"tags is a collection of tags, got the str {tags!r}; write tags=[{tags!r}]")
    unique = tuple(dict.fromkeys(tags))
    for tag in unique:
        if not isinstance(tag, str):
            raise UsageError(f"a tag is a str, got {tag!r}; write it as one, such as 'user:42'")
    return unique


def timeout_ns_of(timeout: Duration | None) -> int | None:
    """Return the timeout of a call in nanoseconds; raises `ConfigurationError` unless it is positive."""
    if timeout is None:
        return None
    timeout_ns = nanoseconds_of(timeout, name="timeout")
    if timeout_ns <= 0:
        raise ConfigurationError(f"timeout must be positive, got {timeout!r}; use None to wait as long as it takes")
    return timeout_ns


def check_sync_loader(loader: object) -> None:
    """Refuse what the sync face cannot call."""
    check_callable(loader)
    if is_coroutine_function(loader):
        raise UsageError(f"the sync face cannot await {loader!r}; use cache.aio, or pass a plain function")


def check_callable(loader: object) -> None:
    """Refuse a loader that is no callable, above all the coroutine that calling one too early gives."""
    if callable(loader):
        return
    if isinstance(loader, CoroutineType):
        loader.close()
        raise UsageError(f"a loader is called when it is needed, got a coroutine; pass the function {loader.__name__!r} itself")
    raise UsageError(f"a loader must be callable, got {loader!r}; pass a function, or a lambda that returns the value")


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Every cache of the process, since a fork has to reach all of them."""

_held: list[Engine] = []
"""Those whose locks a fork that is under way holds, so that no child gets a table in the middle of a step."""


def _before_fork() -> None:
    _held.extend(_engines)
    for engine in _held:
        engine.state.lock.acquire()


def _after_fork_in_parent() -> None:
    for engine in _held:
        engine.state.lock.release()
    _held.clear()


def _after_fork_in_child() -> None:
    _held.clear()
    for engine in list(_engines):
        engine.state.forget_the_parent()
        engine.hire()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
