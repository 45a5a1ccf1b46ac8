"""What operations do to records, on the shelf and with a clock that stands still: every transition, to the millisecond."""

from __future__ import annotations

import pytest
from tests.tiers.places import EPOCH, OTHER_EPOCH, put, stamp, token

from credenza.tiers import records
from credenza.tiers.base import (
    CLEARED,
    LOST,
    STORED,
    Announce,
    Clear,
    Drop,
    Fence,
    Fill,
    Get,
    Head,
    Lease,
    MarkTag,
    OpenTag,
    Operation,
    ReadHead,
    ReadLog,
    Release,
    Renew,
    Reply,
)
from credenza.tiers.records import (
    MOST_LIFE_MS,
    TAG_LIFE_MS,
    lease_record,
    mark_tag,
    refresh_of,
    stamp_of,
    tag_record,
    tag_writers,
    value_record,
)
from credenza.tiers.shelf import Shelf, change_of

A, B = token("a"), token("b")
N = b"name"
GRANTED_TO_A = b"L" + A
LEASED_BY_A = lease_record(A, 1100)


class Stage:
    """A shelf and a clock to turn."""

    def __init__(self) -> None:
        self.shelf = Shelf(log_entries=5)
        self.now_ms = 1000

    def __call__(self, *operations: Operation) -> list[Reply]:
        return [self.shelf.apply(operation, self.now_ms) for operation in operations]

    @property
    def record(self) -> bytes:
        return self.shelf.record(N, self.now_ms)

    def place(self, record: bytes, life_ms: int = 500) -> None:
        self.shelf.held[N] = (record, self.now_ms + life_ms)


@pytest.fixture
def stage() -> Stage:
    """An empty shelf at a thousand milliseconds."""
    return Stage()


def fence_of(*writers: tuple[bytes, int], contended: bool = False) -> bytes:
    return b"B" + (b"1" if contended else b"0") + b"".join(writer + at.to_bytes(8) for writer, at in writers)


