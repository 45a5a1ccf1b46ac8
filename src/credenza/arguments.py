"""Arguments that several calls take."""

from __future__ import annotations

from types import CoroutineType

from .durations import Duration, nanoseconds_of
from .errors import ConfigurationError, UsageError
from .runtime.tasks import is_coroutine_function


def timeout_ns_of(timeout: Duration | None) -> int | None:
    """Return the timeout of a call in nanoseconds; raises `ConfigurationError` unless it is positive."""
    if timeout is None:
        return None
    timeout_ns = nanoseconds_of(timeout, name="timeout")
    if timeout_ns <= 0:
        raise ConfigurationError(f"timeout must be positive, got {timeout!r}; use None to wait as long as it takes")
    return timeout_ns


def check_sync_loader(loader: object) -> None:
    """Refuse what the sync face cannot call."""
    check_callable(loader)
    if is_coroutine_function(loader):
        raise UsageError(f"the sync face cannot await {loader!r}; use cache.aio, or pass a plain function")


def check_callable(loader: object) -> None:
    """Refuse a loader that is no callable, above all the coroutine that calling one too early gives."""
    if callable(loader):
        return
    if isinstance(loader, CoroutineType):
        loader.close()
        raise UsageError(
            f"a loader is called when it is needed, got a coroutine; pass the function {loader.__name__!r} itself"
        )
    raise UsageError(f"a loader must be callable, got {loader!r}; pass a function, or a lambda that returns the value")
