"""What every tier does to a record, sentence by sentence of the operations' descriptions.

Another tier joins by one environment variable: CREDENZA_TIER=package.module:function, see `places`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.servers import find_server
from tests.tiers.places import EPOCH, LONG_MS, SERVERS, SHORT_MS, Caller, Place, put, token

from credenza.tiers.base import (
    CLEARED,
    LOST,
    STORED,
    VALUE_HEADER_BYTES,
    Clear,
    Drop,
    Fence,
    Fill,
    Get,
    Lease,
    ReadHead,
    Release,
    Renew,
)
from credenza.tiers.records import refresh_of, value_record

A, B = token("a"), token("b")
LEASED_BY_A = b"L" + A
"""The reply to a lease that is granted, and the beginning of its record."""


class Beginning(bytes):
    """Bytes that are equal to all that begin with them; a deadline follows."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and len(other) == len(self) + 8 and other.startswith(self)

    __hash__ = None  # type: ignore[assignment]


RECORD_OF_A = Beginning(LEASED_BY_A)


@pytest.fixture
def name(place: Place) -> bytes:
    """The name of the record that a test is about."""
    return place.name("record")


@pytest.mark.parametrize("server", sorted(set(SERVERS.values())))
def test_server_takes_part_in_this_suite(server: str) -> None:
    """Where there is none, this one is skipped for all tests of its tier, and says what to do."""
    assert Path(find_server(server)).exists()


# Look-ups -------------------------------------------------------------------------------------------------------------


def test_get_of_an_unknown_name_returns_no_bytes(call: Caller, name: bytes) -> None:
    """An absent record is b""."""
    assert call.one(Get(name)) == b""


def test_get_of_a_value_returns_header_and_envelope(call: Caller, name: bytes) -> None:
    """A value has zeros for its refresh, then the envelope, whatever bytes that has."""
    envelope = bytes(range(256))
    assert call(put(name, envelope, LONG_MS), Get(name)) == [True, value_record(envelope)]
    assert call.one(Get(name)) == b"V" + bytes(24) + envelope


def test_get_of_the_longest_envelope_returns_all_of_it(call: Caller, name: bytes) -> None:
    """Up to `max_bytes` nothing is cut off."""
    envelope = b"x" * call.tier.max_bytes
    call.one(put(name, envelope, LONG_MS))
    assert call.one(Get(name)) == value_record(envelope)


def test_get_of_a_much_longer_record_is_cut_off(call: Caller, name: bytes) -> None:
    """A record that is too long costs no more than the limit."""
    envelope = b"x" * (3 * call.tier.max_bytes)
    call.one(put(name, envelope, LONG_MS))
    for record in (call.one(Get(name)), call.one(Get(name)), call(Get(name), Get(name))[1]):
        assert call.tier.max_bytes < len(record) < 2 * call.tier.max_bytes
        assert value_record(envelope).startswith(record)


def test_many_gets_in_a_batch_are_answered_in_order(call: Caller, place: Place) -> None:
    """Replies stand where their operations stood, with absent records among them."""
    names = [place.name(f"many-{number}") for number in range(150)]
    call(*(put(name, name, LONG_MS) for name in names[::2]))
    expected = [value_record(name) if index % 2 == 0 else b"" for index, name in enumerate(names)]
    assert call(*(Get(name) for name in names)) == expected


def test_an_empty_batch_is_answered_with_nothing(call: Caller) -> None:
    """No operations, no replies."""
    assert call() == []


def test_a_batch_on_one_record_is_performed_in_order(call: Caller, name: bytes) -> None:
    """What comes later in a batch sees what came before."""
    replies = call(Lease(name, A, LONG_MS), Fill(name, A, b"1", LONG_MS), Get(name), Drop(name), Get(name))
    assert replies == [LEASED_BY_A, True, value_record(b"1"), True, b""]


# Leases ---------------------------------------------------------------------------------------------------------------


def test_lease_on_an_absent_record_is_granted(call: Caller, name: bytes) -> None:
    """The token stands in the record."""
    assert call.one(Lease(name, A, LONG_MS)) == LEASED_BY_A
    assert call.one(Get(name)) == RECORD_OF_A


def test_lease_held_by_another_load_is_refused_and_shows_whose(call: Caller, name: bytes) -> None:
    """The record that stands in the way is the reply."""
    call.one(Lease(name, A, LONG_MS))
    assert call.one(Lease(name, B, LONG_MS)) == RECORD_OF_A
    assert call.one(Get(name)) == RECORD_OF_A


