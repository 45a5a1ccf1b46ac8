"""What left the eviction queues last."""

from __future__ import annotations

from collections import deque
from typing import Final

PARTS: Final = 64
"""In how many parts of a cost the share of the small queue is reckoned, so that it can shrink slowly."""

_SAMPLED = 7
"""Numbers without these bits are remembered for longer."""


class Ghosts:
    """What left the queues last: of the small queue twice as many as there are entries, of the main queue half as many.

    One key in eight that left the small queue is remembered three times as long: so a loop over more keys than are
    remembered shows itself by some of them.

    Attributes:
        clock: how many entries have left the small queue.
    """

    __slots__ = (
        "_forgotten",
        "_long_forgotten",
        "_long_order",
        "_main_clock",
        "_main_forgotten",
        "_main_order",
        "_order",
        "_seen",
        "_size",
        "clock",
    )

    def __init__(self) -> None:
        self.clock = self._main_clock = 0
        self._size = 1
        self._forgotten = self._long_forgotten = self._main_forgotten = 0
        self._order: deque[int] = deque()
        self._long_order: deque[tuple[int, int]] = deque()
        self._main_order: deque[int] = deque()
        self._seen: dict[int, int] = {}

    def recall(self, number: int) -> int:
        """Return when `number` left the small queue, below 0 if it left the main queue, 0 if unknown; forget it."""
        seen = self._seen.pop(number, 0)
        if seen > 0:
            return seen if seen > (self._forgotten if number & _SAMPLED else self._long_forgotten) else 0
        return seen if -seen > self._main_forgotten else 0

    def step(self, seen: int) -> int:
        """Return by how much a key that came back moves the share: the less the longer it was away."""
        age = self.clock - seen if seen > 0 else self._main_clock + seen
        near = self._size // 16 or 1
        if age < near:
            return 2 * PARTS
        return PARTS * near // (age + 1) if age < self._size else 0

    def add(self, number: int, size: int) -> None:
        """Remember what leaves the small queue of a cache of so many entries."""
        self.clock = clock = self.clock + 1
        self._size = size
        self._seen[number] = clock
        self._forgotten = forgotten = max(self._forgotten, clock - 2 * size)
        order = self._order
        order.append(number)
        for _ in range(2):
            oldest = clock - len(order) + 1
            if oldest > forgotten:
                break
            old = order.popleft()
            if old & _SAMPLED and self._seen.get(old) == oldest:
                del self._seen[old]
        self._long_forgotten = forgotten = max(self._long_forgotten, clock - 6 * size)
        if not number & _SAMPLED:
            order_ = self._long_order
            order_.append((clock, number))
            for _ in range(2):
                oldest, old = order_[0]
                if oldest > forgotten:
                    break
                del order_[0]
                if self._seen.get(old) == oldest:
                    del self._seen[old]

    def add_of_main(self, number: int, size: int) -> None:
        """Remember what leaves the main queue of a cache of so many entries."""
        self._main_clock = clock = self._main_clock + 1
        self._size = size
        self._seen[number] = -clock
        self._main_forgotten = forgotten = max(self._main_forgotten, clock - (size + 1) // 2)
        order = self._main_order
        order.append(number)
        for _ in range(2):
            oldest = clock - len(order) + 1
            if oldest > forgotten:
                break
            old = order.popleft()
            if self._seen.get(old) == -oldest:
                del self._seen[old]
