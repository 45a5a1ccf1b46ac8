"""Options: checked once, when they are built; wrong ones raise at once and say what to do."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.waiting import run

import credenza
from credenza import Cache, CacheClosed, CacheError, ConfigurationError, Policy, UsageError
from credenza.testing import CountingLoader, DictSource

# DESIGN section 2: the table of defaults.
DEFAULTS: dict[str, Any] = {
    "ttl": 300,
    "jitter": 0.1,
    "idle_ttl": None,
    "stale_while_revalidate": 0,
    "stale_if_error": 0,
    "error_backoff": 1,
    "early_refresh": 0,
    "negative_ttl": 0,
    "soft_timeout": None,
    "load_timeout": None,
    "max_concurrent_loads": None,
    "copy": None,
    "coherence": "bounded",
    "max_staleness": 1,
    "tier_timeout": 0.25,
    "on_fence_failure": None,
}
DURATIONS = [
    "ttl", "idle_ttl", "stale_while_revalidate", "stale_if_error", "error_backoff", "negative_ttl", "soft_timeout",
    "load_timeout", "max_staleness", "tier_timeout",
]  # fmt: skip
MAY_BE_ZERO = ["stale_while_revalidate", "stale_if_error", "negative_ttl"]


def _options(name: str, value: Any) -> dict[str, Any]:
    """Return the option with what else it needs to make sense."""
    return {name: value} | ({"stale_if_error": 60} if name == "soft_timeout" else {})


def builders(options: dict[str, Any]) -> list[Callable[[], Any]]:
    """Return every way to give options."""
    cache: Cache[Any, Any] = Cache()
    return [
        lambda: Policy(**options),
        lambda: Cache(**options),
        lambda: Cache(policy=Policy(), **options),
        lambda: cache.cached(**options)(lambda: 1),
        lambda: credenza.cached(**options)(lambda: 1),
        lambda: cache.get_or_load("k", lambda: 1, **options),
        lambda: cache.fetch("k", lambda: 1, **options),
        lambda: cache.get_or_load_many(["k"], lambda keys: {}, **options),
        lambda: cache.repository(DictSource[Any, Any](), key="user:{}", **options),
        lambda: run(cache.aio.get_or_load("k", lambda: 1, **options)),
    ]


def refused(options: dict[str, Any], match: str) -> None:
    """Check that each way to give the options raises, that the message matches, and that nothing was loaded."""
    for build in builders(options):
        with pytest.raises(ConfigurationError, match=match) as caught:
            build()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, CacheError)


def test_defaults_are_those_of_the_design() -> None:
    """DESIGN 2: every option is there, with its default, and there are no others."""
    policy = Policy()
    assert {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy) if field.init} == DEFAULTS
    assert Cache().policy == policy


def test_policy_is_frozen_and_comparable() -> None:
    """STYLE 10: options are data; equal ones are equal, and none can be changed."""
    assert Policy(ttl=5) == Policy(ttl=5) != Policy(ttl=6)
    with pytest.raises(AttributeError):
        Policy().ttl = 5  # type: ignore[misc]  # on purpose
    assert copy.copy(Policy(ttl=5)) == Policy(ttl=5)


def test_options_change_the_given_policy() -> None:
    """DESIGN 2: given for the cache, overridden per function or call."""
    policy = Policy(ttl=5, jitter=0.5)
    cache: Cache[Any, Any] = Cache(policy=policy, jitter=0)
    assert cache.policy == Policy(ttl=5, jitter=0)
    assert policy.jitter == 0.5


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    "value",
    ["", "5", "5 minutes", "m5", "-5m", "1h-30m", "5M5", "∞", [], {}, 1j, b"5m", math.nan, math.inf, True, "5m;"],
)
def test_what_is_no_duration_raises_and_shows_how_to_write_one(name: str, value: Any) -> None:
    """Bad input: every duration, in every place, with its name and the wrong value in the message."""
    refused(_options(name, value), rf'{name} must be .*seconds.*timedelta.*"5m"')


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [-1, -0.001, timedelta(seconds=-1), 0, 0.0, "0s", timedelta(0)])
def test_negative_and_useless_durations_raise(name: str, value: Any) -> None:
    """Bad input: nothing is negative, and 0 is allowed only where it switches something off."""
    if name in MAY_BE_ZERO and value in (0, "0s", timedelta(0)):
        for build in builders(_options(name, value)):
            build()
    else:
        refused(_options(name, value), rf"{name} must (be positive|not be negative), got ")


def test_message_about_a_wrong_ttl_says_what_to_do() -> None:
    """STYLE 23: what happened, the value's repr, and what to do."""
    refused({"ttl": -3}, r"ttl must be positive, got -3; use ttl=None for entries that never expire")
    cache: Cache[Any, Any] = Cache()
    for ttl in (-3, 0, "0s"):
        with pytest.raises(ConfigurationError, match=r"ttl must be positive.*ttl=None"):
            cache.set("k", 1, ttl=ttl)
        with pytest.raises(ConfigurationError, match=r"ttl must be positive.*ttl=None"):
            cache.set_many({"k": 1}, ttl=ttl)
    assert len(cache) == 0


