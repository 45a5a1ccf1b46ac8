"""Logical decoding as a feed: no triggers, for servers with `wal_level=logical`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ...durations import Duration, seconds_of
from ...errors import ConfigurationError, FeedError
from ...sentinel import MISSING
from ..base import Batch, Columns, RowChange
from .columns import Reader
from .links import psycopg_module
from .pgoutput import Begin, Change, Commit, Fields, Message, Relation, Truncate, parse
from .session import Session
from .snapshot import Snapshot

_ROWS: Final = 5000
_LOOK_SECONDS: Final = 5.0
_ADVANCE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.001

# The columns that a DELETE tells: those of the replica identity.
_TABLES: Final = """
SELECT c.oid::bigint, CASE WHEN pg_table_is_visible(r.oid) THEN r.relname ELSE n.nspname || '.' || r.relname END,
    ARRAY(SELECT a.attname::text FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = c.oid
            AND a.attnum = ANY (i.indkey) AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND (c.relreplident = 'f' OR (c.relreplident IN ('d', 'i') AND i.indrelid IS NOT NULL)))
FROM pg_publication_tables p JOIN pg_namespace m ON m.nspname = p.schemaname
JOIN pg_class c ON c.relname = p.tablename AND c.relnamespace = m.oid
JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid) JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE p.pubname = %s"""
_SLOT: Final = """
SELECT plugin = 'pgoutput' AND database = current_database(), wal_status IS DISTINCT FROM 'lost',
    confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"""
_MAKE: Final = "SELECT lsn - '0/0'::pg_lsn FROM pg_create_logical_replication_slot(%s, 'pgoutput', %s)"
_DROP: Final = "SELECT pg_drop_replication_slot(%s)"
_FLUSHED: Final = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
_PEEK: Final = """
SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s, 'proto_version', '1', 'publication_names', %s)"""
_ADVANCE: Final = "SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s)"
_MARK: Final = "SELECT pg_logical_emit_message(true, 'credenza', '') - '0/0'::pg_lsn"


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: frozenset[str]


class LogicalFeed:
    """What a publication tells, read from a replication slot. Needs a role with REPLICATION, and `wal_level=logical`.

    A slot keeps the write-ahead log until it is read: set `max_slot_wal_keep_size`, and drop a slot that nobody reads any
    more. Where a slot was lost everything begins with an empty cache. DDL is noticed with the next change of the table.

    Args:
        url: a connection string of libpq. Not of a hot standby.
        publication: its name. `CREATE PUBLICATION shop FOR TABLE users, orders`.
        slot: the name of a slot that keeps the position: one of the processes that use it reads, for the shared tier of all,
            and if it dies another one goes on from there. It is made if it is not there. Without it each process has a slot of
            its own, which goes with the connection.
        poll: how often to look.

    Raises:
        ConfigurationError: an option is wrong, or psycopg is missing.
    """

    def __init__(self, url: str, *, publication: str, slot: str | None = None, poll: Duration = 0.05) -> None:
        psycopg_module()
        self.name = slot
        self.rest = seconds_of(poll, name="poll")
        if self.rest <= 0:
            raise ConfigurationError("poll must be positive; leave it out for 50 ms")
        self._publication = publication
        self._session = Session(url)
        self._reader = Reader()
        self._slot = ""
        self._is_gap = True
        self._position: int | None = None
        self._decoded = -1  # up to where the log was when all that it had was applied
        self._next = (0, -1)
        self._advanced = (-1e9, 0)
        self._is_news = False
        self._tables: dict[int, _Table] = {}
        self._relations: dict[int, Relation] = {}
        self._looked = -1e9

    @property
    def position(self) -> str:
        """The place in the write-ahead log up to which all is applied."""
        place = self._position
        return "" if place is None else f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"

    # The port ---------------------------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> Columns:
        """See `Feed`."""
        if not self._session.is_open:
            self._session.open(timeout)
            self._looked, self._slot, self._decoded = -1e9, "", -1
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look(timeout)
        told: dict[str, frozenset[str]] = {}
        for table in self._tables.values():  # several are partitions of one
            told[table.name] = told.get(table.name, table.columns) & table.columns
        return told

    def elect(self, timeout: float) -> bool:
        """See `Feed`."""
        if self._slot:
            return True
        if self.name is None:
            name = f"credenza_{secrets.token_hex(8)}"
            self._position, self._is_gap = self._made(name, timeout, is_temporary=True), True
            self._slot = name
            return True
        if self._session.lock(f"slot {self.name}", timeout):
            self._position, self._is_gap = self._found(self.name, timeout)
            self._slot = self.name
            return True
        rows = self._session.run(_SLOT, (self.name,), timeout=timeout)
        self._position, self._is_gap = int(rows[0][2]) if rows and rows[0][2] is not None else None, False
        return False

    def read(self, timeout: float) -> Batch:
        """See `Feed`. Decoding sees a commit before queries do: what was read is returned once it can be seen."""
        flushed = int(self._session.run(_FLUSHED, timeout=timeout)[0][0])
        place = self._position or 0
        if self._is_gap:
            self._next = (place, -1)
            return Batch(is_gap=True)
        self._next = (max(place, flushed), flushed)
        if flushed == self._decoded:
            return Batch()
        rows = self._session.run(_PEEK, (self._slot, _ROWS, self._publication), timeout=timeout)
        messages = _parsed(rows)
        self._await_sight([message.xid for message in messages if isinstance(message, Begin)], timeout)
        changes = list(self._changes(messages, timeout))
        ends = [message.end for message in messages if isinstance(message, Commit)]
        self._is_news |= bool(ends)
        if len(rows) < _ROWS:
            self._next = (max(place, flushed, *ends), flushed)
            return Batch(changes)
        self._next = (max(place, *ends), -1)
        return Batch(changes, has_more=True)

    def settle(self) -> None:
        """See `Feed`."""
        self._position, self._decoded = self._next
        self._is_gap = False

    def save(self, timeout: float) -> None:
        """See `Feed`. Where nothing of interest was written the slot is moved once in a while."""
        when, place = self._advanced
        is_due = self._is_news or time.monotonic() - when > _ADVANCE_SECONDS
        if self._position is None or self._position == place or not is_due:
            return
        self._session.run(_ADVANCE, (self._slot, self._position), timeout=timeout)
        self._advanced, self._is_news = (time.monotonic(), self._position), False

    def trim(self, timeout: float) -> None:
        """See `Feed`. The server does that."""

    def wait(self, seconds: float) -> None:
        """See `Feed`."""
        self._session.wait(seconds)

    def wake(self) -> None:
        """See `Feed`."""
        self._session.wake()

    def mark(self, timeout: float) -> int:
        """See `Feed`. Writes a message of its own into the log, so that there is something to reach."""
        return int(self._session.ask_once(_MARK, timeout)[0][0])

    def has_reached(self, mark: int) -> bool:
        """See `Feed`."""
        return self._position is not None and not self._is_gap and self._position >= mark

    def disconnect(self) -> None:
        """See `Feed`."""
        self._session.close()
        self._slot = ""

    def before_fork(self) -> None:
        """See `Feed`. A connection survives it, as long as the child leaves it alone."""

    def after_in_parent(self) -> None:
        """See `Feed`."""

    def after_in_child(self) -> None:
        """See `Feed`."""
        self._session.after_in_child()
        self._slot = ""

    # What it is made of -----------------------------------------------------------------------------------------------

    def _look(self, timeout: float) -> None:
        rows = self._session.run(_TABLES, (self._publication,), timeout=timeout)
        self._tables = {oid: _Table(name, frozenset(columns)) for oid, name, columns in rows}
        self._looked = time.monotonic()

    def _found(self, name: str, timeout: float) -> tuple[int, bool]:
        """Return the place of the slot, and whether it is a new one."""
        rows = self._session.run(_SLOT, (name,), timeout=timeout)
        if rows and not rows[0][0]:
            raise ConfigurationError(f"the slot {name!r} is not of pgoutput and this database; choose another name")
        if rows and rows[0][1] and rows[0][2] is not None:
            return int(rows[0][2]), False
        if rows:
            self._session.run(_DROP, (name,), timeout=timeout)
        return self._made(name, timeout, is_temporary=False), True

    def _made(self, name: str, timeout: float, *, is_temporary: bool) -> int:
        return int(self._session.run(_MAKE, (name, is_temporary), timeout=timeout)[0][0])

    def _await_sight(self, xids: Iterable[int], timeout: float) -> None:
        """Return once every query sees these transactions.

        1. A writer's commit is in the log. 2. It is decoded here, and the key invalidated. 3. A reader's query does not see the
        commit yet, as the writer waits for a standby, or for its turn; the old value is stored, and stays.
        """
        wanted, ends = set(xids), time.monotonic() + timeout
        while wanted:
            now = Snapshot.parse(self._session.run("SELECT pg_current_snapshot()::text", timeout=timeout)[0][0])
            wanted = {xid for xid in wanted if not now.sees(_widened(xid, now.xmax))}
            if wanted and time.monotonic() > ends:
                raise FeedError("a commit is in the log, and cannot be seen: does it wait for a standby that is away?")
            if wanted:
                time.sleep(_PAUSE_SECONDS)

    def _changes(self, messages: Iterable[Message], timeout: float) -> Iterable[RowChange]:
        for message in messages:
            if isinstance(message, Relation):
                before = self._relations.get(message.oid, message)
                self._relations[message.oid] = message
                if before != message and (table := self._table(message.oid, timeout)) is not None:
                    yield RowChange(table.name, None)
            elif isinstance(message, Truncate):
                emptied = [self._table(oid, timeout) for oid in message.oids]
                yield from (RowChange(table.name, None) for table in emptied if table is not None)
            elif isinstance(message, Change) and (table := self._table(message.oid, timeout)) is not None:
                relation = self._relations[message.oid]
                whole = message.new if message.old is None else message.old
                rows = [fields for fields in (message.old, message.new) if fields is not None]
                yield from (RowChange(table.name, self._row(table, relation, fields, whole)) for fields in rows)

    def _table(self, oid: int, timeout: float) -> _Table | None:
        if oid not in self._tables:
            self._look(timeout)
        return self._tables.get(oid)

    def _row(self, table: _Table, relation: Relation, fields: Fields, before: Fields | None) -> dict[str, Any] | None:
        """Return the columns that are told; None if one of them is not known."""
        row: dict[str, Any] = {}
        for index, (name, kind) in enumerate(relation.columns):
            if name not in table.columns:
                continue
            field = fields[index]
            if field is MISSING and before is not None:  # a long value that was not changed
                field = before[index]
            if field is MISSING:
                return None
            try:
                row[name] = None if field is None else self._reader.from_text(field, kind)
            except Exception:  # a value that psycopg has no place for, such as a date before year 1
                return None
        return row


def _parsed(rows: Iterable[tuple[bytes]]) -> list[Message]:
    try:
        return [message for (data,) in rows if (message := parse(bytes(data))) is not None]
    except ValueError as error:
        raise FeedError(str(error)) from None


def _widened(xid: int, near: int) -> int:
    """Return the 64-bit number of a transaction that was not long ago, from its lower 32 bits."""
    distance = (xid - near) & 0xFFFFFFFF
    return near + (distance if distance < 1 << 31 else distance - (1 << 32))