STATES = {
    "absent": b"",
    "value": value_record(b"env"),
    "refreshed by a": value_record(b"env", A, 1100),
    "refresh of b over": value_record(b"env", B, 1000),
    "refresh out of reach": value_record(b"env", B, 1001 + MOST_LIFE_MS),
    "leased by a": LEASED_BY_A,
    "leased by b": lease_record(B, 1100),
    "lease of b over": lease_record(B, 1000),
    "lease of b out of reach": lease_record(B, 1001 + MOST_LIFE_MS),
    "fenced by a": fence_of((A, 1100)),
    "fenced by b": fence_of((B, 1100)),
    "fence of b over": fence_of((B, 1000)),
    "fenced by both": fence_of((A, 1100), (B, 1200), contended=True),
    "fence out of reach": fence_of((B, 1001 + MOST_LIFE_MS)),
    "tag": tag_record(stamp(3)),
    "rubbish": b"\x00rubbish",
    "short value": b"Vshort",
}
FENCES = [state for state, record in STATES.items() if record[:1] == b"B"]
OPERATIONS: dict[str, Operation] = {
    "lease": Lease(N, A, 100),
    "lease seen": Lease(N, A, 100, seen=b"env"),
    "lease seen otherwise": Lease(N, A, 100, seen=b"envy"),
    "lease seen keeps": Lease(N, A, 100, seen=b"e", keeps=True),
    "lease forced": Lease(N, A, 100, forced=True),
    "lease forced keeps": Lease(N, A, 100, keeps=True, forced=True),
    "renew": Renew(N, A, 100),
    "fill": Fill(N, A, b"new", 100),
    "release": Release(N, A, drops=False),
    "release drops": Release(N, A, drops=True),
    "put": put(N, b"new", 100),
    "drop": Drop(N),
    "fence": Fence(N, A, 100),
    "clear": Clear(N, A, b"new", 100),
}
KEPT = "kept"  # reply and record are as the record was
# The outcome of each operation on each state: the reply, and what the record becomes. Left out: the state is as absent.
GRANTED, NEW = (GRANTED_TO_A, LEASED_BY_A), value_record(b"new")
REFRESHED = (GRANTED_TO_A, value_record(b"env", A, 1100))
LEASES: dict[str, dict[str, object]] = {
    "lease": {
        "value": KEPT,
        "refreshed by a": KEPT,
        "refresh of b over": KEPT,
        "refresh out of reach": KEPT,
        "leased by b": KEPT,
    },
    "lease seen": {"leased by b": KEPT},
    "lease seen otherwise": {
        "value": KEPT,
        "refreshed by a": KEPT,
        "refresh of b over": KEPT,
        "refresh out of reach": KEPT,
        "leased by b": KEPT,
    },
    "lease seen keeps": {
        "value": REFRESHED,
        "refreshed by a": REFRESHED,
        "refresh of b over": REFRESHED,
        "refresh out of reach": REFRESHED,
        "leased by b": KEPT,
    },
    "lease forced": {},
    "lease forced keeps": {
        "value": REFRESHED,
        "refreshed by a": REFRESHED,
        "refresh of b over": REFRESHED,
        "refresh out of reach": REFRESHED,
    },
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", LEASES)
def test_lease_on_each_state_has_its_outcome(stage: Stage, operation: str, state: str) -> None:
    """Granted, or refused by the record that stands in the way, which is left alone."""
    stage.place(STATES[state])
    fenced = state in ("fenced by a", "fenced by b", "fenced by both")
    outcome = KEPT if fenced else LEASES[operation].get(state, GRANTED)
    expected = (STATES[state], STATES[state]) if outcome is KEPT else outcome
    assert (stage(OPERATIONS[operation])[0], stage.record) == expected


OTHERS: dict[str, dict[str, tuple[object, bytes | str]]] = {
    "renew": {"leased by a": (True, LEASED_BY_A), "refreshed by a": (True, value_record(b"env", A, 1100))},
    "fill": {"leased by a": (True, NEW), "refreshed by a": (True, NEW)},
    "release": {"leased by a": (True, b""), "refreshed by a": (True, value_record(b"env"))},
    "release drops": {"leased by a": (True, b""), "refreshed by a": (True, b"")},
    "put": {
        "fenced by a": (False, fence_of((A, 1100), contended=True)),
        "fenced by b": (False, fence_of((B, 1100), contended=True)),
        "fence of b over": (False, fence_of((B, 1000), contended=True)),
        "fence out of reach": (False, fence_of((B, 1001 + MOST_LIFE_MS), contended=True)),
        "fenced by both": (False, STATES["fenced by both"]),
    },
    "drop": {
        "fenced by a": (True, fence_of((A, 1100), contended=True)),
        "fenced by b": (True, fence_of((B, 1100), contended=True)),
        "fence of b over": (True, fence_of((B, 1000), contended=True)),
        "fence out of reach": (True, fence_of((B, 1001 + MOST_LIFE_MS), contended=True)),
        "fenced by both": (True, STATES["fenced by both"]),
    },
    "fence": {
        "fenced by a": (True, fence_of((A, 1100))),
        "fenced by b": (False, fence_of((B, 1100), (A, 1100), contended=True)),
        "fenced by both": (True, STATES["fenced by both"]),
    },
    "clear": {
        "fenced by a": (STORED, NEW),
        "fenced by b": (LOST, fence_of((B, 1100), contended=True)),
        "fenced by both": (CLEARED, fence_of((B, 1200), contended=True)),
    },
}
DEFAULTS: dict[str, tuple[object, bytes | str]] = {
    "renew": (False, KEPT),
    "fill": (False, KEPT),
    "release": (False, KEPT),
    "release drops": (False, KEPT),
    "put": (True, NEW),
    "drop": (True, b""),
    "fence": (False, fence_of((A, 1100))),
    "clear": (LOST, b""),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OTHERS)
def test_other_operations_on_each_state_have_their_outcome(stage: Stage, operation: str, state: str) -> None:
    """The reply, and what the record becomes."""
    stage.place(STATES[state])
    reply, record = OTHERS[operation].get(state, DEFAULTS[operation])
    assert (stage(OPERATIONS[operation])[0], stage.record) == (reply, STATES[state] if record is KEPT else record)


@pytest.mark.parametrize(
    ("state", "operation", "expires_ms"),
    [
        # A value lives as long as it would have, whatever happens to its refresh.
        ("value", "lease", 1500),
        ("value", "lease seen keeps", 1500),
        ("value", "lease forced keeps", 1500),
        ("refreshed by a", "renew", 1500),
        ("refreshed by a", "release", 1500),
        ("refreshed by a", "fill", 1100),
        ("value", "put", 1100),
        # A lease lives from when it was taken or renewed last; refused, it is left alone.
        ("value", "lease seen", 1100),
        ("absent", "lease", 1100),
        ("leased by a", "lease", 1100),
        ("leased by a", "renew", 1100),
        ("leased by b", "lease", 1500),
        ("leased by b", "lease forced", 1100),
        ("leased by b", "renew", 1500),
        ("leased by b", "fill", 1500),
        ("leased by b", "release", 1500),
        ("leased by a", "fill", 1100),
        # A fence lives as long as the last of its writers.
        ("absent", "fence", 1100),
        ("fenced by b", "fence", 1100),
        ("fenced by both", "fence", 1200),
        ("fenced by both", "clear", 1200),
        ("fenced by a", "clear", 1100),
        ("fenced by a", "put", 1500),
        ("fenced by a", "drop", 1500),
        ("fenced by a", "lease forced", 1500),
    ],
)
def test_life_after_an_operation_is_the_new_one_or_the_old(
    stage: Stage, state: str, operation: str, expires_ms: int
) -> None:
    """What was stored has a life of its own; what was touched lives as long as it would have."""
    stage.place(STATES[state])
    stage(OPERATIONS[operation])
    assert stage.shelf.held[N][1] == expires_ms


def test_record_expires_to_the_millisecond(stage: Stage) -> None:
    """It is there in the last millisecond of its life, and not in the next."""
    stage(put(N, b"1", 100))
    stage.now_ms = 1099
    assert stage(Get(N)) == [value_record(b"1")]
    stage.now_ms = 1100
    assert stage(Get(N)) == [b""]


@pytest.mark.parametrize("state", STATES)
def test_put_from_its_time_limit_on_leaves_each_state_alone(stage: Stage, state: str) -> None:
    """To the millisecond, and without contending a fence."""
    stage.place(STATES[state])
    assert (stage(put(N, b"new", 100, 1000)), stage.record) == ([False], STATES[state])
    assert stage.shelf.held.get(N, (b"", 1500))[1] == 1500
    assert stage(put(N, b"new", 100, 1001)) == [state not in FENCES]


def test_fence_lives_as_long_as_its_last_writer(stage: Stage) -> None:
    """Whoever came last, and whoever leaves."""
    stage(Fence(N, A, 100), Fence(N, B, 50))
    assert stage.shelf.held[N][1] == 1100
    stage(Clear(N, A))
    assert stage.shelf.held[N][1] == 1050
    stage.now_ms = 1050
    assert stage(Lease(N, A, 10)) == [GRANTED_TO_A]


def test_record_that_would_have_no_life_goes(stage: Stage) -> None:
    """A value with no time left is not stored."""
    stage(put(N, b"1", 100))
    assert stage(put(N, b"2", 0), Get(N)) == [True, b""]
    assert not stage.shelf.held


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        (b"", OpenTag(N, stamp(3)), tag_record(stamp(3))),
        (tag_record(stamp(3)), OpenTag(N, stamp(9)), tag_record(stamp(3))),
        (
            tag_record(stamp(3), {B: 1100}),
            OpenTag(N, stamp(1, OTHER_EPOCH)),
            tag_record(stamp(1, OTHER_EPOCH), {B: 1100}),
        ),
        (
            tag_record(stamp(3), {B: 1000}),
            OpenTag(N, stamp(1, OTHER_EPOCH)),
            tag_record(stamp(1, OTHER_EPOCH), {B: 1000}),
        ),
        (b"rubbish", OpenTag(N, stamp(3)), tag_record(stamp(3))),
        (b"T", OpenTag(N, stamp(3)), tag_record(stamp(3))),
        (b"", MarkTag(N, stamp(3)), tag_record(stamp(3))),
        (tag_record(stamp(3)), MarkTag(N, stamp(2)), tag_record(stamp(3))),
        (tag_record(stamp(3)), MarkTag(N, stamp(4)), tag_record(stamp(4))),
        (tag_record(stamp(3)), MarkTag(N, stamp(1, OTHER_EPOCH)), tag_record(stamp(1, OTHER_EPOCH))),
        (b"", MarkTag(N, stamp(3), joins=A, life_ms=100), tag_record(stamp(3), {A: 1100})),
        (tag_record(stamp(3), {A: 1010}), MarkTag(N, stamp(3), A, b"", 100), tag_record(stamp(3), {A: 1100})),
        (tag_record(stamp(3), {A: 1100, B: 1100}), MarkTag(N, stamp(4), leaves=A), tag_record(stamp(4), {B: 1100})),
        (tag_record(stamp(3), {B: 1000}), MarkTag(N, stamp(4), leaves=A), tag_record(stamp(4), {B: 1000})),
    ],
)
def test_tag_operations_have_their_outcome(stage: Stage, before: bytes, operation: Operation, after: bytes) -> None:
    """The record is the reply, and a tag that was written lives for a week."""
    stage.place(before)
    assert (stage(operation), stage.record) == ([after], after)
    assert stage.shelf.held[N][1] == 1000 + (500 if after == before and isinstance(operation, OpenTag) else TAG_LIFE_MS)


