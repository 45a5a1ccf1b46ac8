"""The proof that memory is fresh: how far this process has read the log of invalidations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..tiers.base import Head, Log, News

MOST_NEWS: Final = 1000
"""How many announcements are worth applying one by one; a process that missed more empties its memory."""


class Proof:
    """How far the log has been applied. Not thread-safe: the state's lock guards it.

    The log is a volume lease on all entries of this process's memory at once: Yin, Alvisi, Dahlin, Lin, Volume leases for
    consistency in large-scale systems, IEEE TKDE 1999, after Gray, Cheriton, Leases, SOSP 1989. Here a process renews its
    own, and a writer waits it out only where it is asked to (`strict`).

    Args:
        sender: this process, whose own announcements it has obeyed already.

    Attributes:
        head: the namespace as it was last read or announced to; None before.
        applied: the announcements up to this one have been applied.
        has_read: the log has been read.
    """

    __slots__ = ("_sender", "applied", "has_read", "head")

    def __init__(self, sender: bytes) -> None:
        self._sender = sender
        self.head: Head | None = None
        self.applied = 0
        self.has_read = False

    def follow(self, log: Log) -> Sequence[News] | None:
        """Take what was read; return what is to be applied, or None for a gap, an older or another log: then everything."""
        head, expected, applied = log.head, self.applied + 1, self.applied
        self.glance(head)  # our own announcement may have told of a later one, while this was on its way
        is_another = self.head is None or self.head.epoch != head.epoch
        if is_another or head.sequence < applied:
            self.head = head
        is_first, self.has_read, self.applied = not self.has_read, True, head.sequence
        if is_first or is_another or head.sequence < applied:
            return None
        news = [each for each in log.news if each.sequence > applied]
        if [each.sequence for each in news] != list(range(expected, head.sequence + 1)):
            return None
        return [each for each in news if each.sender != self._sender]

    def glance(self, head: Head) -> None:
        """Take note of a head that came with another reply: its floor and sequence, if it is the later one."""
        known = self.head
        if known is None or (known.epoch == head.epoch and head.sequence >= known.sequence):
            self.head = head
