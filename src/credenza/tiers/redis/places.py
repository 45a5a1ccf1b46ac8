"""Where a server is, and how one gets in."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .refusals import Garbled, Refusal, Unreached
from .wire import Raw, pack


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """What all nodes of a set-up have in common.

    Attributes:
        credentials: redis-py's provider of user name and password, None for an open server.
        database: its number; a cluster has only 0.
        client_name: shown by `CLIENT LIST`.
        tls: how to check the server, None for a plain connection.
        keepalive: options of TCP's keep-alive by their number, None to leave it off.
        must_be_master: refuse a replica; for servers that a sentinel named.
    """

    credentials: Any = field(default=None, repr=False)  # Any: a Protocol of redis-py, which may be absent
    database: int = 0
    client_name: str | None = None
    tls: ssl.SSLContext | None = None
    keepalive: dict[int, int] | None = None
    must_be_master: bool = False


class Place(NamedTuple):
    """One server: a host and a port, or the path of a Unix socket and no port."""

    host: str
    port: int
    access: Access

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Greeting(NamedTuple):
    """What is sent first on a new connection, all at once, and what is to come back."""

    request: bytes
    names: tuple[str, ...]


def greeting(access: Access, credentials: tuple[str, ...]) -> Greeting:
    """Return what a new connection says: who it is, which database it wants."""
    said: list[tuple[str, bytes]] = []
    if credentials:
        said.append(("AUTH", pack(b"AUTH", *[part.encode() for part in credentials if part])))
    if access.database:
        said.append(("SELECT", pack(b"SELECT", b"%d" % access.database)))
    if access.client_name:
        said.append(("CLIENT SETNAME", pack(b"CLIENT", b"SETNAME", access.client_name.encode())))
    if access.must_be_master:
        said.append(("ROLE", pack(b"ROLE")))
    return Greeting(b"".join([request for _, request in said]), tuple(name for name, _ in said))


def check_welcome(place: Place, names: tuple[str, ...], answers: list[Raw]) -> None:
    """Check the answers to a greeting.

    Raises:
        Unreached: the server does not let us in, or is not who it should be.
    """
    for name, answer in zip(names, answers, strict=True):
        if name == "ROLE":
            if not isinstance(answer, list) or not answer:
                raise Garbled
            if answer[0] != b"master":
                raise Unreached(f"the server at {place} is not the master any more")
        elif isinstance(answer, Refusal) and name != "CLIENT SETNAME":
            raise Unreached(f"the server at {place} does not let us in: {answer}")


def no_credentials(place: Place, error: Exception) -> Unreached:
    """Return the error for a provider of credentials that fails; what it says is not repeated, it may be secret."""
    return Unreached(f"the credentials for the server at {place} cannot be had: {type(error).__name__}")


def tune(sock: socket.socket, place: Place) -> None:
    """Send small requests at once, and notice a peer that is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if place.access.keepalive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, number in place.access.keepalive.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, number)
