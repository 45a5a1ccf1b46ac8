"""What a server says instead of doing what it was asked."""

from __future__ import annotations

import re
from typing import Final

from ..base import TierError

_MEANINGS: Final = {
    "OOM": "its memory is full (maxmemory)",
    "READONLY": "it is a replica, which takes no writes",
    "LOADING": "it is still loading its data",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "the user name or the password is wrong",
    "NOPERM": "this user may not run the command, or not on this key",
    "MISCONF": "it cannot save to its disk and takes no writes",
    "MASTERDOWN": "it is a replica that lost its master",
    "NOREPLICAS": "too few of its replicas are connected",
    "CLUSTERDOWN": "the cluster does not serve all of its slots",
    "BUSY": "a script keeps it busy",
}


_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -([A-Z]+) ")  # Redis before 7 wraps what stopped a script
_NO_RIGHT: Final = ("The user executing the script can't run", "ACL failure in script")  # up to 7.0, and since


class Refusal(TierError):
    """An error reply to one command.

    Attributes:
        code: its first word, such as "OOM".
        where: what follows it in a "MOVED" or "ASK": the slot and the node that has it.
    """

    def __init__(self, said: str | bytes) -> None:
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        self.code, _, rest = text.partition(" ")
        self.where = rest if self.code in ("MOVED", "ASK") else ""
        in_script = _IN_SCRIPT.search(text)
        if in_script is not None:
            self.code = in_script[1]
        elif any(words in text for words in _NO_RIGHT):
            self.code = "NOPERM"
        # The rest may repeat the arguments of the command, and so a value: it is shown for the errors of scripts only.
        meaning = _MEANINGS.get(self.code) or (text[-100:] if "script" in rest else "")
        super().__init__(f"the server refused: {self.code}{f', {meaning}' if meaning else ''}")


class Unreached(TierError):
    """There was no connection, so nothing was sent."""


class Garbled(TierError):
    """The answer is none that this command can have; whoever sent it does not speak the protocol."""

    def __init__(self, said: object = "") -> None:
        super().__init__("the server answers what nobody understands; is it Redis or Valkey?")
