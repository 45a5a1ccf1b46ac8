"""What the two faces of a cache share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

from .arguments import timeout_ns_of
from .codec import Codec, TypedCodec
from .durations import Duration
from .errors import TierError
from .events import EventKind
from .flow.find import find_many
from .flow.glance import CLOSER, Glance
from .flow.invalidate import clear, invalidate, invalidate_tags
from .flow.keep import keep_up, part, pause_ns
from .flow.put import put_many
from .forks import Forks
from .keys import check_hashable, check_tags
from .memory.implementation import Entry, Tally
from .policy import Policy, ttl_ns_of
from .runtime.base import Runtime, Waiter, block
from .runtime.gather import Gathers
from .runtime.keeper import Keeper
from .runtime.tasks import Tasks
from .runtime.threads import Threads
from .runtime.workers import Workers
from .sentinel import MISSING, MissingType
from .shared.shared import Shared
from .sharing import result_type
from .state import State
from .steps.appraisal import make_entry, ttl_ns_for
from .steps.request import Request
from .tiers.base import Tier

_log = logging.getLogger("credenza")

_MOST_POLICIES = 256

SHAPES_HITS = frozenset({"copy", "early_refresh"})
"""Options that a call may ask for and that change what a hit has to do; with the others a hit is a hit."""


_forks = Forks()


class Drains(Protocol):
    """What has to come to an end before a cache is closed."""

    async def close(self, run: Runtime, timeout: Duration | None, /) -> object: ...


class Follows(Protocol):
    """What invalidates in a thread of its own, and ends with the cache."""

    def close(self) -> None: ...


class Engine:
    """The state of a cache, its policy and its two runtimes."""

    __slots__ = (
        "__weakref__",
        "_policies",
        "backlogs",
        "cache",
        "followers",
        "glance",
        "has_memory",
        "keeper",
        "policy",
        "state",
        "tasks",
        "threads",
    )

    def __init__(self, state: State, policy: Policy) -> None:
        self.state = state
        self.policy = policy
        self.has_memory = state.table.maxsize != 0
        self.cache: object = None  # the `Cache`, for functions to tell; a function keeps its cache alive
        self._policies: dict[tuple[tuple[str, Any], ...], Policy] = {}  # Any: values of options
        self.keeper: Keeper | None = None
        self.backlogs: set[Drains] = set()
        self.followers: list[Follows] = []
        self.hire()
        _forks.add(self)

    def hire(self) -> None:
        """Take on new runtimes, and a new keeper; those of a parent process have stayed there."""
        workers, gathers = Workers(), Gathers()
        self.threads = Threads(workers, gathers.threads)
        self.tasks = Tasks(workers, gathers)
        shared = self.state.shared
        self.glance = None if shared is None or self.has_memory else Glance(self.state)
        if shared is not None:
            self.keeper = Keeper(self.state, shared.tier, keep_up, pause_ns)
            shared.keep, shared.wake = self.keeper.start, self.keeper.wake

    def before_fork(self) -> None:
        """Let no child get a table in the middle of a step."""
        self.state.lock.acquire()

    def after_in_parent(self) -> None:
        """Go on."""
        self.state.lock.release()

    def after_in_child(self) -> None:
        """Begin anew in a forked child, with what is in the table."""
        self.state.forget_the_parent()
        if self.state.shared is not None:
            self.state.shared.tier.forget_parent()
        self.backlogs.clear()  # the journals are the parent's
        self.hire()

    def share(self, tier: Tier, codec: Codec) -> None:
        """Put a shared tier below."""
        state = self.state
        has_memory = state.table.maxsize != 0
        now_ns = state.clock_ns()
        shared = Shared(tier, codec, self.policy, random=state.random, now_ns=now_ns, has_memory=has_memory)
        if shared.needs_proof:
            state.table.fresh_until_ns = 0
        state.shared = shared
        self.hire()

    async def close_async(self) -> None:
        """Do as `close`, without blocking the event loop, and close its connections."""
        for backlog in tuple(self.backlogs):
            await backlog.close(self.tasks, None)
        shared = self.state.shared
        if shared is None and not self.followers:
            self.close()
            return
        await self.tasks.offload(self.close)
        if shared is None:
            return
        await shared.tier.close_async()

    def codec_of(self, annotation: Any) -> TypedCodec | None:  # Any: an annotation
        """Return what carries values of this type to the shared tier; None without one."""
        shared = self.state.shared
        return None if shared is None else shared.codec.of(annotation)

    def close(self) -> None:
        """Close the cache; deliver what is owed if that takes no waiting. Blocks for a moment with a shared tier."""
        for backlog in tuple(self.backlogs):
            block(backlog.close(self.threads, None))
        while self.followers:
            self.followers.pop().close()
        shared = self.state.shared
        if shared is not None and not shared.is_closed:
            block(part(self.state, self.threads))
            if shared.owed and shared.needs_proof:
                _log.warning("the cache %r was closed and owes %d invalidations", self.state.name, len(shared.owed))
            shared.is_closed = True
        self.state.close()
        if self.keeper is not None:
            self.keeper.stop()

    def fast(self, entries: Mapping[Hashable, Entry], slot: Hashable, tally: Tally) -> Any:  # Any: any value
        """Return the value at `slot` if a look at the clock is all that it takes, else `MISSING`. Takes no lock."""
        try:
            return self.state.table.hit(entries, slot, tally)
        except TypeError:
            check_hashable(slot)
            raise

    def peek(self, key: Hashable) -> Any:  # Any: a value of any type
        """Return the fresh value of `key`, else `MISSING`, and leave no trace of the look."""
        check_hashable(key)
        state = self.state
        now_ns = state.clock_ns()
        with state.lock:
            entry = _proved(state, key, now_ns)
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
            entry = _proved(state, key, now_ns)
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
            entry = _proved(state, key, now_ns)
            if entry is not None and not state.table.is_alive(entry, now_ns):
                state.table.take_out(entry, EventKind.EXPIRED if now_ns >= entry.deadline_ns() else None)
                entry = None
            if entry is not None and now_ns < entry.fresh_ns and not entry.is_absent:
                state.note_read(entry, now_ns)
                tally.hits += 1
                value = entry.value
            elif state.shared is None:
                tally.misses += 1
            gone = state.take_gone()
        state.bury(gone)
        return value if value is MISSING or entry is None else _copy(entry.policy, value)

    async def set_many(
        self,
        run: Waiter,
        values: Mapping[Any, Any],  # Any: keys and values of any type
        ttl: Duration | None | MissingType,
        tags: Iterable[str],
    ) -> None:
        """Store written values, or invalidate the keys of those that a ttl callable says are not to be kept."""
        for key in values:
            check_hashable(key)
        state, policy, checked = self.state, self.policy, check_tags(tags)
        now_ns = state.clock_ns()
        dropped, written = [], []
        for key, value in values.items():
            ttl_ns = ttl_ns_for(policy, value, MISSING) if ttl is MISSING else ttl_ns_of(ttl)
            if ttl_ns:
                written.append(make_entry(state, key, value, policy, ttl_ns, now_ns))
            else:
                dropped.append(key)
        if dropped:
            await self.invalidate(run, tuple(dropped))
        if state.shared is None:
            for entry in written:
                state.store(entry, checked, now_ns)
        elif written:
            await put_many(state, run, [(None, entry, checked) for entry in written])

    async def invalidate(self, run: Waiter, keys: tuple[Hashable, ...]) -> None:
        """See `Cache.invalidate`."""
        if self.state.shared is None:
            self.state.invalidate(keys)
        else:
            await invalidate(self.state, run, keys)

    async def invalidate_tags(self, run: Waiter, tags: tuple[object, ...]) -> None:
        """See `Cache.invalidate_tags`."""
        if self.state.shared is None:
            self.state.invalidate_tags(tags)
        else:
            await invalidate_tags(self.state, run, tags)

    async def clear(self, run: Waiter) -> None:
        """See `Cache.clear`."""
        if self.state.shared is None:
            self.state.clear()
        else:
            await clear(self.state, run)

    async def find(self, run: Waiter, keys: Iterable[Hashable], annotation: Any) -> dict[Hashable, Any]:
        """Return the fresh values that are at hand, in memory or in the shared tier."""
        shared = self.state.shared
        knowledge = None if self.glance is None else self.glance.knowledge()
        if self.glance is None or shared is None or knowledge is None:
            return await self._find(run, keys, annotation)
        found, closer = await self.glance.values(run, list(keys), knowledge, shared.codec.of(annotation))
        if self.policy.copy is not None:
            found = {key: self.policy.copy(value) for key, value in found.items()}
        return found | await self._find(run, closer, annotation) if closer else found

    def find_one(self, key: Hashable, annotation: Any) -> Any:  # Any: as in `find`
        """Return the fresh value of `key` that is in the shared tier, else `MISSING`. Blocks for a round trip."""
        glance, shared = self.glance, self.state.shared
        knowledge = None if glance is None else glance.knowledge()
        if glance is not None and shared is not None and knowledge is not None:
            operation = glance.operation(key)
            record = None if glance.look is None else glance.look(operation.name)
            if record is None:
                try:
                    record = self.threads.ask(shared.tier, operation, shared.timeout_ns)
                except TierError as error:
                    return glance.lost(error)
            value = glance.value(operation, record, knowledge, shared.codec.of(annotation))
            if value is not CLOSER:
                return value if value is MISSING else _copy(self.policy, value)
        return block(self._find(self.threads, (key,), annotation)).get(key, MISSING)

    async def find_one_async(self, key: Hashable, annotation: Any) -> Any:  # Any: as in `find`
        """Do as `find_one` for a task, which waits."""
        glance, shared = self.glance, self.state.shared
        knowledge = None if glance is None else glance.knowledge()
        if glance is not None and shared is not None and knowledge is not None:
            operation = glance.operation(key)
            record = None
            if glance.look is not None:
                record = glance.look(operation.name)
                await asyncio.sleep(0)  # who reads in a loop lets others go on
            if record is None:
                gather = self.tasks.gathers.of_running_loop(shared.tier)
                try:
                    (record,) = await gather.exchange((operation,), shared.timeout_ns)
                except TierError as error:
                    return glance.lost(error)
            value = glance.value(operation, record, knowledge, shared.codec.of(annotation))
            if value is not CLOSER:
                return value if value is MISSING else _copy(self.policy, value)
        return (await self._find(self.tasks, (key,), annotation)).get(key, MISSING)

    async def _find(self, run: Waiter, keys: Iterable[Hashable], annotation: Any) -> dict[Hashable, Any]:
        """Do as `find`, whatever comes between."""  # Any: an annotation; values of any type
        values = {key: self.get(key) for key in keys}  # Any: an annotation; values of any type
        found = {key: value for key, value in values.items() if value is not MISSING}
        shared = self.state.shared
        if shared is not None and len(found) < len(values):
            typed, tally, policy = shared.codec.of(annotation), self.state.tally, self.policy
            requests = [Request(key, _no_loader, policy, (), tally, False) for key in values if key not in found]
            for request in requests:
                request.typed = typed
            for key, value in (await find_many(self.state, run, requests)).items():
                found[key] = _copy(policy, value)
        return found

    def request(
        self,
        key: Hashable,
        loader: Callable[..., Any],  # Any: a value, or an awaitable of one in the async face
        timeout: Duration | None,
        tags: Iterable[str],
        options: Mapping[str, Any],  # Any: checked by the policy
        *,
        is_async: bool,
        annotation: Any = MISSING,  # Any: an annotation
    ) -> Request:
        """Return what a call by hand asks for; `annotation` is the type of its values, where the loader does not tell."""
        check_hashable(key)
        tags = check_tags(tags) if tags else ()
        request = Request(key, loader, self._policy_with(options), tags, self.state.tally, is_async)
        request.timeout_ns = timeout_ns_of(timeout)
        if self.state.shared is not None:
            request.typed = self.state.shared.codec.of(result_type(loader) if annotation is MISSING else annotation)
        return request

    def _policy_with(self, options: Mapping[str, Any]) -> Policy:  # Any: checked by the policy
        """Return the cache's policy with `options`; the same ones are checked once."""
        if not options:
            return self.policy
        try:
            known = tuple(options.items())
            policy = self._policies.get(known)
        except TypeError:  # an option that is not hashable
            return self.policy.override(options)
        if policy is None:
            policy = self.policy.override(options)
            if len(self._policies) < _MOST_POLICIES:
                self._policies[known] = policy
        return policy


def _proved(state: State, key: Hashable, now_ns: int) -> Entry | None:
    """Return the entry of `key` if memory may be used; the lock is held."""
    return state.table.find(key) if now_ns < state.table.fresh_until_ns else None


def _no_loader() -> None:
    """Stand for the loader of a call that loads nothing."""


def _copy(policy: Policy, value: Any) -> Any:  # Any: a value of any type
    return value if policy.copy is None else policy.copy(value)
