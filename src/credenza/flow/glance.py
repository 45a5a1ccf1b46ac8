"""The shared hit that meets nobody: the shortest way from a key to its value in the shared tier, for a cache without memory.

It is the same as `flow.find` with what cannot happen left out, and gives way to that as soon as something does: a write
under way, an invalidation that is owed, a head that is not known, a tag whose stamp is not known, a record that only
`unpack` understands. As nothing is kept in memory, no generation has to be noted. `bench` has what it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from ..codec import TypedCodec, Unreadable
from ..errors import TierError
from ..memory.implementation import fresh_values
from ..runtime.base import Waiter
from ..sentinel import MISSING
from ..shared.shared import Knowledge
from ..state import State
from ..tiers.base import VALUE_HEADER_BYTES, Crowded, Get, Near, Reply
from .exchange import note_failure

CLOSER: Final = object()
"""What is in the tier cannot be told at a glance."""

_get: Final[Callable[[type[Get], tuple[bytes]], Get]] = tuple.__new__  # a named tuple's own constructor takes longer


class Glance:
    """Looks up what is fresh in the shared tier of a cache that has no memory tier. Thread-safe; takes no lock.

    One key takes two halves, between which the face asks the tier in its own way: no coroutine is made for it.

    Attributes:
        look: returns the record of a name at once, or None; it is None for a tier that has to be waited for.
    """

    __slots__ = ("_clock_ns", "_name_of", "_shared", "_state", "_tally", "look")

    def __init__(self, state: State) -> None:
        assert state.shared is not None
        self._state = state
        self._shared = state.shared
        self._clock_ns = state.clock_ns
        self._name_of = state.shared.names.record
        self._tally = state.tally
        tier = state.shared.tier
        self.look = tier.look if isinstance(tier, Near) else None

    def knowledge(self) -> Knowledge | None:
        """Return what tells whether a value is current; None if a glance will not do."""
        shared, state = self._shared, self._state
        head = shared.proof.head
        if (
            head is None
            or self._clock_ns() >= shared.known_until_ns
            or shared.breaker.is_away
            or shared.owed
            or shared.is_closed
            or state.is_closed
            or state.fences
        ):
            return None
        shared.keep()
        return Knowledge(head, shared.stamps)

    def operation(self, key: Hashable) -> Get:
        """Return what to ask the tier."""
        return _get(Get, (self._name_of(key),))

    def value(self, operation: Get, record: Reply, knowledge: Knowledge, typed: TypedCodec) -> Any:  # Any: any value
        """Return the fresh value in the tier's reply, `MISSING` if there is none, `CLOSER` if that takes a closer look."""
        head = knowledge[0]
        now_ms = self._shared.latest_ms(self._clock_ns())
        (value,), others = fresh_values((operation,), (record,), typed.plain, now_ms, head[0], head[2])
        if others:
            value = _closer_value(typed, operation.name, record, now_ms, knowledge)
        if value is MISSING:
            self._tally.misses += 1
        elif value is not CLOSER:
            self._tally.shared_hits += 1
        return value

    def lost(self, error: TierError) -> Any:  # Any: as in `value`
        """Return what there is if the tier does not answer (E1)."""
        if not isinstance(error, Crowded):
            note_failure(self._state, error)
        self._tally.misses += 1
        return MISSING

    async def values(
        self, run: Waiter, keys: Sequence[Hashable], knowledge: Knowledge, typed: TypedCodec
    ) -> tuple[dict[Hashable, Any], list[Hashable]]:
        """Return the fresh values of distinct `keys`, and the keys that take a closer look."""
        shared, head = self._shared, knowledge.head  # Any: values of any type
        operations = shared.names.gets(keys)
        try:
            records = await run.exchange(shared.tier, operations, shared.timeout_ns)
        except TierError as error:
            self.lost(error)
            self._tally.misses += len(keys) - 1
            return {}, []
        now_ms = shared.latest_ms(self._clock_ns())
        values, others = fresh_values(operations, records, typed.plain, now_ms, head.epoch, head.floor)
        for place in others:  # nearly always none
            values[place] = _closer_value(typed, operations[place].name, records[place], now_ms, knowledge)
        found = dict(zip(keys, values, strict=True))
        closer = [keys[place] for place in others if values[place] is CLOSER]
        for place in others:
            if values[place] is MISSING or values[place] is CLOSER:
                del found[keys[place]]
        self._tally.shared_hits += len(found)
        self._tally.misses += len(keys) - len(found) - len(closer)
        return found, closer


def _closer_value(typed: TypedCodec, name: bytes, record: Reply, now_ms: int, knowledge: Knowledge) -> Any:
    """Return the value of a record whose tags are known, and that is fresh and current; else as `Glance.value`."""
    if type(record) is not bytes or record[:1] in b"LB":  # Any: a value of any type; b"" is in all bytes
        return MISSING
    if record[:1] != b"V":
        return CLOSER
    try:
        envelope = typed.unpack(name, record, VALUE_HEADER_BYTES)
    except Unreadable:
        return CLOSER
    is_fresh = now_ms - envelope.stored_ms < envelope.fresh_ms and not envelope.is_absent
    return envelope.value if is_fresh and knowledge.is_current(envelope.stamp, envelope.tags) else CLOSER