@pytest.mark.parametrize("ttl", [-3, "soon", [], math.nan])
def test_wrong_ttl_out_of_a_loader_fails_the_load(ttl: Any) -> None:
    """Bad input: `Loaded(value, ttl=...)` and a callable ttl are checked when they come; nobody hangs."""
    cache: Cache[Any, Any] = Cache()
    calls: list[Callable[[], Any]] = [
        lambda: cache.get_or_load("k", lambda: credenza.Loaded(1, ttl=ttl)),
        lambda: cache.get_or_load("k", lambda: 1, ttl=lambda value: ttl),
        lambda: cache.get_or_load_many(["k"], lambda keys: {"k": credenza.Loaded(1, ttl=ttl)}),
        lambda: run(cache.aio.get_or_load("k", lambda: credenza.Loaded(1, ttl=ttl))),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="ttl must be"):
            call()
        assert cache.stats().flights == 0
    assert cache.get_or_load("k", lambda: 2) == 2


@pytest.mark.parametrize("tags", ["users", [1], 5])
def test_wrong_tags_out_of_a_loader_fail_the_load(tags: Any) -> None:
    """Bad input: `Loaded(value, tags="users")` must not become six tags of one letter."""
    cache: Cache[Any, Any] = Cache()
    with pytest.raises((UsageError, TypeError), match="tag|iterable"):
        cache.get_or_load("k", lambda: credenza.Loaded(1, tags=tags))
    assert cache.stats().flights == 0
    assert cache.get_or_load("k", lambda: 2) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"jitter": -0.1}, r"jitter must be a number of at least 0, got -0\.1; use 0"),
        ({"jitter": 1.1}, r"jitter is a share between 0 and 1, got 1\.1"),
        ({"jitter": "0.1"}, r"jitter must be a number.*'0\.1'"),
        ({"jitter": True}, r"jitter must be a number"),
        ({"jitter": math.nan}, r"jitter must be a number"),
        ({"jitter": None}, r"jitter must be a number"),
        ({"early_refresh": -1}, r"early_refresh must be a number of at least 0.*use 0 to switch it off"),
        ({"early_refresh": "on"}, r"early_refresh must be a number"),
        ({"max_concurrent_loads": 0}, r"max_concurrent_loads must be an int of at least 1, got 0; use None"),
        ({"max_concurrent_loads": 1.5}, r"max_concurrent_loads must be an int"),
        ({"max_concurrent_loads": True}, r"max_concurrent_loads must be an int"),
        ({"copy": True}, r"copy must be a callable such as copy\.deepcopy, got True"),
        ({"copy": "deep"}, r"copy must be a callable"),
        ({"coherence": "eventual"}, r"coherence must be one of .*'strict'.*got 'eventual'"),
        ({"on_fence_failure": "ignore"}, r"on_fence_failure must be one of .*'owe'.*got 'ignore'"),
    ],
)
def test_wrong_option_raises_and_says_what_to_do(options: dict[str, Any], match: str) -> None:
    """Bad input: each option, in every place where options are given."""
    refused(options, match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"soft_timeout": 1}, r"soft_timeout .*stale_if_error"),
        ({"soft_timeout": 5, "load_timeout": 1, "stale_if_error": 60}, r"soft_timeout is longer than load_timeout"),
        ({"ttl": None, "stale_while_revalidate": 5}, r"ttl=None.*set a ttl"),
        ({"ttl": None, "stale_if_error": 5}, r"ttl=None.*set a ttl"),
        ({"ttl": None, "early_refresh": 1}, r"ttl=None.*set a ttl"),
    ],
)
def test_options_that_contradict_each_other_raise(options: dict[str, Any], match: str) -> None:
    """DESIGN 2: contradictory options raise when they are built, in every place where options are given."""
    refused(options, match)


