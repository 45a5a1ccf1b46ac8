"""What the two faces of a cache share."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Generic, TypeVar

from .durations import Duration, nanoseconds_of
from .errors import ConfigurationError, UsageError
from .events import EventKind
from .keys import check_hashable, check_tags
from .memory.entry import Entry
from .policy import Policy, ttl_ns_of
from .runtime.tasks import Tasks, is_coroutine_function
from .runtime.threads import Threads
from .runtime.workers import Workers
from .sentinel import MISSING, MissingType
from .state import State, make_entry
from .stats import Status, Tally
from .steps import Request, ttl_ns_for

V = TypeVar("V")

_MOST_POLICIES = 256

SHAPES_HITS = frozenset({"copy", "early_refresh"})
"""Options that a call may ask for and that change what a hit has to do; with the others a hit is a hit."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """A value, and where it came from.

    Attributes:
        value: the value.
        status: "hit", "miss", "stale", "joined" or "bypass"; see `Status`.
        age: how long ago it was stored, in seconds; 0.0 if it was loaded for this call.
        load_time: how long its load took, in seconds; 0.0 if it was at hand.
    """

    value: V
    status: Status
    age: float
    load_time: float


class Engine:
    """The state of a cache, its policy and its two runtimes."""

    __slots__ = ("__weakref__", "_policies", "cache", "policy", "state", "tasks", "threads")

    def __init__(self, state: State, policy: Policy) -> None:
        self.state = state
        self.policy = policy
        self.cache: object = None  # the `Cache`, for functions to tell; a function keeps its cache alive
        self._policies: dict[tuple[tuple[str, Any], ...], Policy] = {}  # Any: values of options
        self.hire()
        _fork.add(self)

    def hire(self) -> None:
        """Take on new runtimes; those of a parent process have stayed there."""
        workers = Workers()
        self.threads = Threads(workers)
        self.tasks = Tasks(workers)

    def fast(self, entries: Mapping[Hashable, Entry], slot: Hashable, tally: Tally) -> Any:  # Any: any value
        """Return the value at `slot` if a look at the clock is all that it takes, else `MISSING`. Takes no lock."""
        try:
            entry = entries.get(slot)
        except TypeError:
            check_hashable(slot)
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
            entry = state.table.find(key)
            if entry is None or entry.is_absent or now_ns >= entry.fresh_ns or not state.table.is_alive(entry, now_ns):
                return MISSING
            policy, value = entry.policy, entry.value
        return _copy(policy, value)

    def has(self, key: Hashable) -> bool:
        """Tell whether a fresh value of `key` is at hand, and leave no trace of the look."""
        check_hashable(key)
        state = self.state
        now_ns = state.clock_ns()
        with state.lock:
            entry = state.table.find(key)
            is_fresh = entry is not None and not entry.is_absent and now_ns < entry.fresh_ns
            return entry is not None and is_fresh and state.table.is_alive(entry, now_ns)

    def get(self, key: Hashable) -> Any:  # Any: a value of any type
        """Return the fresh value of `key`, else `MISSING`, and count it."""
        state, tally = self.state, self.state.tally
        value = self.fast(state.table.entries, key, tally)
        if value is not MISSING:
            return value
        now_ns = state.clock_ns()
        with state.lock:
            state.check_open()
            entry = state.table.find(key)
            if entry is not None and not state.table.is_alive(entry, now_ns):
                state.table.take_out(entry, EventKind.EXPIRED if now_ns >= entry.deadline_ns() else None)
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
        """Store a written value, or invalidate its key where a ttl callable says that it is not to be kept."""
        check_hashable(key)  # Any: a value of any type
        state, policy = self.state, self.policy
        ttl_ns = ttl_ns_for(policy, value, MISSING) if ttl is MISSING else ttl_ns_of(ttl)
        if not ttl_ns:
            state.invalidate((key,))
            return
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
        tags = check_tags(tags) if tags else ()
        request = Request(key, loader, self._policy_with(options), tags, self.state.tally, is_async)
        request.timeout_ns = timeout_ns_of(timeout)
        return request

    def _policy_with(self, options: Mapping[str, Any]) -> Policy:  # Any: checked by the policy
        """Return the cache's policy with `options`; the same ones are checked once."""
        if not options:
            return self.policy
        try:
            known = tuple(options.items())
            policy = self._policies.get(known)
        except TypeError:  # an option that is not hashable
            return self.policy.replace(options)
        if policy is None:
            policy = self.policy.replace(options)
            if len(self._policies) < _MOST_POLICIES:
                self._policies[known] = policy
        return policy


def _copy(policy: Policy, value: Any) -> Any:  # Any: a value of any type
    return value if policy.copy is None else policy.copy(value)


def fetched(request: Request, value: V) -> Fetched[V]:
    """Return what a request brought, with where it came from."""
    return Fetched(value, request.status, request.age_ns / 1e9, request.load_ns / 1e9)


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
        raise UsageError(
            f"a loader is called when it is needed, got a coroutine; pass the function {loader.__name__!r} itself"
        )
    raise UsageError(f"a loader must be callable, got {loader!r}; pass a function, or a lambda that returns the value")


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Every cache of the process, since a fork has to reach all of them."""


class _Fork:
    """Holds the locks of all caches while the process forks, so that no child gets a table in the middle of a step."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # of one fork at a time; guards _held and the set of engines
        self._held: list[Engine] = []

    def add(self, engine: Engine) -> None:
        with self._turn:
            _engines.add(engine)

    def before(self) -> None:
        self._turn.acquire()
        self._held = list(_engines)
        for engine in self._held:
            engine.state.lock.acquire()

    def after_in_parent(self) -> None:
        for engine in self._held:
            engine.state.lock.release()
        self._held = []
        self._turn.release()

    def after_in_child(self) -> None:
        for engine in self._held:
            engine.state.forget_the_parent()
            engine.hire()
        self._held = []
        self._turn = threading.Lock()


_fork = _Fork()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork.before, after_in_parent=_fork.after_in_parent, after_in_child=_fork.after_in_child)
