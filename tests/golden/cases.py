"""What the files in `v1` were made from. Files are added, never made anew: they are what older processes stored.

`python -m tests.golden.cases` writes those that are missing.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec

from credenza import NotFound
from credenza.codec import FOREVER, Codec, Pickle
from credenza.sentinel import MISSING
from credenza.tiers.base import Stamp

FOLDER = Path(__file__).parent / "v1"
STAMP = Stamp(b"golden-1", 1 << 40)
SECRET = b"a secret of the tests, known to all"


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Point(NamedTuple):
    x: int
    y: float


class Row(TypedDict):
    id: int
    name: str


class Order(msgspec.Struct):
    number: int
    lines: list[str]


@dataclasses.dataclass
class User:
    id: int
    name: str
    level: Level
    born: datetime.date
    seen: datetime.datetime
    balance: decimal.Decimal
    token: uuid.UUID
    roles: set[str]
    place: Point
    photo: bytes = b""
    manager: User | None = None


PLAIN = {
    "id": 42,
    "name": "Zoë",
    "tags": ["a", "b"],
    "score": 1.5,
    "is_active": True,
    "none": None,
    "big": (1 << 64) - 1,
}
USER = User(
    id=42,
    name="Zoë",
    level=Level.HIGH,
    born=datetime.date(1990, 2, 28),
    seen=datetime.datetime(2024, 5, 1, 12, 30, 15, 250, tzinfo=datetime.UTC),
    balance=decimal.Decimal("10.50"),
    token=uuid.UUID("12345678-1234-5678-1234-567812345678"),
    roles={"admin"},
    place=Point(1, 2.5),
    photo=b"\x00\xff",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One file: the codec and the type that read it, and the value that comes out."""

    format: Any
    value: Any
    annotation: Any = MISSING
    compress_above: int | None = None
    fresh_ms: int = 300_000
    tags: tuple[bytes, ...] = ()
    is_absent: bool = False

    def codec(self) -> Any:
        return Codec(self.format, compress_above=self.compress_above).of(self.annotation)


NAME = b"shop:user:42"
CASES = {
    "msgpack-plain": Case("msgpack", PLAIN),
    "msgpack-bytes-and-odd-keys": Case("msgpack", {1: b"\x00", None: [], (1, "a"): {}, 2.5: -5}),
    "msgpack-none-for-ever": Case("msgpack", None, fresh_ms=FOREVER),
    "msgpack-tags": Case("msgpack", "text", tags=(b"shop#users", b"", b"shop#user:42")),
    "msgpack-absent": Case("msgpack", NotFound("no user", 42, None), is_absent=True),
    "msgpack-dataclass": Case("msgpack", USER, User),
    "msgpack-dataclasses": Case("msgpack", [USER, None], list[User | None]),
    "msgpack-struct": Case("msgpack", Order(7, ["x"]), Order),
    "msgpack-typed-dict": Case("msgpack", {"id": 1, "name": "n"}, Row),
    "msgpack-tuple": Case("msgpack", (1, "a", frozenset({b"x"})), tuple[int, str, frozenset[bytes]]),
    "msgpack-compressed": Case("msgpack", {"text": "again and " * 200}, compress_above=100),
    "json-plain": Case("json", PLAIN),
    "json-dataclass": Case("json", USER, User),
    "json-absent": Case("json", NotFound(), is_absent=True),
    "pickle-dataclass": Case(Pickle(SECRET), USER, tags=(b"shop#users",)),
    "pickle-compressed": Case(Pickle(SECRET), {"text": ("again and " * 200,)}, compress_above=100),
    "pickle-absent": Case(Pickle(SECRET), NotFound("no user"), is_absent=True),
}


def write_missing() -> None:
    """Write the files that there are not yet."""
    for title, case in CASES.items():
        path = FOLDER / f"{title}.bin"
        if not path.exists():
            packed = case.codec().pack(
                NAME, case.value, stamp=STAMP, stored_ms=1_700_000_000_000, fresh_ms=case.fresh_ms, stale_ms=60_000,
                load_ms=12, tags=case.tags, is_absent=case.is_absent,
            )  # fmt: skip
            path.write_bytes(packed)


if __name__ == "__main__":
    from tests.golden import cases  # the classes of this file under the name that the tests know them by

    cases.write_missing()