def test_option_that_does_not_exist_raises_and_lists_those_that_do() -> None:
    """DESIGN 2: unknown options raise when they are built."""
    cache: Cache[Any, Any] = Cache()
    loader = CountingLoader(1)
    for build in (
        lambda: Cache(tll=5),  # type: ignore[call-arg]  # on purpose
        lambda: cache.cached(tll=5)(lambda: 1),  # type: ignore[call-overload]  # on purpose
        lambda: cache.get_or_load("k", loader, tll=5),  # type: ignore[call-arg]  # on purpose
        lambda: cache.repository(DictSource[Any, Any](), tll=5),  # type: ignore[call-arg]  # on purpose
    ):
        with pytest.raises(ConfigurationError, match=r"no option 'tll'.*idle_ttl.*ttl"):
            build()
    assert loader.calls == 0


def test_fields_that_are_worked_out_cannot_be_given() -> None:
    """DESIGN 2: what is derived is no option."""
    with pytest.raises(ConfigurationError, match="ttl_ns"):
        Cache(ttl_ns=5)  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError):
        Policy(ttl_ns=5)  # type: ignore[call-arg]  # on purpose


@pytest.mark.parametrize("timeout", [0, -1, "soon", math.nan, True])
def test_wrong_timeout_raises_without_loading(timeout: Any) -> None:
    """Bad input: a timeout is a positive duration or None."""
    cache: Cache[Any, Any] = Cache()
    loader = CountingLoader(1)
    for call in (
        lambda: cache.get_or_load("k", loader, timeout=timeout),
        lambda: cache.get_or_load_many(["k"], lambda keys: loader() and {}, timeout=timeout),
        lambda: run(cache.aio.get_or_load("k", loader, timeout=timeout)),
        lambda: cache.repository(DictSource[Any, Any]({"k": 1}), key="u:{}").get("k", timeout=timeout),
    ):
        with pytest.raises(ConfigurationError, match="timeout must be"):
            call()
    assert loader.calls == 0


# Loaders --------------------------------------------------------------------------------------------------------------


async def _coroutine_function() -> int:
    return 1


class _AsyncCallable:
    async def __call__(self) -> int:
        return 1


def test_coroutine_function_in_the_sync_face_raises_and_says_what_to_do() -> None:
    """DESIGN 2: the sync face refuses coroutine functions, before it calls them."""
    cache: Cache[Any, Any] = Cache()

    async def batch(keys: Any) -> dict[Any, Any]:
        return {}

    for call in (
        lambda: cache.get_or_load("k", _coroutine_function),
        lambda: cache.get_or_load("k", _AsyncCallable()),
        lambda: cache.fetch("k", _coroutine_function),
        lambda: cache.get_or_load_many(["k"], batch),
    ):
        with pytest.raises(UsageError, match=r"cache\.aio"):
            call()  # type: ignore[no-untyped-call]  # on purpose
    assert cache.stats().loads == 0


