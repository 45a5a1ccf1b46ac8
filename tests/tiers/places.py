"""Places that tiers share, and a caller that asks a tier in either colour."""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.servers import NoServerError, find_server
from tests.support.waiting import wait_until

from credenza.tiers.base import TOKEN_BYTES, Get, Operation, Put, Reply, Stamp, Tier, TierError
from credenza.tiers.memory import DictTier

Colour = Literal["blocking", "async"]


def has_server(kind: str) -> bool:
    """Tell whether there is such a server here."""
    try:
        find_server(kind)
    except NoServerError:
        return False
    return True


SERVERS = {"redis": "redis", "valkey": "valkey", "cluster": "redis"}
"""Kinds of tiers by the server that they need."""
CUSTOM = os.environ.get("CREDENZA_TIER", "")
"""`package.module:function` of somebody else's tier; the function takes a namespace and returns a tier on one place."""

KINDS = [
    "dict",
    "sqlite",
    *(kind for kind, server in SERVERS.items() if has_server(server)),
    *(["custom"] if CUSTOM else []),
]
"""What the suite runs over here."""

TIMEOUT_NS = 8_000_000_000
LONG_MS = 600_000
SHORT_MS = 40
NEVER_MS = 1 << 52
EPOCH, OTHER_EPOCH = b"epoch--1", b"epoch--2"


def token(letter: str) -> bytes:
    """Return a token that a failed comparison shows well."""
    return letter.encode() * TOKEN_BYTES


def stamp(sequence: int, epoch: bytes = EPOCH) -> Stamp:
    """Return a place in the log."""
    return Stamp(epoch, sequence)


def put(name: bytes, envelope: bytes, life_ms: int, before_ms: int = NEVER_MS) -> Put:
    """Return the operation of a caller that has all the time there is."""
    return Put(name, envelope, life_ms, before_ms)


def open_tier(kind: str, address: str, namespace: str) -> Tier:
    """Return another tier object on a place that processes share."""
    if kind == "sqlite":
        from credenza.tiers.sqlite import SqliteTier

        return SqliteTier(address, namespace=namespace)
    if kind in SERVERS:
        from credenza.tiers.redis import RedisTier

        return RedisTier(address, namespace=namespace)
    module, _, function = address.partition(":")
    made: Tier = getattr(importlib.import_module(module), function)(namespace)
    return made


@dataclass
class Place:
    """Where tiers of one namespace meet.

    Attributes:
        kind: which tier.
        address: how another process finds it.
        namespace: its own, so that places on one server do not meet.
    """

    kind: str
    address: str
    namespace: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    opened: list[Tier] = field(default_factory=list)

    @property
    def is_shared(self) -> bool:
        """Whether other processes reach it."""
        return self.kind != "dict"

    def open(self) -> Tier:
        """Return a tier object; of a dictionary there is only one."""
        if self.kind == "dict":
            tier = self.opened[0] if self.opened else DictTier(namespace=self.namespace)
        else:
            tier = open_tier(self.kind, self.address, self.namespace)
        self.opened.append(tier)
        return tier

    def close(self) -> None:
        """Close whatever was opened."""
        for tier in self.opened:
            tier.close()

    def name(self, text: str) -> bytes:
        """Return the full name of a record."""
        return f"{self.namespace}:{text}".encode()


class Caller:
    """Asks a tier blocking or on an event loop of its own, and refuses a reply that is an error."""

    def __init__(self, tier: Any, colour: Colour) -> None:  # Any: what a tier has beyond the protocol
        self.tier = tier
        self._runner = asyncio.Runner() if colour == "async" else None

    def __call__(self, *operations: Operation) -> list[Reply]:
        if self._runner is None:
            replies = self.tier.perform(operations, TIMEOUT_NS)
        else:
            replies = self._runner.run(self.tier.perform_async(operations, TIMEOUT_NS))
        assert len(replies) == len(operations)
        for reply in replies:
            if isinstance(reply, TierError):
                raise reply
        return replies

    def one(self, operation: Operation) -> Reply:
        """Perform one operation and return its reply."""
        return self(operation)[0]

    def until(self, operation: Operation, holds: Callable[[Reply], object], what: str) -> None:
        """Perform an operation until its reply is what it should become."""
        wait_until(lambda: holds(self.one(operation)), what)

    def until_gone(self, name: bytes) -> None:
        """Wait until a record has expired."""
        self.until(Get(name), lambda record: record == b"", "a record to expire")

    def let_pass(self, name: bytes, life_ms: int) -> None:
        """Wait until whatever had `life_ms` left, or less, has expired by the tier's own clock."""
        self.one(put(name, b"sand", life_ms + 2))
        self.until_gone(name)

    def give_up(self) -> None:
        """Close what the tier opened, and keep the event loop for another one."""
        if self._runner is not None:
            self._runner.run(self.tier.close_async())
        self.tier.close()

    def close(self) -> None:
        """Close the event loop and what the tier opened there."""
        if self._runner is not None:
            with self._runner as runner:
                runner.run(self.tier.close_async())