@pytest.mark.parametrize("at", [1000, 1099, 1100, 5000])
def test_writer_of_a_tag_stays_in_its_record_until_it_is_named(at: int) -> None:
    """One whose share has expired was killed, perhaps after its commit: only who has seen it may take it out."""
    record = tag_record(stamp(1), {A: 1100})
    assert tag_writers(record, at) == {A: 1100}
    assert tag_writers(tag_record(stamp(1)), at) == {}
    marked = mark_tag(record, MarkTag(b"n", stamp(2)), at).reply
    assert tag_writers(marked, at) == {A: 1100}
    assert tag_writers(mark_tag(marked, MarkTag(b"n", stamp(3), leaves=A), at).reply, at) == {}


def test_share_that_no_writer_of_ours_can_have_is_no_writer() -> None:
    """Bytes of somebody else do not fence a tag for ever."""
    assert tag_writers(tag_record(stamp(1), {A: 1 << 60}), 1000) == {}


def test_mark_without_a_number_keeps_the_stamp() -> None:
    """A fence is renewed without a look at the head, which may be another one by now."""
    record = tag_record(stamp(7, OTHER_EPOCH))
    assert mark_tag(record, MarkTag(b"n", stamp(0), joins=A, life_ms=50), 1000).reply == tag_record(
        stamp(7, OTHER_EPOCH), {A: 1050}
    )


