"""Every tier against the shelf: whatever is asked, in whatever order, both give the same replies."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tests.tiers.places import EPOCH, LONG_MS, NEVER_MS, OTHER_EPOCH, Caller, Place, put, stamp, token

from credenza.tiers import records
from credenza.tiers.base import (
    Announce,
    Clear,
    Drop,
    Fence,
    Fill,
    Get,
    Head,
    Lease,
    Log,
    MarkTag,
    OpenTag,
    Operation,
    ReadHead,
    ReadLog,
    Release,
    Renew,
    Reply,
)
from credenza.tiers.shelf import Shelf

BRIEF_MS = 2
LIVES = st.sampled_from([LONG_MS, LONG_MS, LONG_MS, LONG_MS, BRIEF_MS])
TOKENS = st.sampled_from([token(letter) for letter in "abc"])
ENVELOPES = st.sampled_from([b"1", b"12", b"other", bytes(range(256))])
NAMES = st.sampled_from(["a", "b", "c"])
EPOCHS = st.sampled_from([EPOCH, OTHER_EPOCH])
STAMPS = st.builds(stamp, st.integers(0, 5), EPOCHS)
WRITERS = st.one_of(st.just(b""), TOKENS)

ON_RECORDS = st.one_of(
    st.builds(Get, st.just(b"")),
    st.builds(Lease, st.just(b""), TOKENS, LIVES, st.sampled_from([b"", b"1", b"ot"]), st.booleans(), st.booleans()),
    st.builds(Renew, st.just(b""), TOKENS, LIVES),
    st.builds(Fill, st.just(b""), TOKENS, ENVELOPES, LIVES),
    st.builds(Release, st.just(b""), TOKENS, st.booleans()),
    st.builds(put, st.just(b""), ENVELOPES, LIVES, st.sampled_from([NEVER_MS, NEVER_MS, 1])),
    st.builds(Drop, st.just(b"")),
    st.builds(Fence, st.just(b""), TOKENS, LIVES),
    st.builds(Clear, st.just(b""), TOKENS, st.one_of(st.just(b""), ENVELOPES), LIVES),
    st.builds(OpenTag, st.just(b""), STAMPS),
    st.builds(MarkTag, st.just(b""), STAMPS, WRITERS, WRITERS, LIVES),
)


def timeless(reply: Reply, now_ms: int) -> Reply:
    """Return a reply without the times of its clock: deadlines are either over or not."""
    if isinstance(reply, Head):
        return reply._replace(now_ms=0)
    if isinstance(reply, Log):
        return Log(timeless(reply.head, now_ms), reply.news)
    if not isinstance(reply, bytes):
        return reply
    if reply[:1] == b"V":
        holder, deadline_ms = records.refresh_of(reply)
        return b"V" + holder + b" " + reply[25:], deadline_ms > now_ms
    if reply[:1] == b"L" and len(reply) == 25:
        return reply[:17], records.refresh_of(reply)[1] > now_ms
    start = {b"B": 2, b"T": 17}.get(reply[:1])
    if start is None:
        return reply
    writers = [reply[at : at + 24] for at in range(start, len(reply), 24)]
    alive = {writer[:16] for writer in writers if int.from_bytes(writer[16:]) > now_ms}
    return reply[:start], alive


class Machine(RuleBasedStateMachine):
    """A tier and a shelf. The shelf's clock stands still but when the tier's was waited for."""

    place: Place
    call: Caller
    number = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).number += 1
        self.shelf = Shelf()
        self.now_ms = 1000
        self.namespace = f"{self.place.namespace}-{self.number}"
        self.tier = Place(self.place.kind, self.place.address, self.namespace).open()
        self.call.tier = self.tier

    @rule(name=NAMES, operations=st.lists(ON_RECORDS, min_size=1, max_size=4), again=st.booleans())
    def change(self, name: str, operations: list[Any], again: bool) -> None:  # Any: an operation on a record
        """A batch on one record; perhaps its replies were lost, and it is asked for once more."""
        full_name = f"{self.namespace}:{name}".encode()
        named = [operation._replace(name=full_name) for operation in operations]
        for operation in named * (2 if again else 1):
            self.compare(operation)
            if getattr(operation, "life_ms", LONG_MS) == BRIEF_MS:
                self.let_pass()
            self.compare(Get(full_name))

    @rule(name=NAMES, operations=st.lists(ON_RECORDS, min_size=2, max_size=5))
    def change_in_one_batch(self, name: str, operations: list[Any]) -> None:  # Any: an operation on a record
        """The same in one go, with lives that outlast it."""
        full_name = f"{self.namespace}:{name}".encode()
        named = [operation._replace(name=full_name) for operation in operations]
        self.compare(*(op._replace(life_ms=LONG_MS) if hasattr(op, "life_ms") else op for op in named))

    @rule(
        epoch=EPOCHS, names=st.lists(ENVELOPES, max_size=3), tags=st.lists(ENVELOPES, max_size=2), clears=st.booleans()
    )
    def announce(self, epoch: bytes, names: list[bytes], tags: list[bytes], clears: bool) -> None:
        """Say something."""
        self.compare(Announce(epoch, token("s"), tuple(names), tuple(tags), clears))

    @rule(epoch=EPOCHS)
    def read_head(self, epoch: bytes) -> None:
        """Look at the head."""
        self.compare(ReadHead(epoch))

    @rule(epoch=EPOCHS, after=st.integers(0, 12), most=st.integers(1, 8), staleness_ms=st.integers(0, 3))
    def read_log(self, epoch: bytes, after: int, most: int, staleness_ms: int) -> None:
        """Read what was said."""
        self.compare(ReadLog(epoch, after, most, staleness_ms))

    def compare(self, *operations: Operation) -> None:
        """Ask both. A deadline of the reply is over if it was so before: a brief life may end meanwhile."""
        clock_ms = 0
        if not isinstance(operations[0], Announce | ReadHead | ReadLog):
            clock_ms = self.call.one(ReadHead(EPOCH)).now_ms
            self.shelf.apply(ReadHead(EPOCH), self.now_ms)
        theirs = self.call(*operations)
        ours = [self.shelf.apply(operation, self.now_ms) for operation in operations]
        for operation, reply, expected in zip(operations, theirs, ours, strict=True):
            assert timeless(reply, clock_ms) == timeless(expected, self.now_ms), operation

    def let_pass(self) -> None:
        """Wait until brief lives are over."""
        self.call.let_pass(f"{self.namespace}:sand".encode(), BRIEF_MS)
        self.now_ms += 10 * BRIEF_MS

    def teardown(self) -> None:
        """Close what this run opened."""
        self.call.give_up()


def test_tier_and_shelf_give_the_same_replies(place: Place, call: Caller) -> None:
    """For any operations in any order, each performed once or twice."""
    call.tier.close()
    first = call.tier
    machine = type("Machine", (Machine,), {"place": place, "call": call})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=checks),
        )
    finally:
        call.tier = first
