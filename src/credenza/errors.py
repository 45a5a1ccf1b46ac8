"""What Credenza raises.

    CacheError
    ├── ConfigurationError   (ValueError)    an option that is wrong or contradicts another
    ├── UsageError           (TypeError)     a call that cannot mean anything: an unhashable key, a coroutine in the sync face
    ├── NotFound             (LookupError)   raised by a loader: the source has no such record
    ├── LoadTimeout          (TimeoutError)  a deadline passed before the value was there
    ├── DeadlockError        (RuntimeError)  waiting would never end
    ├── FenceLost            (RuntimeError)  a write may not commit: its fence is not up
    ├── TierError                            the shared tier is away, full or unintelligible
    ├── JournalError                         a journal cannot keep a write, so it is not acknowledged
    │   ├── JournalFull                      it holds as many as it may
    │   └── JournalInUse                     another process has it open
    ├── FeedError                            a change feed cannot be read
    └── CacheClosed          (RuntimeError)  the cache was closed

A loader's own errors are none of these: they reach every caller as they are.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .sentinel import MISSING


class CacheError(Exception):
    """Base of everything that Credenza raises by itself.

    Attributes:
        key: the key that the call was about, or `MISSING` where there is none. It is not part of the message's promise.
    """

    key: Hashable = MISSING

    def about(self, key: Hashable) -> CacheError:
        """Attach `key` and return the error, for `raise Error(...).about(key)`."""
        self.key = key
        return self


class ConfigurationError(CacheError, ValueError):
    """An option has a value that cannot work; the message says which would."""


class UsageError(CacheError, TypeError):
    """A call has arguments that cannot work; the message says what to do."""


class NotFound(CacheError, LookupError):
    """The source has no such record. Loaders raise it; with `negative_ttl` the cache remembers it."""


class LoadTimeout(CacheError, TimeoutError):
    """The deadline of a call (`timeout`) or of a load (`load_timeout`) passed."""


class DeadlockError(CacheError, RuntimeError):
    """The call would wait for something that waits for the call."""


class FenceLost(CacheError, RuntimeError):
    """The fence around a write is gone from the shared tier. Raised before the commit; roll back, and try again."""


class TierError(CacheError):
    """The shared tier did not do what it was asked: it is away, too slow, full, or answers what nobody understands.

    Reads never raise it. Writes and invalidations do under `on_fence_failure="raise"`.
    """


class JournalError(CacheError):
    """A journal cannot keep what it was given: its disk is full, its file is gone or not ours, its server is away.

    What was acknowledged before stays acknowledged; what raised this was not.
    """


class JournalFull(JournalError):
    """The journal holds as many pending writes as it may, and the source does not take them fast enough."""


class JournalInUse(JournalError):
    """Another process has the journal open."""


class FeedError(CacheError):
    """A change feed cannot be read: its database is away, too slow, or refuses. What was missed is read later."""


class CacheClosed(CacheError, RuntimeError):
    """The cache was closed; make a new one."""


def copy_exception(error: BaseException) -> BaseException:
    """Return an equal exception that another caller may raise without growing this one's traceback.

    Type, arguments, attributes, notes, cause and context are kept. `__init__` of a class written in Python is not run
    again: it may take other arguments than it passed on. What refuses to be copied is returned itself.
    """
    kind = type(error)
    native = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        arguments, state = _reduced(error, native)
        twin = kind.__new__(kind, *arguments)
        native.__init__(twin, *arguments)  # type: ignore[misc]  # the built-in base of its own class
        if state:
            if "__notes__" in state:
                state = {**state, "__notes__": list(state["__notes__"])}
            BaseException.__setstate__(twin, state)
    except Exception:
        return error
    for name in _slots_of(kind):
        if hasattr(error, name):
            setattr(twin, name, getattr(error, name))
    twin.__cause__ = error.__cause__
    twin.__context__ = error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)


def _slots_of(kind: type) -> list[str]:
    """Return the names of the slots that classes written in Python add to their built-in base."""
    slots: list[str] = []
    for base in kind.__mro__:
        names = base.__dict__.get("__slots__", ()) if base.__module__ != "builtins" else ()
        slots.extend((names,) if isinstance(names, str) else names)
    return [name for name in slots if not name.startswith("__")]


def _reduced(error: BaseException, native: type) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """Split `error` into the arguments and the attributes that its built-in base would rebuild it from."""
    parts: tuple[Any, ...] = native.__reduce__(error)  # type: ignore[assignment,call-arg]  # typeshed: str | tuple
    return parts[1], parts[2] if len(parts) > 2 else None
