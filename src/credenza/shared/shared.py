"""What one process knows, holds and owes of its shared tier."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..codec import Codec
from ..durations import FOREVER_NS
from ..policy import Policy
from ..tiers.base import Head, Stamp, Tier
from .breaker import Breaker
from .names import Names, Scope
from .owed import Owed
from .proof import Proof

LEASE_MS: Final = 2_000
"""How long a lease lives without being renewed: so long others wait for a load whose process was killed."""

FENCE_MS: Final = 10_000
"""How long a fence lives without being renewed: so long readers go to the source after a writer was killed."""

RENEW_NS: Final = LEASE_MS * 1_000_000 // 3
MOST_TAGS: Final = 10_000

MILLISECOND: Final = 1_000_000


@dataclass(eq=False, slots=True)
class Barrier:
    """One write under way, as the shared tier knows it.

    Attributes:
        writer: its token.
        names, tags: the records behind its fence.
        keys: what the names stand for here.
        held_ns: when the fence was raised or confirmed last; 0 if it is not up.
        is_lost: it was found gone while the write was under way.
        is_owed: it could not be raised, so the invalidation is owed after the write.
        head: the namespace when the fence was up.
    """

    writer: bytes
    keys: dict[Hashable, bytes]
    tags: tuple[bytes, ...]
    held_ns: int = 0
    is_lost: bool = False
    is_owed: bool = False
    head: Head | None = None
    names: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.names = tuple(self.keys.values())


class Knowledge(NamedTuple):
    """What tells whether a value is still current: the head, and the stamps of tags; None for one behind a fence."""

    head: Head
    stamps: Mapping[bytes, Stamp | None]

    def is_current(self, stamp: Stamp, tags: Iterable[bytes]) -> bool:
        """Tell whether a value that was loaded at `stamp` and carries `tags` has been neither cleared nor invalidated."""
        if stamp.epoch != self.head.epoch or stamp.sequence < self.head.floor:
            return False
        for tag in tags:
            known = self.stamps.get(tag)
            if known is None or known.epoch != stamp.epoch or known.sequence > stamp.sequence:
                return False
        return True


class Shared:
    """The tier, its names and codec, and what this process has to remember of it. The state's lock guards what changes.

    Args:
        tier: where the records are.
        codec: makes bytes of values.
        policy: the options of the cache.
        random: draws from [0, 1).
        now_ns: the time.
        has_memory: there is a memory tier above.

    Attributes:
        coherence: as in the policy.
        needs_proof: memory may be used only while the proof holds.
        may_fail_writes: a write that cannot be fenced raises, instead of owing the invalidation.
        allowance_ns: for how long after its load began a value that no fill has confirmed may be shared.
        widest_ms: the longest `max_staleness` of any process that was ever heard of.
        sender: this process, in the log.
        known_until_ns: what was read of the log, the head and the tags holds until then.
        offset_ms: the tier's clock less ours, as the earliest and the latest that it can be; None before the first reading.
        leases: the leases that are held, by token.
        barriers: the fences that are held, by writer.
        stamps: the tags whose stamp is known; valid until `known_until_ns`.
        tag_reads: counts what could make a stamp that is being read an old one.
        is_refusing: operations that write were refused lately (`refused_ns`), by a tier that is full or read-only.
        ripe_ns: what is owed is not delivered before: what it makes up for may still be performed until then.
        wake: lets the keeper look at once.
        keep: sees to it that there is a keeper.
    """

    def __init__(
        self,
        tier: Tier,
        codec: Codec,
        policy: Policy,
        *,
        random: Callable[[], float],
        now_ns: int,
        has_memory: bool,
    ) -> None:
        self.tier = tier
        self.codec = codec
        self.names = Names(tier.namespace)
        self.coherence = policy.coherence
        self.has_memory = has_memory
        self.needs_proof = policy.coherence != "ttl"
        self.has_fences = policy.coherence in ("bounded", "strict")
        self.waits_for_proofs = policy.coherence == "strict"
        self.staleness_ns = policy.max_staleness_ns
        self.widest_ms = -(-policy.max_staleness_ns // MILLISECOND)
        self.timeout_ns = policy.tier_timeout_ns
        self.may_fail_writes = policy.fails_without_fence
        self.allowance_ns = self._allowance_ns()
        self._remembers_tags = not self.needs_proof or self.waits_for_proofs or (self.has_fences and has_memory)
        self._random = random
        self.is_closed = False
        self.wake: Callable[[], object] = _do_nothing
        self.keep: Callable[[], object] = _do_nothing
        self.begin_anew(now_ns)

    def begin_anew(self, now_ns: int) -> None:
        """Be another process: nothing is known, nothing is held. What is owed stays with the parent."""
        self.breaker = Breaker(self._random, now_ns)
        self.is_refusing = False
        self.refused_ns = self.ripe_ns = 0
        self.sender = os.urandom(8)
        self._numbers = itertools.count(1)
        self.proof = Proof(self.sender)
        self.known_until_ns = 0
        self.offset_ms: tuple[int, int] | None = None
        self.leases: dict[bytes, bytes] = {}
        self.barriers: dict[bytes, Barrier] = {}
        self.stamps: dict[bytes, Stamp] = {}
        self.tag_reads = 0
        self.renewed_ns = 0
        self.owed = Owed()

    def _allowance_ns(self) -> int:
        if not self.needs_proof:
            return FOREVER_NS
        return 0 if self.waits_for_proofs or not self.has_memory else self.staleness_ns

    @property
    def epoch(self) -> bytes:
        """An epoch to offer, another one each time: a tier that loses its memory twice must not begin the same one again."""
        return os.urandom(8)

    def new_token(self) -> bytes:
        """Return a token that no other load or write of any process has."""
        return self.sender + next(self._numbers).to_bytes(8, "big")

    def may_ask(self, key: Hashable) -> bool:
        """Tell whether the tier is there, and has nothing of `key` that it should have forgotten."""
        return not (self.breaker.is_away or self.is_closed or (self.owed and self.owed.is_owed(key)))

    def knowledge(self, now_ns: int) -> Knowledge | None:
        """Return what is known of the head and the tags, if it still holds."""
        head = self.proof.head
        if head is None or now_ns >= self.known_until_ns:
            return None
        return Knowledge(head, self.stamps)

    def remember_tags(self, stamps: dict[bytes, Stamp | None], reads: int) -> None:
        """Remember what was read of tags, unless something happened to any tag since `reads` was noted.

        What is remembered may be as old as the proof; where a read from the tier is to see every write, nothing is.
        """
        if reads != self.tag_reads or not self._remembers_tags:
            return
        if len(self.stamps) + len(stamps) > MOST_TAGS:
            self.stamps.clear()
        self.stamps.update({tag: stamp for tag, stamp in stamps.items() if stamp is not None})

    def forget_tags(self, tags: Iterable[bytes]) -> None:
        """Forget the stamps of `tags`, and remember none that is being read now."""
        self.tag_reads += 1
        for tag in tags:
            self.stamps.pop(tag, None)

    def note_head(self, head: Head) -> None:
        """Take note of a head that came with a reply."""
        self.widest_ms = max(self.widest_ms, head.widest_ms)
        self.proof.glance(head)

    # The tier's clock -------------------------------------------------------------------------------------------------

    def compare_clocks(self, now_ms: int, sent_ns: int, received_ns: int) -> None:
        """Take note of what the tier's clock said between two moments of ours."""
        self.offset_ms = (now_ms - -(-received_ns // MILLISECOND), now_ms + 1 - sent_ns // MILLISECOND)

    def earliest_ms(self, now_ns: int) -> int:
        """Return the tier's time, at least: what is stored now is no younger than that."""
        assert self.offset_ms is not None
        return now_ns // MILLISECOND + self.offset_ms[0]

    def latest_ms(self, now_ns: int) -> int:
        """Return the tier's time, at most: what was stored is no older than that makes it."""
        assert self.offset_ms is not None
        return now_ns // MILLISECOND + self.offset_ms[1]


def scope_tag(scope: Scope) -> str:
    """Return the tag that all values of a function carry in a shared tier, so that `cache_clear` reaches every process."""
    return f"\0{scope.name}"


def _do_nothing() -> None:
    pass