def test_parts_of_records_can_be_read_back() -> None:
    """What was packed is unpacked; other bytes have no stamp."""
    assert refresh_of(value_record(b"env", A, 1234)) == (A, 1234)
    assert stamp_of(tag_record(stamp(7), {A: 1})) == stamp(7)
    assert [stamp_of(record) for record in (b"", b"T", b"V" + bytes(30))] == [None, None, None]


def test_operation_that_concerns_no_record_is_refused() -> None:
    """`change_of` is for records."""
    with pytest.raises(TypeError, match="ReadHead"):
        change_of(b"", ReadHead(EPOCH), 0)


# The shelf itself -----------------------------------------------------------------------------------------------------


def test_shelf_keeps_the_last_announcements_only(stage: Stage) -> None:
    """What is missing shows in the numbers."""
    stage(*[Announce(EPOCH, A)] * 8)
    log = stage(ReadLog(EPOCH, 0, 10, 0))[0]
    assert ([news.sequence for news in log.news], log.head.sequence) == ([4, 5, 6, 7, 8], 8)


def test_shelf_that_forgets_all_begins_another_epoch(stage: Stage) -> None:
    """As a server does that restarts: records, head and log are gone."""
    stage(put(N, b"1", 100), Announce(EPOCH, A, clears=True), ReadLog(EPOCH, 0, 1, 500))
    stage.shelf.forget_all()
    assert stage.shelf.sequence == 0
    assert stage(Get(N), ReadHead(OTHER_EPOCH)) == [b"", Head(OTHER_EPOCH, 0, 0, 1000, 0)]
    assert stage(ReadLog(EPOCH, 0, 10, 0))[0].news == ()


def test_shelf_that_evicts_loses_one_record(stage: Stage) -> None:
    """As a server does that is full."""
    stage(put(N, b"1", 100), put(b"other", b"2", 100))
    stage.shelf.forget(N)
    assert stage(Get(N), Get(b"other")) == [b"", value_record(b"2")]


def test_shelf_does_not_grow_by_what_expired(stage: Stage) -> None:
    """Records that nobody asks for again are removed all the same."""
    for number in range(10_000):
        stage.now_ms += 1
        stage(put(b"%d" % number, b"1", 50))
    assert len(stage.shelf.held) <= 1024
    assert records.KEEP < 0
