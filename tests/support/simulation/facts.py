"""What a history says about a load, a value or an entry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

from credenza import NotFound

from .config import Config
from .history import SECOND, Call, Change, Flown, History, Run, Stored, Value, Write
from .source import ALWAYS

NEVER = 1 << 62


class Facts:
    """Look-ups in one history.

    Attributes:
        stores: what was stored, by the identity of the value.
        runs: the loads of a key.
        windows_ns: how long stale values are kept.
    """

    def __init__(self, history: History, config: Config, function_keys: Any) -> None:
        self.history = history
        self.config = config
        self.function_keys = function_keys
        self.policy = config.policy
        self.stores: dict[int, list[Stored]] = defaultdict(list)
        for stored in history.stored:
            self.stores[id(identity_of(stored.value))].append(stored)
        self.runs: dict[Hashable, list[Run]] = defaultdict(list)
        for run in history.runs:
            for key in run.keys:
                self.runs[key].append(run)
        windows = (self.policy.get("stale_while_revalidate", 0), self.policy.get("stale_if_error", 0))
        self.windows_ns = SECOND * max(windows)

    def took_part(self, call: Call, key: Hashable, origin: Any) -> bool:
        """Tell whether the call was there before the load's flight left the register, so that it could join it."""
        if not isinstance(origin, Run) or key not in origin.flights:
            return False
        end = self.history.flown[origin.flights[key]].end
        return end is None or call.start < end

    def flown_of(self, key: Hashable) -> Iterator[Flown]:
        return (flown for flight, flown in self.history.flown.items() if flight.key == key)

    def asked_tags(self, key: Hashable) -> tuple[str, ...]:
        return () if key in self.function_keys else ALWAYS

    def tags_of(self, key: Hashable, what: Any) -> tuple[str, ...]:
        origin = origin_of(what)
        if isinstance(origin, Run):
            return origin.tags.get(key, self.asked_tags(key))
        stores = self.stores[id(identity_of(what))]
        return stores[-1].tags if stores else ()

    def ttl_ns_of(self, key: Hashable, what: Any) -> int:
        if isinstance(what, NotFound):
            return int(self.policy.get("negative_ttl", 0) * SECOND)
        origin = origin_of(what)
        own_ns = origin.ttl_ns.get(key) if isinstance(origin, Run) else None
        return int(self.policy["ttl"] * SECOND) if own_ns is None else own_ns


def origin_of(what: Any) -> Any:
    """Return the load, `set` or write that a value or an error comes from; None for unknown."""
    return what.origin if isinstance(what, Value) else getattr(what, "run", None)


def identity_of(what: Any) -> Any:
    """Return what is the same object in every copy of a remembered `NotFound`."""
    return what.run if isinstance(what, NotFound) and hasattr(what, "run") else what


def last_moment_of(origin: Any) -> int:
    """Return the last moment at which the origin could have come before a change: when a load began, a write ended."""
    if isinstance(origin, Run):
        return origin.began
    if isinstance(origin, Change):
        return origin.end if origin.end is not None else NEVER
    if isinstance(origin, Write):
        return origin.body_end if origin.body_end is not None else NEVER
    return NEVER
