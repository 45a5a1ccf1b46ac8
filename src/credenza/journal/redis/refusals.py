"""What goes wrong on the way to a server and back, as errors of a journal."""

from __future__ import annotations

import re
from typing import Final

from ...errors import JournalError
from .targets import redis_module

_MEANINGS: Final = {
    "OOM": "its memory is full (maxmemory)",
    "READONLY": "it is a replica, which takes no writes",
    "LOADING": "it is still loading its data",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "the user name or the password is wrong",
    "NOPERM": "this user may not run the command, or not on this key",
    "WRONGTYPE": "one of the journal's keys holds something else; use another namespace",
    "MISCONF": "it cannot save to its disk and takes no writes",
    "MASTERDOWN": "it is a replica that lost its master",
    "NOREPLICAS": "too few of its replicas are connected",
    "CLUSTERDOWN": "the cluster does not serve all of its slots",
    "CROSSSLOT": "it is a node of a cluster; write redis+cluster://",
    "MOVED": "it is a node of a cluster; write redis+cluster://",
    "BUSY": "a script keeps it busy",
}
_CODE: Final = re.compile(rf"(?:^|[-\s])({'|'.join(_MEANINGS)})\b")
_OF_CLASSES: Final = {
    "BusyLoadingError": "LOADING",
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "MovedError": "MOVED",
}
_PARTITIONS: Final = re.compile(r"PARTITIONS (\d+)")


class Fenced(JournalError):
    """A partition was taken over by another process, so this one may not touch it any more."""


class Unreached(JournalError):
    """There was no connection, so nothing was sent."""


class Unanswered(JournalError):
    """The server did not answer, so that nobody knows whether it did what it was asked."""


def translated(error: Exception, location: str) -> JournalError:
    """Return what an error of redis-py means; neither values nor passwords are in its message."""
    errors = redis_module("redis.exceptions")
    said = str(error)
    if "FENCED" in said:
        return Fenced(
            f"the journal {location} refuses this process: another one has taken over a partition that it owned, as it had "
            "not been heard of for longer than its lease"
        )
    found = _PARTITIONS.search(said)
    if found is not None:
        return JournalError(
            f"the journal {location} has {found[1]} partitions; open it with that number, or without one"
        )
    code = next((_OF_CLASSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _OF_CLASSES), "")
    if "NOAUTH" in said or "Authentication required" in said:
        code = "NOAUTH"
    if "executing the script can't" in said or "ACL failure" in said:
        code = "NOPERM"
    if not code and isinstance(error, errors.ResponseError):
        match = _CODE.search(said)
        # What it said may repeat the arguments of the command, and so a value.
        code = match[1] if match else "it does not know what it is asked; it must be Redis 6.2 or later, or Valkey"
    if code:
        meaning = _MEANINGS.get(code, code)
        return JournalError(f"the server of the journal {location} refuses: {meaning}")
    if "connecting to" in said or isinstance(error, errors.RedisClusterException):
        return Unreached(f"the server of the journal {location} cannot be reached")
    if isinstance(error, errors.TimeoutError | TimeoutError):
        return Unanswered(f"the server of the journal {location} did not answer in time")
    if isinstance(error, errors.ConnectionError | OSError):
        return Unanswered(f"the server of the journal {location} ended the connection instead of answering")
    return Unanswered(f"the server of the journal {location} answers what nobody understands; is it Redis or Valkey?")