def test_plain_loader_that_returns_a_coroutine_raises_in_the_sync_face() -> None:
    """DESIGN 2: a lambda that calls a coroutine function is found out when it returns, and stores nothing."""
    cache: Cache[Any, Any] = Cache()
    with pytest.raises(UsageError, match=r"cache\.aio"):
        cache.get_or_load("k", lambda: _coroutine_function())
    assert len(cache) == 0
    assert cache.get_or_load("k", lambda: 2) == 2


def test_coroutine_passed_as_a_loader_raises_and_says_what_to_do() -> None:
    """Bad input: `get_or_load(key, fetch())` instead of `get_or_load(key, fetch)`, in both faces; it is closed."""
    cache: Cache[Any, Any] = Cache()
    for call in (
        lambda: cache.get_or_load("k", _coroutine_function()),  # type: ignore[arg-type]  # on purpose
        lambda: run(cache.aio.get_or_load("k", _coroutine_function())),  # type: ignore[arg-type]  # on purpose
        lambda: run(cache.aio.fetch("k", _coroutine_function())),  # type: ignore[arg-type]  # on purpose
    ):
        with pytest.raises(UsageError, match=r"pass the function '_coroutine_function' itself"):
            call()


@pytest.mark.parametrize("loader", [1, None, "value", ["value"]])
def test_loader_that_is_no_callable_raises_and_says_what_to_do(loader: Any) -> None:
    """Bad input: `get_or_load(key, value)` is a common slip."""
    cache: Cache[Any, Any] = Cache()
    for call in (
        lambda: cache.get_or_load("k", loader),
        lambda: cache.fetch("k", loader),
        lambda: cache.get_or_load_many(["k"], loader),
        lambda: run(cache.aio.get_or_load("k", loader)),
        lambda: run(cache.aio.get_or_load_many(["k"], loader)),
    ):
        with pytest.raises(UsageError, match=r"must be callable.*lambda"):
            call()


@pytest.mark.parametrize("result", [None, [("k", 1)], "k", 5])
def test_batch_loader_that_returns_no_mapping_raises(result: Any) -> None:
    """Bad input: a batch loader returns a mapping; nobody hangs and nothing is stored."""
    cache: Cache[Any, Any] = Cache(negative_ttl=60)
    with pytest.raises(UsageError, match=rf"mapping.*got {type(result).__name__}"):
        cache.get_or_load_many(["k", "l"], lambda keys: result)
    with pytest.raises(UsageError, match="mapping"):
        run(cache.aio.get_or_load_many(["k", "l"], lambda keys: result))
    assert len(cache) == 0


# A closed cache -------------------------------------------------------------------------------------------------------


def test_closed_cache_raises_in_every_call_that_needs_it() -> None:
    """DESIGN 2: `close` ends a cache; later calls raise `CacheClosed`, and closing again does nothing."""
    with Cache[Any, Any](name="shop") as cache:
        function = cache.cached(lambda key: key)
        function(1)
        cache.set("k", 1)
    cache.close()
    run(cache.aio.close())
    loader = CountingLoader(1)
    for call in (
        lambda: cache.get("k"),
        lambda: cache.set("k", 1),
        lambda: cache.get_or_load("k", loader),
        lambda: cache.get_many(["k"]),
        lambda: cache.get_or_load_many(["k"], lambda keys: loader() and {}),
        lambda: function(1),
        lambda: function(2),
        lambda: function.refresh(1),
        lambda: cache.writing("k").__enter__(),
        lambda: run(cache.aio.get("k")),
        lambda: run(cache.aio.get_or_load("k", loader)),
    ):
        with pytest.raises(CacheClosed, match="'shop' was closed"):
            call()
    assert loader.calls == 0
    assert len(cache) == 0
    cache.invalidate("k")
    cache.clear()
    assert cache.stats().stores == 2


def test_async_with_closes() -> None:
    """DESIGN 2: `async with cache.aio` closes as `with cache` does."""
    cache: Cache[Any, Any] = Cache()

    async def main() -> None:
        async with cache.aio as aio:
            await aio.set("k", 1)
            assert await aio.get("k") == 1
        with pytest.raises(CacheClosed):
            await aio.get("k")

    run(main())