def test_lease_asked_for_again_is_granted_again(call: Caller, name: bytes) -> None:
    """A lost reply costs nothing: the same token gets the same answer."""
    assert call(Lease(name, A, LONG_MS), Lease(name, A, LONG_MS)) == [LEASED_BY_A, LEASED_BY_A]


def test_lease_expires(call: Caller, name: bytes) -> None:
    """Without renewal somebody else may load."""
    call.one(Lease(name, A, SHORT_MS))
    call.until(Lease(name, B, LONG_MS), lambda reply: reply == b"L" + B, "the lease to expire")


def test_lease_asked_for_again_lives_on(call: Caller, place: Place, name: bytes) -> None:
    """Its life is counted from the last time."""
    call(Lease(name, A, SHORT_MS), Lease(name, A, LONG_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call.one(Get(name)) == RECORD_OF_A


def test_lease_over_a_value_that_was_not_seen_is_refused(call: Caller, name: bytes) -> None:
    """Somebody stored it in the meantime; it is the reply."""
    call.one(put(name, b"new", LONG_MS))
    assert call.one(Lease(name, A, LONG_MS)) == value_record(b"new")
    assert call.one(Lease(name, A, LONG_MS, seen=b"old")) == value_record(b"new")
    assert call.one(Get(name)) == value_record(b"new")


@pytest.mark.parametrize("seen", [b"old and", b"old and long"])
def test_lease_over_the_value_that_was_seen_replaces_it(call: Caller, name: bytes, seen: bytes) -> None:
    """The beginning is enough to know it by."""
    call.one(put(name, b"old and long", LONG_MS))
    assert call.one(Lease(name, A, LONG_MS, seen=seen)) == LEASED_BY_A
    assert call.one(Get(name)) == RECORD_OF_A


def test_lease_that_keeps_leaves_the_value_readable(call: Caller, name: bytes) -> None:
    """Its token and deadline stand in the header, before the envelope."""
    call.one(put(name, b"old", LONG_MS))
    assert call.one(Lease(name, A, LONG_MS, seen=b"old", keeps=True)) == LEASED_BY_A
    record = call.one(Get(name))
    assert record[VALUE_HEADER_BYTES:] == b"old"
    assert refresh_of(record)[0] == A
    assert refresh_of(record)[1] > 0


def test_lease_of_a_refresh_under_way_is_refused(call: Caller, name: bytes) -> None:
    """One refresh at a time; the value with its token is the reply, and the same token is granted again."""
    keeping = {"seen": b"old", "keeps": True}
    call(put(name, b"old", LONG_MS), Lease(name, A, LONG_MS, **keeping))
    record = call.one(Lease(name, B, LONG_MS, **keeping))
    assert (refresh_of(record)[0], record[VALUE_HEADER_BYTES:]) == (A, b"old")
    assert call.one(Lease(name, A, LONG_MS, **keeping)) == LEASED_BY_A


def test_lease_of_a_refresh_expires_but_the_value_stays(call: Caller, name: bytes) -> None:
    """A refresh whose process died holds nobody up."""
    call(put(name, b"old", LONG_MS), Lease(name, A, SHORT_MS, seen=b"old", keeps=True))
    again = Lease(name, B, LONG_MS, seen=b"old", keeps=True)
    call.until(again, lambda reply: reply == b"L" + B, "the refresh to expire")
    assert call.one(Get(name))[VALUE_HEADER_BYTES:] == b"old"


@pytest.mark.parametrize("renews", [False, True])
def test_value_lives_as_long_as_the_lease_in_its_header(call: Caller, place: Place, name: bytes, renews: bool) -> None:
    """Else the lease would go with it, and somebody would begin a second load; readers look at the value's age."""
    first = Lease(name, A, SHORT_MS if renews else LONG_MS, seen=b"old", keeps=True)
    call(put(name, b"old", SHORT_MS), first, *([Renew(name, A, LONG_MS)] if renews else []))
    call.let_pass(place.name("sand"), SHORT_MS)
    record = call.one(Get(name))
    assert (record[:1], record[VALUE_HEADER_BYTES:]) == (b"V", b"old")
    assert call.one(Lease(name, B, LONG_MS, seen=b"old", keeps=True)) == record
    assert call.one(Fill(name, A, b"new", LONG_MS)) is True


def test_lease_in_the_header_of_a_value_shortens_no_life(call: Caller, place: Place, name: bytes) -> None:
    """A value that would have lived longer does; it outlives a lease that nobody renews."""
    call(put(name, b"old", LONG_MS), Lease(name, A, SHORT_MS, seen=b"old", keeps=True), Renew(name, A, SHORT_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call.one(Get(name))[VALUE_HEADER_BYTES:] == b"old"


@pytest.mark.parametrize("keeps", [False, True])
def test_forced_lease_is_taken_from_a_load_or_a_value(call: Caller, name: bytes, *, keeps: bool) -> None:
    """Whoever had it cannot fill any more."""
    forced = Lease(name, B, LONG_MS, keeps=keeps, forced=True)
    assert call(Lease(name, A, LONG_MS), forced, Fill(name, A, b"late", LONG_MS)) == [LEASED_BY_A, b"L" + B, False]
    call(put(name, b"old", LONG_MS), Lease(name, A, LONG_MS, seen=b"old", keeps=True))
    assert call(forced, Fill(name, A, b"late", LONG_MS)) == [b"L" + B, False]
    assert call.one(Fill(name, B, b"new", LONG_MS)) is True


def test_forced_lease_from_behind_a_fence_is_refused(call: Caller, name: bytes) -> None:
    """Nothing loaded while a write is under way may be stored."""
    call.one(Fence(name, A, LONG_MS))
    record = call.one(Lease(name, B, LONG_MS, forced=True))
    assert (record[:2], record[2:18]) == (b"B0", A)
    assert call.one(Get(name)) == record


def test_lease_after_the_fence_expired_is_granted(call: Caller, name: bytes) -> None:
    """A writer that was killed holds readers up for the fence's life only."""
    call.one(Fence(name, A, SHORT_MS))
    call.until(Lease(name, B, LONG_MS), lambda reply: reply == b"L" + B, "the fence to expire")


# Renew, fill, release -------------------------------------------------------------------------------------------------


def test_renew_lets_a_lease_live_on(call: Caller, place: Place, name: bytes) -> None:
    """Its holder, and nobody else."""
    assert call(Lease(name, A, SHORT_MS), Renew(name, B, LONG_MS), Renew(name, A, LONG_MS))[1:] == [False, True]
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call(Get(name), Renew(name, A, LONG_MS)) == [RECORD_OF_A, True]


def test_renew_of_a_refresh_lets_it_go_on(call: Caller, place: Place, name: bytes) -> None:
    """Its holder's only; another is refused past the deadline that it had."""
    call(put(name, b"old", LONG_MS), Lease(name, A, SHORT_MS, seen=b"old", keeps=True))
    assert call(Renew(name, B, LONG_MS), Renew(name, A, LONG_MS)) == [False, True]
    call.let_pass(place.name("sand"), SHORT_MS)
    assert refresh_of(call.one(Lease(name, B, LONG_MS, seen=b"old", keeps=True)))[0] == A


def test_renew_of_what_is_gone_is_refused(call: Caller, name: bytes) -> None:
    """Absent, invalidated or fenced: the load is told that it lost its lease."""
    assert call.one(Renew(name, A, LONG_MS)) is False
    assert call(Lease(name, A, LONG_MS), Drop(name), Renew(name, A, LONG_MS))[2] is False
    assert call(Lease(name, A, LONG_MS), Fence(name, B, LONG_MS), Renew(name, A, LONG_MS))[2] is False


def test_fill_under_the_lease_stores_and_ends_it(call: Caller, name: bytes) -> None:
    """The value has no refresh in its header; another fill with the token is refused."""
    assert call(Lease(name, A, SHORT_MS), Fill(name, A, b"1", LONG_MS)) == [LEASED_BY_A, True]
    assert call(Get(name), Fill(name, A, b"2", LONG_MS), Get(name)) == [value_record(b"1"), False, value_record(b"1")]


def test_fill_of_a_refresh_replaces_the_value(call: Caller, name: bytes) -> None:
    """And takes the token out of the header."""
    call(put(name, b"old", LONG_MS), Lease(name, A, LONG_MS, seen=b"old", keeps=True))
    assert call(Fill(name, B, b"no", LONG_MS), Fill(name, A, b"new", LONG_MS)) == [False, True]
    assert call.one(Get(name)) == value_record(b"new")


@pytest.mark.parametrize("event", ["absent", "dropped", "leased by another", "fenced", "put"])
def test_fill_without_the_lease_stores_nothing(call: Caller, name: bytes, event: str) -> None:
    """Whatever ended the lease, the value that was loaded under it is not stored."""
    between = {
        "absent": [],
        "dropped": [Lease(name, A, LONG_MS), Drop(name)],
        "leased by another": [Lease(name, A, LONG_MS), Drop(name), Lease(name, B, LONG_MS)],
        "fenced": [Lease(name, A, LONG_MS), Fence(name, B, LONG_MS)],
        "put": [Lease(name, A, LONG_MS), put(name, b"newer", LONG_MS)],
    }
    call(*between[event])
    before = call.one(Get(name))
    assert call(Fill(name, A, b"late", LONG_MS), Get(name)) == [False, before]


def test_filled_value_expires(call: Caller, name: bytes) -> None:
    """By the life that came with it, not by the lease's."""
    call(Lease(name, A, LONG_MS), Fill(name, A, b"1", SHORT_MS))
    call.until_gone(name)


@pytest.mark.parametrize("drops", [False, True])
def test_release_ends_a_lease(call: Caller, name: bytes, *, drops: bool) -> None:
    """Its holder's only, and only once."""
    call.one(Lease(name, A, LONG_MS))
    assert call(Release(name, B, drops), Get(name)) == [False, RECORD_OF_A]
    assert call(Release(name, A, drops), Get(name), Release(name, A, drops)) == [True, b"", False]


@pytest.mark.parametrize(("drops", "left"), [(False, value_record(b"old")), (True, b"")])
def test_release_of_a_refresh_keeps_the_value_unless_it_drops(
    call: Caller, name: bytes, *, drops: bool, left: bytes
) -> None:
    """The old value is as it was before the refresh, or gone."""
    call(put(name, b"old", LONG_MS), Lease(name, A, LONG_MS, seen=b"old", keeps=True))
    assert call(Release(name, B, drops), Release(name, A, drops), Get(name)) == [False, True, left]


def test_released_value_expires(call: Caller, name: bytes) -> None:
    """A refresh that failed does not prolong it beyond the end that its lease had."""
    call(put(name, b"old", SHORT_MS), Lease(name, A, SHORT_MS, seen=b"old", keeps=True), Release(name, A, drops=False))
    call.until_gone(name)


# Put, drop ------------------------------------------------------------------------------------------------------------


def test_put_replaces_a_value_and_a_lease(call: Caller, name: bytes) -> None:
    """Again and again, with its own life."""
    assert call(put(name, b"1", SHORT_MS), put(name, b"2", LONG_MS), Get(name)) == [True, True, value_record(b"2")]
    call(Drop(name), Lease(name, A, LONG_MS))
    assert call(put(name, b"3", LONG_MS), Get(name)) == [True, value_record(b"3")]
    call.one(put(name, b"4", SHORT_MS))
    call.until_gone(name)


def test_put_whose_caller_has_given_up_is_refused(call: Caller, name: bytes) -> None:
    """What arrives late must not overwrite what is newer, nor disturb a writer."""
    now_ms = call.one(ReadHead(EPOCH)).now_ms
    assert call(put(name, b"new", LONG_MS, now_ms + LONG_MS), put(name, b"late", LONG_MS, now_ms)) == [True, False]
    assert call.one(Get(name)) == value_record(b"new")
    assert call(Fence(name, A, LONG_MS), put(name, b"late", LONG_MS, now_ms)) == [False, False]
    assert call.one(Clear(name, A, b"1", LONG_MS)) == STORED


def test_put_behind_a_fence_is_refused_and_contends(call: Caller, name: bytes) -> None:
    """The writer learns that it was not alone: its value is not stored either."""
    call.one(Fence(name, A, LONG_MS))
    assert call.one(put(name, b"1", LONG_MS)) is False
    assert call.one(Get(name))[:18] == b"B1" + A
    assert call(Clear(name, A, b"2", LONG_MS), Get(name)) == [CLEARED, b""]


def test_drop_removes_a_value_and_a_lease(call: Caller, name: bytes) -> None:
    """What is absent stays absent."""
    assert call(put(name, b"1", LONG_MS), Drop(name), Get(name), Drop(name)) == [True, True, b"", True]
    assert call(Lease(name, A, LONG_MS), Drop(name), Get(name)) == [LEASED_BY_A, True, b""]


def test_drop_behind_a_fence_leaves_it_and_contends(call: Caller, name: bytes) -> None:
    """The fence holds; its writer may not store a value that the drop was meant for."""
    assert call(Fence(name, A, LONG_MS), Drop(name), Fence(name, A, LONG_MS)) == [False, True, True]
    assert call(Clear(name, A, b"2", LONG_MS), Get(name)) == [CLEARED, b""]


def test_contended_fence_expires_when_it_would_have(call: Caller, name: bytes) -> None:
    """Neither a refused put nor a drop prolongs it."""
    call(Fence(name, A, SHORT_MS), Drop(name), put(name, b"1", LONG_MS))
    call.until_gone(name)


# Fences ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["absent", "value", "lease", "refresh"])
def test_fence_goes_up_over_whatever_is_there(call: Caller, name: bytes, before: str) -> None:
    """And nothing of it is left when it comes down."""
    refresh = [put(name, b"1", LONG_MS), Lease(name, B, LONG_MS, seen=b"1", keeps=True)]
    call(*{"absent": [], "value": refresh[:1], "lease": [Lease(name, B, LONG_MS)], "refresh": refresh}[before])
    assert call.one(Fence(name, A, LONG_MS)) is False
    assert call.one(Get(name))[:18] == b"B0" + A
    assert call(Clear(name, A), Get(name)) == [CLEARED, b""]


def test_fence_of_one_writer_becomes_its_value(call: Caller, name: bytes) -> None:
    """Alone all the time, it may store what it wrote."""
    call.one(Fence(name, A, SHORT_MS * 100))
    assert call(Clear(name, A, b"1", LONG_MS), Get(name)) == [STORED, value_record(b"1")]


def test_fence_prolonged_by_its_writer_is_not_contended(call: Caller, place: Place, name: bytes) -> None:
    """It says that it was in already, lives on, and may store."""
    assert call(Fence(name, A, SHORT_MS), Fence(name, A, LONG_MS)) == [False, True]
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call(Clear(name, A, b"1", LONG_MS)) == [STORED]


def test_fences_of_two_writers_compose(call: Caller, name: bytes) -> None:
    """It stands until both are out, and neither stores a value."""
    assert call(Fence(name, A, LONG_MS), Fence(name, B, LONG_MS)) == [False, False]
    assert call.one(Clear(name, A, b"1", LONG_MS)) == CLEARED
    record = call.one(Get(name))
    assert (record[:18], len(record)) == (b"B1" + B, 26)
    assert call(Clear(name, B, b"2", LONG_MS), Get(name)) == [CLEARED, b""]


def test_fence_that_another_writer_left_stays_contended(call: Caller, name: bytes) -> None:
    """It was not alone all the time."""
    call(Fence(name, A, LONG_MS), Fence(name, B, LONG_MS), Clear(name, B), Fence(name, A, LONG_MS))
    assert call.one(Clear(name, A, b"1", LONG_MS)) == CLEARED


def test_fence_expires_with_its_last_writer(call: Caller, place: Place, name: bytes) -> None:
    """A writer that is late stays behind its own share, and an expired one is forgotten."""
    call(Fence(name, A, LONG_MS), Fence(name, B, SHORT_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call.one(Fence(name, B, SHORT_MS)) is False
    call.one(Clear(name, A))
    call.until_gone(name)


def test_clear_by_a_writer_whose_share_expired_is_lost(call: Caller, place: Place, name: bytes) -> None:
    """The fence of others stays, contended; nothing is stored."""
    call(Fence(name, A, SHORT_MS), Fence(name, B, LONG_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    assert call.one(Clear(name, A, b"1", LONG_MS)) == LOST
    assert call.one(Get(name))[:18] == b"B1" + B
    assert call.one(Clear(name, B, b"2", LONG_MS)) == CLEARED


@pytest.mark.parametrize("state", ["absent", "value", "lease"])
def test_clear_without_a_fence_is_lost_and_removes_the_record(call: Caller, name: bytes, state: str) -> None:
    """Who knows what was loaded while the fence was down."""
    call(*{"absent": [], "value": [put(name, b"old", LONG_MS)], "lease": [Lease(name, B, LONG_MS)]}[state])
    assert call(Clear(name, A, b"1", LONG_MS), Get(name)) == [LOST, b""]


def test_clear_repeated_is_lost_and_takes_the_value_along(call: Caller, name: bytes) -> None:
    """A reply that was lost is asked for again; what was stored goes, which is safe."""
    call(Fence(name, A, LONG_MS), Clear(name, A, b"1", LONG_MS))
    assert call(Clear(name, A, b"1", LONG_MS), Get(name)) == [LOST, b""]


def test_value_stored_by_a_clear_expires(call: Caller, name: bytes) -> None:
    """By the life that came with it."""
    assert call(Fence(name, A, LONG_MS), Clear(name, A, b"1", SHORT_MS)) == [False, STORED]
    call.until_gone(name)
