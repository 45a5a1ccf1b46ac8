"""The options of a cache, checked once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from .durations import FOREVER_NS, Duration, nanoseconds_of
from .errors import ConfigurationError

Ttl = Duration | Callable[[Any], Duration | None] | None  # Any: the value, whose type the policy does not know

_COHERENCE = ("ttl", "invalidate", "bounded", "strict")
_ON_FENCE_FAILURE = ("raise", "owe")
_OF_THE_CACHE = ("coherence", "max_staleness", "tier_timeout", "on_fence_failure")


class PolicyOptions(TypedDict, total=False):
    """The fields of `Policy` as keyword arguments, for type checkers."""

    ttl: Ttl
    jitter: float
    idle_ttl: Duration | None
    stale_while_revalidate: Duration
    stale_if_error: Duration
    error_backoff: Duration
    early_refresh: float
    negative_ttl: Duration
    soft_timeout: Duration | None
    load_timeout: Duration | None
    max_concurrent_loads: int | None
    copy: Callable[[Any], Any] | None  # Any: the value, whose type the policy does not know
    coherence: str
    max_staleness: Duration
    tier_timeout: Duration
    on_fence_failure: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How long values live, what may be served stale, and how loads behave.

    Given for a cache, and overridden per function or call. Durations are seconds, a `timedelta` or text such as "5m".
    The fields that end in `_ns` are worked out from the others.

    Args:
        ttl: how long a value is fresh; None for "never expires"; a callable gets the value and returns one of these.
        jitter: each ttl is shortened by a random share up to this (0 to 1), so that keys do not expire together.
        idle_ttl: expire when not read for this long.
        stale_while_revalidate: after ttl, serve the old value this long while one refresh runs behind it (RFC 5861).
        stale_if_error: after ttl, serve the old value this long if the load fails (RFC 5861).
        error_backoff: after a failed refresh, wait this long (doubling, jittered) before the next.
        early_refresh: the beta of XFetch; 1.0 is the paper's choice, more is earlier, 0 is off.
        negative_ttl: how long "not found" (None, or a raised `NotFound`) is remembered; 0 is off, and then None is
            a value like any other and a raised `NotFound` is not kept.
        soft_timeout: with a stale value at hand, wait this long for the load, then serve the stale value.
        load_timeout: a load that runs longer, its wait for a turn included, fails for everyone.
        max_concurrent_loads: how many loads may press the source at once; others queue. Within a cache, loads with the
            same limit share it.
        copy: makes the copy of a cached value that is handed out, for callers that mutate what they get.
        coherence: how processes agree; without a shared tier nobody is there to agree with.
        max_staleness: the bound of `coherence="bounded"`; see there.
        tier_timeout: how long a call waits for a shared tier.
        on_fence_failure: what a write does if the shared tier cannot be fenced; None is "raise" under "strict" and
            "owe" otherwise.

    Raises:
        ConfigurationError: a value cannot work or two contradict each other.
    """

    ttl: Ttl = 300.0
    jitter: float = 0.1
    idle_ttl: Duration | None = None
    stale_while_revalidate: Duration = 0.0
    stale_if_error: Duration = 0.0
    error_backoff: Duration = 1.0
    early_refresh: float = 0.0
    negative_ttl: Duration = 0.0
    soft_timeout: Duration | None = None
    load_timeout: Duration | None = None
    max_concurrent_loads: int | None = None
    copy: Callable[[Any], Any] | None = None  # Any: the value, whose type the policy does not know
    coherence: str = "bounded"
    max_staleness: Duration = 1.0
    tier_timeout: Duration = 0.25
    on_fence_failure: str | None = None

    ttl_ns: int = field(init=False, repr=False, compare=False)
    idle_ttl_ns: int = field(init=False, repr=False, compare=False)
    stale_while_revalidate_ns: int = field(init=False, repr=False, compare=False)
    stale_if_error_ns: int = field(init=False, repr=False, compare=False)
    stale_window_ns: int = field(init=False, repr=False, compare=False)
    error_backoff_ns: int = field(init=False, repr=False, compare=False)
    negative_ttl_ns: int = field(init=False, repr=False, compare=False)
    soft_timeout_ns: int | None = field(init=False, repr=False, compare=False)
    load_timeout_ns: int | None = field(init=False, repr=False, compare=False)
    max_staleness_ns: int = field(init=False, repr=False, compare=False)
    tier_timeout_ns: int = field(init=False, repr=False, compare=False)
    fails_without_fence: bool = field(init=False, repr=False, compare=False)
    """True where a write that cannot be fenced raises."""
    has_own_ttl: bool = field(init=False, repr=False, compare=False)
    """True where the value decides on its ttl: `ttl` is a callable."""
    is_plain: bool = field(init=False, repr=False, compare=False)
    """True where a hit needs nothing but a look at the clock."""

    def __post_init__(self) -> None:
        self._derive("ttl_ns", FOREVER_NS if self.ttl is None or callable(self.ttl) else ttl_ns_of(self.ttl))
        self._derive("has_own_ttl", callable(self.ttl))
        self._derive("idle_ttl_ns", _positive("idle_ttl", self.idle_ttl) or 0)
        for name in ("stale_while_revalidate", "stale_if_error", "negative_ttl"):
            self._derive(f"{name}_ns", _not_negative(name, getattr(self, name)))
        self._derive("stale_window_ns", max(self.stale_while_revalidate_ns, self.stale_if_error_ns))
        self._derive("error_backoff_ns", _positive("error_backoff", self.error_backoff) or 0)
        for name in ("soft_timeout", "load_timeout"):
            self._derive(f"{name}_ns", _positive(name, getattr(self, name)))
        for name in ("max_staleness", "tier_timeout"):
            self._derive(f"{name}_ns", _positive(name, getattr(self, name)) or 0)
        self._derive("is_plain", not (self.idle_ttl_ns or self.early_refresh or self.copy))
        self._check_numbers()
        self._check_choices()
        self._check_contradictions()
        chosen = self.on_fence_failure or ("raise" if self.coherence == "strict" else "owe")
        self._derive("fails_without_fence", chosen == "raise")

    def replace(self, changes: Mapping[str, Any]) -> Policy:  # Any: the fields' own types, checked by __post_init__
        """Return this policy with `changes`; raises `ConfigurationError` for an option that does not exist."""
        if not changes:
            return self
        unknown = sorted(set(changes) - _OPTIONS)
        if unknown:
            raise ConfigurationError(
                f"there is no option {unknown[0]!r}; the options are {', '.join(sorted(_OPTIONS))}"
            )
        return dataclasses.replace(self, **changes)

    def override(self, changes: Mapping[str, Any]) -> Policy:  # Any: as in `replace`
        """Return this policy with the `changes` of one function or call.

        Raises:
            ConfigurationError: as `replace`; or an option is changed that all functions of a cache agree on.
        """
        changed = self.replace(changes)
        for name in _OF_THE_CACHE:
            if name in changes and changes[name] != getattr(self, name):
                raise ConfigurationError(
                    f"{name} is one for the whole cache, got {changes[name]!r} for a part of it; set it where the cache is made"
                )
        return changed

    def _derive(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_numbers(self) -> None:
        for name, most in (("jitter", 1.0), ("early_refresh", None)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or math.isnan(number) or number < 0:
                raise ConfigurationError(
                    f"{name} must be a number of at least 0, got {number!r}; use 0 to switch it off"
                )
            if most is not None and number > most:
                raise ConfigurationError(f"{name} is a share between 0 and 1, got {number!r}")
        loads = self.max_concurrent_loads
        if loads is not None and (isinstance(loads, bool) or not isinstance(loads, int) or loads < 1):
            raise ConfigurationError(
                f"max_concurrent_loads must be an int of at least 1, got {loads!r}; use None for no limit"
            )
        if self.copy is not None and not callable(self.copy):
            raise ConfigurationError(f"copy must be a callable such as copy.deepcopy, got {self.copy!r}")

    def _check_choices(self) -> None:
        if self.coherence not in _COHERENCE:
            raise ConfigurationError(f"coherence must be one of {_COHERENCE}, got {self.coherence!r}")
        if self.on_fence_failure is not None and self.on_fence_failure not in _ON_FENCE_FAILURE:
            raise ConfigurationError(
                f"on_fence_failure must be one of {_ON_FENCE_FAILURE}, got {self.on_fence_failure!r}"
            )

    def _check_contradictions(self) -> None:
        if self.soft_timeout_ns is not None and not (self.stale_if_error_ns or self.stale_while_revalidate_ns):
            raise ConfigurationError(
                "soft_timeout serves a stale value, and none is kept; set stale_if_error (or stale_while_revalidate) too"
            )
        if (
            self.soft_timeout_ns is not None
            and self.load_timeout_ns is not None
            and self.soft_timeout_ns > self.load_timeout_ns
        ):
            raise ConfigurationError("soft_timeout is longer than load_timeout, so it could never act; make it shorter")
        if self.ttl is None and (self.stale_while_revalidate_ns or self.stale_if_error_ns or self.early_refresh):
            raise ConfigurationError(
                "with ttl=None nothing becomes stale or is refreshed; set a ttl, or drop the stale and refresh options"
            )


_OPTIONS = frozenset(option.name for option in dataclasses.fields(Policy) if option.init)


def ttl_ns_of(ttl: Duration | None) -> int:
    """Return a ttl in nanoseconds, `FOREVER_NS` for None; raises `ConfigurationError` unless it is positive."""
    if ttl is None:
        return FOREVER_NS
    ttl_ns = nanoseconds_of(ttl, name="ttl")
    if ttl_ns <= 0:
        raise ConfigurationError(
            f"ttl must be positive, got {ttl!r}; use ttl=None for entries that never expire, Loaded(value, ttl=0) for "
            "a value that is not to be kept"
        )
    return ttl_ns


def _positive(name: str, duration: Duration | None) -> int | None:
    if duration is None:
        return None
    duration_ns = nanoseconds_of(duration, name=name)
    if duration_ns <= 0:
        raise ConfigurationError(f"{name} must be positive, got {duration!r}")
    return duration_ns


def _not_negative(name: str, duration: Duration) -> int:
    duration_ns = nanoseconds_of(duration, name=name)
    if duration_ns < 0:
        raise ConfigurationError(f"{name} must not be negative, got {duration!r}; use 0 to switch it off")
    return duration_ns
