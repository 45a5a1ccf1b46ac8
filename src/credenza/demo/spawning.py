"""Starts processes that Ctrl+C on the terminal leaves to us to end."""

import contextlib
import signal
from collections.abc import Generator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def without_ctrl_c() -> Generator[None]:
    """Let what is started inside never see Ctrl+C, not even before its first line of ours has run."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its own start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
