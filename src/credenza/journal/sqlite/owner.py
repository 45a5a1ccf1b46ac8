"""Who has a journal open: one process, which the system's own lock on a small file tells from all others.

The lock belongs to the open file, not to the process: opening the journal a second time in the same process is refused, too,
and looking whether the lock is free does not set it free. It ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

from ...errors import JournalError, JournalInUse

_TRIES: Final = 100

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    # Bytes that are locked cannot be read either, so that it is one beyond the text.
    _LOCKED_AT: Final = 1 << 30

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_AT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class OwnerLock:
    """The lock beside a journal, held from when this is made until it is released.

    Args:
        path: the journal's file.

    Raises:
        JournalInUse: somebody holds it.
        JournalError: the lock file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = lock_path(path)
        try:
            self._descriptor = self._acquired()
        except (BlockingIOError, PermissionError) as error:
            if isinstance(error, PermissionError) and not os.access(self.path, os.R_OK | os.W_OK):
                raise _unusable(path, error) from error
            raise JournalInUse(
                f"the journal {path!r} is in use by {_holder(self.path)}; one process at a time may have it open: close it "
                "there, or give each process a journal of its own"
            ) from error
        except OSError as error:
            raise _unusable(path, error) from error
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others open the journal. The file stays: who removes it may remove one that somebody else has locked."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: leave the lock to the parent alone."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _acquired(self) -> int:
        """Return the open and locked file that is at the path now."""
        for _ in range(_TRIES):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
                if _is_at(self.path, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise FileNotFoundError(f"{self.path} is removed again and again")


def owner_of(path: str) -> str | None:
    """Return who has the journal open, as text; None if nobody has."""
    try:
        descriptor = os.open(lock_path(path), os.O_RDWR)
    except OSError:
        return None
    try:
        _lock(descriptor)
    except OSError:
        return _who(lock_path(path))
    finally:
        os.close(descriptor)
    return None


def lock_path(path: str) -> str:
    """Return where the lock file of a journal is."""
    return f"{path}-lock"


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _who(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            number = int(file.read(32))
    except (OSError, ValueError):
        return "another process"
    return f"process {number}"


def _holder(path: str) -> str:
    who = _who(path)
    return "this process already" if who == f"process {os.getpid()}" else who


def _unusable(path: str, error: OSError) -> JournalError:
    return JournalError(f"cannot use the journal {path!r}: {error}; its directory must exist and be writable")
