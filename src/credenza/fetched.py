"""What a call by hand brings, with where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .stats import Status
from .steps.request import Request

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """A value, and where it came from.

    Attributes:
        value: the value.
        status: "hit", "shared", "miss", "stale", "joined" or "bypass"; see `Status`.
        age: how long ago it was stored, in seconds; 0.0 if it was loaded for this call.
        load_time: how long its load took, in seconds; 0.0 if it was at hand.
    """

    value: V
    status: Status
    age: float
    load_time: float


def fetched(request: Request, value: V) -> Fetched[V]:
    """Return what a request brought, with where it came from."""
    return Fetched(value, request.status, request.age_ns / 1e9, request.load_ns / 1e9)
