"""The cache under test, built as its documentation says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import credenza
import credenza.memory.implementation
from bench.peers import MAXSIZE, TTL

NAME = "credenza"
TEMPLATE = "credenza, key template"


def implementation() -> str:
    """Return which table runs in this process: "compiled" or "pure"."""
    return credenza.memory.implementation.implementation()


def cached(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Decorate with a cache of its own, key from the argument."""
    decorated: Callable[[str], Any] = credenza.Cache(maxsize=MAXSIZE).cached(ttl=TTL)(function)
    return decorated


def cached_by_template(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Decorate with a cache of its own and a key that is formatted on each call."""
    decorated: Callable[[str], Any] = credenza.Cache(maxsize=MAXSIZE).cached(ttl=TTL, key="user:{key}")(function)
    return decorated


def new_cache() -> credenza.Cache[str, Any]:
    """Return an empty cache with the usual bound and ttl."""
    return credenza.Cache(maxsize=MAXSIZE, ttl=TTL)


def load(key: str) -> str:
    """Load a value at no cost."""
    return key


async def load_async(key: str) -> str:
    """Load a value at no cost, as a coroutine."""
    return key


async def warm_up(function: Callable[[str], Awaitable[object]], keys: Any) -> None:
    """Ask for each key once."""
    for key in keys:
        await function(key)
