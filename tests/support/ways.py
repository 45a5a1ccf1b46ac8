"""The ways that a miss of a decorated function may take; which one, depends on what was asked for."""

from collections.abc import Callable, Coroutine
from typing import Any

from credenza import Cache

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tags": {"tags": ["all", "number:{number}"]},
    "template": {"key": "number:{number}"},
    "limit": {"max_concurrent_loads": 100},
    "window": {"stale_while_revalidate": 60},
    "listener": {},
}
"""The decorator's options for each; with "listener" the cache has a listener."""


def decorated(cache: Cache[Any, Any], way: str, loader: Callable[..., Any]) -> Any:
    """Return `loader` as a cached function of one argument."""

    def read(number: int) -> Any:
        return loader(number)

    return cache.cached(**WAYS[way])(read)


def decorated_async(cache: Cache[Any, Any], way: str, loader: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    """Return `loader` as a cached coroutine function of one argument."""

    async def read(number: int) -> Any:
        return await loader(number)

    return cache.cached(**WAYS[way])(read)
