"""What memory is to keep of a value.

Ttl callables and weighers are the user's code, so the lock is not held here.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..durations import Duration, nanoseconds_of
from ..errors import NotFound, copy_exception
from ..keys import check_tags
from ..memory.implementation import Entry
from ..policy import Policy, ttl_ns_of
from ..sentinel import MISSING, MissingType
from ..source import Loaded
from ..state import State
from .request import Request


def appraise(
    state: State, request: Request, result: Any, now_ns: int
) -> tuple[Any, Entry | None, tuple[object, ...]]:  # Any: what the loader returned, and the value in it
    """Return the value that a loader returned, the entry to keep it in, None for not at all, and its tags.

    Raises: what a `ttl` callable or a weigher raises; both are the user's.
    """
    tags = request.tags
    value: Any = result  # Any: as above
    ttl: Duration | None | MissingType = MISSING
    if isinstance(result, Loaded):
        value, ttl = result.value, result.ttl
        tags = tuple(dict.fromkeys((*tags, *check_tags(result.tags))))
    if not request.keeps:
        return value, None, tags
    policy = request.policy
    is_usual = ttl is MISSING and value is not None and not policy.has_own_ttl
    ttl_ns = policy.ttl_ns if is_usual else ttl_ns_for(policy, value, ttl)
    if not ttl_ns:
        return value, None, tags
    load_ns = now_ns - request.flight.began_ns
    entry = make_entry(state, request.key, value, policy, ttl_ns, now_ns, load_ns)
    if value is None and policy.negative_ttl_ns and ttl is MISSING:
        entry.expire_ns = entry.fresh_ns  # "not found" is never served stale, however it was said
    return value, entry, tags


def absence(state: State, request: Request, error: NotFound, now_ns: int) -> Entry | None:
    """Return the entry that remembers `error`, None if the policy remembers nothing of the kind."""
    ttl_ns = request.policy.negative_ttl_ns
    if not ttl_ns or not request.keeps:
        return None
    kept = copy_exception(error).with_traceback(None)  # which would keep the frames of whoever led
    kept.__context__ = kept.__cause__ = None
    load_ns = now_ns - request.flight.began_ns
    return make_entry(state, request.key, kept, request.policy, ttl_ns, now_ns, load_ns, is_absent=True)


def ttl_ns_for(policy: Policy, value: Any, ttl: Any) -> int:  # Any: a value; a ttl or MISSING
    """Return how long to keep `value`; 0 for not at all."""
    if ttl is not MISSING:
        return 0 if ttl is not None and not nanoseconds_of(ttl, name="ttl") else ttl_ns_of(ttl)
    if value is None and policy.negative_ttl_ns:
        return policy.negative_ttl_ns
    if policy.has_own_ttl and callable(policy.ttl):
        chosen = policy.ttl(value)
        return 0 if chosen is not None and not nanoseconds_of(chosen, name="ttl") else ttl_ns_of(chosen)
    return policy.ttl_ns


def make_entry(
    state: State,
    key: Hashable,
    value: Any,  # Any: a value of any type
    policy: Policy,
    ttl_ns: int,
    now_ns: int,
    load_ns: int = 0,
    *,
    is_absent: bool = False,
) -> Entry:
    """Return an entry for `value`, weighed, with its ttl shortened by a random share (`jitter`).

    With `is_absent`, the value is the `NotFound` to remember: no weigher knows it, and it is never served stale. The
    weigher is the user's code, so the lock is not held.
    """
    if policy.jitter and ttl_ns < 1 << 61:
        ttl_ns -= int(ttl_ns * policy.jitter * state.random())
    return entry_until(state, key, value, policy, now_ns, now_ns + ttl_ns, load_ns, is_absent=is_absent)


def entry_until(
    state: State,
    key: Hashable,
    value: Any,  # Any: a value of any type
    policy: Policy,
    stored_ns: int,
    fresh_ns: int,
    load_ns: int,
    *,
    is_absent: bool,
) -> Entry:
    """Return an entry that is fresh until then; the rest as in `make_entry`."""
    weight = 1 if state.weigh is None or is_absent else state.weigh(key, value)
    entry = Entry(key, value, policy, stored_ns, fresh_ns, load_ns, weight)
    if is_absent:
        entry.is_absent = True
        entry.fast_ns = 0
        return entry
    if policy.stale_window_ns:
        entry.expire_ns += policy.stale_window_ns
    if not policy.is_plain or state.table.needs_touch:
        entry.fast_ns = 0
    return entry
