"""Where the servers are that only others know of: redis-py asks the sentinels and the nodes of a cluster."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .punctual import is_late, seconds_left, settled, within
from .refusals import Unreached
from .servers import Address, Servers, redis_module


async def find_master(found_by: Servers, deadline_ns: int, *, is_async: bool) -> tuple[str, int]:
    """Return the address of the master that one of the sentinels names, and remember it.

    Raises:
        Unreached: none of them does, or not in time.
    """
    module = redis_module("redis.asyncio.sentinel" if is_async else "redis.sentinel")
    options = {**found_by.sentinel_options, **_limits(found_by, deadline_ns, is_async=is_async)}
    sentinel = module.Sentinel(found_by.hosts, sentinel_kwargs=options)
    try:
        async with within(deadline_ns, is_async=is_async):
            host, port = await settled(sentinel.discover_master(found_by.service))
    except Exception as error:
        raise unreached(found_by.shown(None), error) from error
    finally:  # they are asked once a second at most: a connection is not worth keeping
        for client in sentinel.sentinels:
            await _close(client, is_async=is_async)
    address = str(host), int(port)
    found_by.master.address = address
    return address


async def find_slots(known: Servers, deadline_ns: int, *, is_async: bool) -> dict[int, Address]:
    """Return which node of a cluster has which slot.

    Raises:
        Unreached: none of its nodes says so, or not in time.
    """
    module = redis_module("redis.asyncio.cluster" if is_async else "redis.cluster")
    options = {name: value for name, value in known.options.items() if name not in ("host", "port", "db")}
    options |= _limits(known, deadline_ns, is_async=is_async)
    client: Any = None  # Any: the colours have no type in common
    try:
        async with within(deadline_ns, is_async=is_async):
            nodes = [module.ClusterNode(host, port) for host, port in known.hosts]
            client = module.RedisCluster(
                startup_nodes=nodes, require_full_coverage=False, address_remap=known.remap, **options
            )
            if is_async:
                await client.initialize()
        slots = client.nodes_manager.slots_cache
        return {slot: (str(nodes[0].host), int(nodes[0].port)) for slot, nodes in slots.items() if nodes}
    except Exception as error:
        raise unreached("the cluster", error) from error
    finally:
        if client is not None:
            await _close(client, is_async=is_async)


def unreached(where: str, error: Exception) -> Unreached:
    """Return the error for a server to which there is no connection."""
    if isinstance(error, Unreached):
        return error
    if is_late(error):
        return Unreached(f"{where} cannot be reached in time")
    errors = redis_module("redis.exceptions")
    if isinstance(error, OSError | errors.RedisError | errors.RedisClusterException):
        return Unreached(f"{where} cannot be reached: {error}")
    # What a provider of credentials says is not repeated, it may be secret.
    return Unreached(f"{where} cannot be reached, or its credentials cannot be had: {type(error).__name__}")


def _limits(servers: Servers, deadline_ns: int, *, is_async: bool) -> dict[str, Any]:
    """Return options that leave time for each of the servers that are asked one after the other. Any: of all kinds."""
    share = seconds_left(deadline_ns) / len(servers.hosts)
    retry = redis_module("redis.asyncio.retry" if is_async else "redis.retry").Retry
    never = retry(redis_module("redis.backoff").NoBackoff(), 0)
    is_tls = servers.kind == "SSLConnection"
    return {"socket_timeout": share, "socket_connect_timeout": share, "retry": never, "ssl": is_tls, "protocol": 2}


async def _close(client: Any, *, is_async: bool) -> None:
    with suppress(Exception):  # it has said what it was asked for, or cannot
        await settled(client.aclose() if is_async else client.close())
