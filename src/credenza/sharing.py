"""Giving a cache a shared tier, and telling how it is."""

from __future__ import annotations

import functools
import logging
import typing
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .codec import Codec
from .errors import ConfigurationError, TierError
from .sentinel import MISSING
from .state import State
from .tiers.base import Tier
from .tiers.urls import open_tier

if TYPE_CHECKING:
    from .shared.shared import Shared

_log = logging.getLogger("credenza")

INSPECTION_NS = 2_000_000_000
"""How long the start of a service may take for a look at its shared tier."""

_METHODS = ("perform", "perform_async", "watch", "forget_parent", "close", "close_async")

_PROMISES = {
    "ttl": "no older than ttl",
    "invalidate": "a read sees every write whose call returned; other processes' memory within max_staleness",
    "bounded": "at most max_staleness behind a write that returned",
    "strict": "linearizable per key",
}


@dataclass(frozen=True, slots=True)
class Health:
    """How a cache stands with its shared tier; a snapshot.

    Attributes:
        tier: "none", "up", "away" (it does not answer, and is left alone), or "refusing" (it answers and stores nothing).
        coherence: the level that was asked for.
        promise: what holds now, in words.
        is_proved: the memory tier may be used now.
        owed: how many invalidations the tier has not taken yet.
        since: for how long `tier` has been what it is, in seconds.
        error: the last failure, while the tier is away.
    """

    tier: str
    coherence: str
    promise: str
    is_proved: bool
    owed: int
    since: float
    error: str | None


def health_of(state: State) -> Health:
    """Return how the cache stands with its shared tier."""
    now_ns = state.clock_ns()
    shared = state.shared
    if shared is None:
        return Health("none", "local", "linearizable within this process", True, 0, 0.0, None)
    with state.lock:
        breaker = shared.breaker
        tier = "away" if breaker.is_away else "refusing" if shared.is_refusing else "up"
        return Health(
            tier=tier,
            coherence=shared.coherence,
            promise=_promise(shared),
            is_proved=now_ns < state.table.fresh_until_ns,
            owed=len(shared.owed),
            since=(now_ns - breaker.since_ns) / 1e9,
            error=breaker.error,
        )


def _promise(shared: Shared) -> str:
    if shared.owed and shared.needs_proof:
        return "other processes may serve what was invalidated until what is owed is delivered, or its ttl is over"
    if shared.breaker.is_away:
        return "reads go to the source; " + _PROMISES[shared.coherence]
    return _PROMISES[shared.coherence]


def tier_and_codec(remote: object, namespace: str | None, codec: Codec | str | None) -> tuple[Tier, Codec]:
    """Return the tier and the codec that the arguments of a cache mean.

    Raises:
        ConfigurationError: see `Cache.from_url`.
    """
    if not isinstance(remote, str):
        return tier_from(remote, namespace), codec_from(codec)
    url, named = _take_codec(remote)
    carrier = codec_from(named if codec is None else codec)  # before anything is opened
    tier = open_tier(url, namespace=namespace)
    _inspect(tier)
    return tier, carrier


def tier_from(remote: object, namespace: str | None) -> Tier:
    """Return the tier that is meant: it is one, or a client of redis-py.

    Raises:
        ConfigurationError: it is none of these.
    """
    if all(callable(getattr(remote, name, None)) for name in _METHODS):
        tier = typing.cast("Tier", remote)
        if namespace is not None and namespace != tier.namespace:
            raise ConfigurationError(
                f"the tier has the namespace {tier.namespace!r}, got {namespace!r}; name it in one place"
            )
        return tier
    if type(remote).__module__.split(".")[0] in ("redis", "valkey"):
        from .tiers.redis import RedisTier  # noqa: PLC0415  # an optional dependency

        return RedisTier(remote, namespace=namespace or "credenza")
    raise ConfigurationError(
        f"remote is a URL such as redis://localhost:6379/0, a tier, or a client of redis-py; got {type(remote).__qualname__}"
    )


def _take_codec(url: str) -> tuple[str, str | None]:
    """Return the URL without its `codec` parameter, and that."""
    before, mark, query = url.partition("?")
    parameters = urllib.parse.parse_qsl(query, keep_blank_values=True)
    codecs = [value for name, value in parameters if name == "codec"]
    if not codecs:
        return url, None
    rest = urllib.parse.urlencode([(name, value) for name, value in parameters if name != "codec"])
    return f"{before}{mark if rest else ''}{rest}", codecs[-1]


def _inspect(tier: Tier) -> None:
    """Refuse a server or a file that cannot keep the promise; one that is away may come back.

    Raises:
        ConfigurationError: see `Cache.from_url`.
    """
    inspect = getattr(tier, "inspect", None)
    if inspect is not None:
        try:
            inspect(INSPECTION_NS)
        except TierError as error:
            _log.warning("the shared tier is away at the start: %s", error)


def codec_from(codec: Codec | str | None) -> Codec:
    """Return the codec that is meant; text names a format."""
    if isinstance(codec, Codec):
        return codec
    if codec is None:
        return Codec()
    if codec == "json":
        return Codec("json")
    if codec == "msgpack":
        return Codec("msgpack")
    raise ConfigurationError(f'codec must be a Codec, "msgpack" or "json", got {codec!r}')


def result_type(function: Callable[..., Any]) -> Any:  # Any: an annotation, and a function's own result
    """Return the annotated type of what a loader returns, `MISSING` if it says nothing."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not getattr(function, "__annotations__", None):
        return MISSING
    try:
        return _return_type(function)
    except TypeError:  # a callable that is not hashable
        return MISSING


@functools.lru_cache(maxsize=1024)
def _return_type(function: Callable[..., Any]) -> Any:  # Any: as above
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", MISSING)
    except (NameError, TypeError, AttributeError):  # a name that is not defined here, or not yet
        return MISSING


def batch_result_type(function: Callable[..., Any]) -> Any:  # Any: as above
    """Return the type of the values in the mapping that a batch loader returns."""
    annotation = result_type(function)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return arguments[1] if is_mapping and len(arguments) == 2 else MISSING
