"""The journal's server: scripts in, replies out, errors translated."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ...errors import ConfigurationError, JournalError
from .refusals import Unanswered, translated
from .targets import Target, redis_module
from .wire import Layout, Look, State, look_from, state_from, value_of

# Any in this module: replies are what the server sends, and redis-py's clients have no type in common.

FORMAT: Final = 1
_DEFAULT_PARTITIONS: Final = 8

Word = bytes | str | int


class Server:
    """Runs the scripts of one journal. Thread-safe; blocks, for as long as the URL's `socket_timeout` at most.

    Args:
        target: where the journal is.

    Attributes:
        identity: names the journal; empty as long as it was not made.

    Raises:
        JournalError: the server cannot be reached, or the journal is of a later format.
        ConfigurationError: the journal has another number of partitions.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.location = target.location
        self.identity = ""
        self._is_open = False
        self.layout = Layout(target.namespace, target.partitions or _DEFAULT_PARTITIONS)
        try:
            self.client = target.client()
        except (
            redis_module("redis.exceptions").RedisError,
            redis_module("redis.exceptions").RedisClusterException,
        ) as error:
            raise translated(error, self.location) from error
        try:
            self._know(self._about("look"))
        except BaseException:
            self.close()
            raise
        self._is_open = True

    @property
    def partitions(self) -> int:
        """How many there are."""
        return self.layout.partitions

    def make(self) -> None:
        """See to it that the journal exists, as one opens it only when something is written."""
        if not self.identity:
            self._know(self._about("make"))

    def forget(self) -> None:
        """Have `make` look again, since the server has lost what it knew."""
        self.identity = ""

    def look(self, parts: Sequence[int]) -> tuple[int, dict[int, Look]]:
        """Return the server's time, and how partitions are."""
        now_ms, found = 0, dict[int, Look]()
        for group, reply in self._each("look", parts):
            now_ms = reply[0]
            found.update(zip(group, map(look_from, reply[1:]), strict=True))
        return now_ms, found

    def open(self, parts: Sequence[int]) -> dict[int, State]:
        """Take note of a new run of the server, begin partitions that are empty, and return how they are."""
        return {
            part: state_from(one)
            for group, reply in self._each("open", parts)
            for part, one in zip(group, reply, strict=True)
        }

    def on(self, part: int, script: str, *words: Word) -> Any:
        """Run a script on one partition."""
        return self._run(script, self.layout.keys(part), words)

    def on_many(
        self, script: str, words: Mapping[int, Sequence[Word]], *common: Word
    ) -> tuple[dict[int, Any], dict[int, JournalError]]:
        """Run a script on several partitions, each with words of its own; all at once, but on a cluster one by one.

        Return the replies, and the errors of those that have none.
        """
        replies: dict[int, Any] = {}
        errors: dict[int, JournalError] = {}
        for group in self._groups(list(words)):
            keys = [key for part in group for key in self.layout.keys(part)]
            try:
                reply = self._run(script, keys, [*common, *(word for part in group for word in words[part])])
            except JournalError as error:
                errors.update(dict.fromkeys(group, error))
            else:
                replies.update(zip(group, reply, strict=True))
        return replies, errors

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Return the pending values of those keys that have one."""
        found: dict[bytes, bytes | None] = {}
        parts: dict[int, list[bytes]] = {}
        for key in keys:
            parts.setdefault(self.layout.part_of(key), []).append(key)
        for part, asked in parts.items():
            records = self.command("HMGET", self.layout.pending(part), *asked)
            pairs = zip(asked, records, strict=True)
            found.update((key, value_of(record)) for key, record in pairs if record is not None)
        return found

    def consumers(self, name: str, silence_ms: int) -> list[str]:
        """Say that a consumer lives, and return the names of all that do."""
        living = self._run("join", [self.layout.consumers], (name, silence_ms))
        return sorted(one.decode() for one in living)

    def leave(self, name: str) -> None:
        """Say that a consumer goes."""
        self.command("ZREM", self.layout.consumers, name)

    def command(self, *words: Word, **options: Any) -> Any:
        """Run a command."""
        try:
            return self.client.execute_command(*words, **options)
        except Exception as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Close the connections."""
        try:
            self.client.close()
        except Exception:  # noqa: S110  # they are dropped whatever happens
            pass

    def _each(self, script: str, parts: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
        for group in self._groups(parts):
            yield group, self._run(script, [key for part in group for key in self.layout.keys(part)], ())

    def _groups(self, parts: Sequence[int]) -> list[Sequence[int]]:
        """Return partitions that one script may touch: on a cluster each is on its own."""
        if not parts:
            return []
        return [[part] for part in parts] if self._target.is_cluster else [parts]

    def _run(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        text, sha = _script(name)
        arguments = [len(keys), *keys, secrets.token_hex(8), self.partitions, *words]
        execute, missing = self.client.execute_command, redis_module("redis.exceptions").NoScriptError
        try:
            try:
                return execute("EVALSHA", sha, *arguments)
            except missing:
                return execute("EVAL", text, *arguments)
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> JournalError:
        return translated(error, self.location)

    def _about(self, mode: str) -> Any:
        return self._run("about", [self.layout.about], (mode, FORMAT))

    def _know(self, found: Any) -> None:
        """Take over what is fixed for the whole journal."""
        if not isinstance(found, list) or len(found) != 3:
            raise Unanswered(f"the server of the journal {self.location} answers what nobody understands; is it Redis?")
        if found[0] is None:
            return
        written, partitions = int(found[0]), int(found[1])
        if written > FORMAT:
            raise JournalError(
                f"the journal {self.location} has format {written}, written by a later version of Credenza; this one knows "
                f"up to format {FORMAT}, and leaves it alone: upgrade, or use another namespace"
            )
        if self._is_open and partitions != self.layout.partitions:
            raise JournalError(
                f"the journal {self.location} was made by somebody else meanwhile, with {partitions} partitions; open it anew"
            )
        if self._target.partitions not in (None, partitions):
            raise ConfigurationError(
                f"the journal {self.location} was made with partitions={partitions}, which cannot be changed, got "
                f"{self._target.partitions}; leave it out, or use another namespace"
            )
        self.layout = Layout(self._target.namespace, partitions)
        self.identity = found[2].decode()


@cache
def _script(name: str) -> tuple[str, str]:
    folder = files(str(__package__)) / "scripts"
    text = "\n".join((folder / f"{one}.lua").read_text("utf-8") for one in ("common", name))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
