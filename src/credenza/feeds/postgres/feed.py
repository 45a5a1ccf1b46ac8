"""The change log that triggers write, as a feed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

from ...durations import Duration, seconds_of
from ...errors import ConfigurationError, FeedError
from ..base import Batch, Columns, RowChange
from .columns import Reader
from .links import psycopg_module, quoted
from .migration import SCHEMA, VERSION, channel
from .session import Session
from .snapshot import NOTHING, Snapshot

_log = logging.getLogger("credenza")

_PAGE: Final = 5000
_LOOK_SECONDS: Final = 5.0
_TRIM_SECONDS: Final = 10.0
_TRIM_ROWS: Final = 20_000

# Another server, or the same after a fail-over, which may use numbers of lost transactions again: positions are void.
_IDENTITY: Final = """
SELECT s.version, s.epoch::text || '/' || (SELECT system_identifier FROM pg_control_system())::text || '/'
    || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM {s}.state s"""
# A table without its triggers is not told; nor one that was made a partition or an heir and has those of a table by itself.
_TABLES: Final = """
SELECT t.name, t.columns, array_agg(a.attname::text), array_agg(a.atttypid::bigint),
    md5(string_agg(concat_ws(' ', t.relation, a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum))
FROM {s}.tables t JOIN pg_attribute a ON a.attrelid = t.relation AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_class c ON c.oid = t.relation AND c.relnamespace || ' ' || c.relname = t.identity
WHERE (SELECT count(*) FILTER (WHERE g.tgname = 'credenza_row' AND g.tgqual IS NULL) = 1
        OR count(*) = 4 AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = t.relation)
    FROM pg_trigger g WHERE g.tgrelid = t.relation AND g.tgenabled <> 'D'
        AND g.tgname IN ('credenza_row', 'credenza_insert', 'credenza_update', 'credenza_delete'))
GROUP BY t.name"""
# A row is new if its transaction had not ended in the snapshot of the position: it began later, or was under way. Both are
# ranges of the primary key. The statement sees what its own snapshot sees, and that becomes the next position.
_READ: Final = """
SELECT s.snapshot::text, s.trimmed::text, c.xid::text, c.id, c.name, c."row"::text
FROM (SELECT pg_current_snapshot() AS snapshot, trimmed FROM {s}.state) s LEFT JOIN LATERAL (
    SELECT * FROM (
        (SELECT * FROM {s}.changes WHERE xid >= %(xmax)s::xid8 AND (xid, id) > (%(xid)s::xid8, %(id)s::bigint)
            AND (%(until)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(xid, %(until)s::pg_snapshot))
            ORDER BY xid, id LIMIT %(page)s)
        UNION ALL
        (SELECT * FROM {s}.changes WHERE xid = ANY (%(running)s::text[]::xid8[])
            AND (xid, id) > (%(xid)s::xid8, %(id)s::bigint)
            AND (%(until)s::pg_snapshot IS NULL OR pg_visible_in_snapshot(xid, %(until)s::pg_snapshot))
            ORDER BY xid, id LIMIT %(page)s)
    ) AS new ORDER BY xid, id LIMIT %(page)s
) c ON true"""
_KEPT: Final = "SELECT position, shapes FROM {s}.followers WHERE name = %s AND identity = %s"
_SAVE: Final = """
INSERT INTO {s}.followers (name, identity, position, shapes) VALUES (%s, %s, %s, %s::text::jsonb)
ON CONFLICT (name) DO UPDATE SET identity = excluded.identity, position = excluded.position, shapes = excluded.shapes,
    saved_at = now()"""
_TURN_TRIM: Final = """
UPDATE {s}.state SET trimmed = coalesce(next_trim, trimmed), next_trim = pg_current_snapshot(), next_trim_at = now()
WHERE next_trim_at IS NULL OR next_trim_at < now() - make_interval(secs => %s) OR next_trim_at > now()"""
_TRIM: Final = """
DELETE FROM {s}.changes WHERE (xid, id) IN (SELECT c.xid, c.id FROM {s}.changes c, {s}.state s
    WHERE c.xid < pg_snapshot_xmax(s.trimmed) AND pg_visible_in_snapshot(c.xid, s.trimmed) ORDER BY c.xid, c.id LIMIT %s)"""


class PostgresFeed:
    """What the triggers of `install` logged. Needs a direct connection: a pool that shares sessions breaks LISTEN.

    A transaction that commits late is told when it commits, and one that idles holds nobody up.

    Args:
        url: a connection string of libpq. Not of a hot standby.
        name: keep the position in the database under this name: one of the processes that use it reads, for the shared tier of
            all, and if it dies another one goes on from there. Without it each process reads, and begins with an empty cache.
        schema: where the log is.
        poll: ask at least this often, whether woken or not.
        retention: rows are deleted when they are this old, at twice that age at the latest. Who was away for longer begins
            with an empty cache.

    Raises:
        ConfigurationError: an option is wrong, or psycopg is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        schema: str = SCHEMA,
        poll: Duration = 1,
        retention: Duration = "1h",
    ) -> None:
        psycopg_module()
        self.name = name
        self.rest = seconds_of(poll, name="poll")
        self._retention = seconds_of(retention, name="retention")
        if self.rest <= 0 or self._retention <= 0:
            raise ConfigurationError("poll and retention must be positive; leave them out for 1 s and 1 h")
        self._session = Session(url)
        self._schema = schema
        self._reader = Reader()
        self._identity = ""
        self._position: Snapshot | None = None  # settled
        self._seen: Snapshot | None = None  # settled by whoever reads
        self._saved: Snapshot | None = None
        self._until: Snapshot | None = None  # a larger reading goes up to here
        self._place = (0, 0)  # and has come to here
        self._next: tuple[Snapshot | None, Snapshot | None, tuple[int, int]] | None = None
        self._kinds: dict[str, dict[str, int]] = {}
        self._told: Columns = {}
        self._shapes: dict[str, str] = {}
        self._reshaped: set[str] = set()
        self._looked = self._trimmed = -1e9

    @property
    def position(self) -> str:
        """The snapshot of PostgreSQL up to which all is applied."""
        return str(self._seen or "")

    # The port ---------------------------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> Columns:
        """See `Feed`. The tables are looked at anew every few seconds."""
        if not self._session.is_open:
            self._session.open(timeout)
            self._recognise(timeout)
            self._session.run(f"LISTEN {quoted(channel(self._schema))}", timeout=timeout)
            self._looked = -1e9
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look(timeout)
        return self._told

    def elect(self, timeout: float) -> bool:
        """See `Feed`. The lock is the session's, and goes with it."""
        if self.name is None or self._session.has_lock:
            return True
        self._session.lock(f"{self._schema} {self.name}", timeout)
        kept = self._run(_KEPT, (self.name, self._identity), timeout)
        self._seen = Snapshot.parse(kept[0][0]) if kept else None
        if kept and self._session.has_lock:
            self._reshaped |= _differing(kept[0][1], self._shapes)
        self._position, self._saved, self._until, self._place = self._seen, self._seen, None, (0, 0)
        return self._session.has_lock

    def read(self, timeout: float) -> Batch:
        """See `Feed`."""
        since = self._position or NOTHING
        parameters = {
            "xmax": str(since.xmax),
            "running": [str(xid) for xid in since.running],
            "until": None if self._until is None else str(self._until),
            "xid": str(self._place[0]),
            "id": self._place[1],
            "page": _PAGE if self._position else 0,
        }
        rows = self._run(_READ, parameters, timeout)
        if not rows:
            raise FeedError("the change log has lost its state; run the migration again")
        now = Snapshot.parse(rows[0][0])
        if self._position is None or not self._position.covers(Snapshot.parse(rows[0][1])):
            self._next = (now, None, (0, 0))
            return Batch(is_gap=True)
        changes = [self._change(row[4], row[5]) for row in rows if row[2] is not None]
        if len(changes) == _PAGE:
            self._next = (self._position, self._until or now, (int(rows[-1][2]), rows[-1][3]))
        else:
            self._next = (self._until or now, None, (0, 0))
        if any(change.row is None for change in changes):
            self._looked = -1e9
        changes += [RowChange(table, None) for table in self._reshaped]
        return Batch(changes, has_more=len(rows) == _PAGE or self._until is not None)

    def settle(self) -> None:
        """See `Feed`."""
        assert self._next is not None, "nothing was read"
        self._position, self._until, self._place = self._next
        self._seen = self._position
        self._reshaped.clear()

    def save(self, timeout: float) -> None:
        """See `Feed`. The connection that saves is the one that holds the lock, so nobody saves who has lost it."""
        if self.name is None or self._position is None or self._position == self._saved:
            return
        self._run(_SAVE, (self.name, self._identity, str(self._position), json.dumps(self._shapes)), timeout)
        self._saved = self._position

    def trim(self, timeout: float) -> None:
        """See `Feed`. Deletes what a snapshot saw that is older than `retention`; that one is noted before."""
        if time.monotonic() - self._trimmed < min(_TRIM_SECONDS, self._retention / 4):
            return
        self._trimmed = time.monotonic()
        try:
            self._run(_TURN_TRIM, (self._retention,), timeout)
            self._run(_TRIM, (_TRIM_ROWS,), timeout)
        except ConfigurationError:
            _log.warning("the follower may not trim the change log; name its role in readers= of the migration")
            self._trimmed = math.inf

    def wait(self, seconds: float) -> None:
        """See `Feed`."""
        self._session.wait(seconds)

    def wake(self) -> None:
        """See `Feed`."""
        self._session.wake()

    def mark(self, timeout: float) -> Snapshot:
        """See `Feed`."""
        return Snapshot.parse(self._session.ask_once("SELECT pg_current_snapshot()::text", timeout)[0][0])

    def has_reached(self, mark: Snapshot) -> bool:
        """See `Feed`."""
        seen = self._seen
        return seen is not None and seen.covers(mark)

    def disconnect(self) -> None:
        """See `Feed`."""
        self._session.close()

    def before_fork(self) -> None:
        """See `Feed`. A connection survives it, as long as the child leaves it alone."""

    def after_in_parent(self) -> None:
        """See `Feed`."""

    def after_in_child(self) -> None:
        """See `Feed`."""
        self._session.after_in_child()

    # What it is made of -----------------------------------------------------------------------------------------------

    def _run(self, statement: str, parameters: Any, timeout: float) -> list[Any]:
        return self._session.run(statement.format(s=quoted(self._schema)), parameters, timeout=timeout)

    def _recognise(self, timeout: float) -> None:
        """Find out whose log it is; a position in another one means nothing here."""
        found = self._run(_IDENTITY, None, timeout)
        if not found or found[0][0] != VERSION:
            raise ConfigurationError(
                f"the change log in the schema {self._schema!r} is not of version {VERSION}; run migration()"
            )
        if found[0][1] != self._identity:
            self._identity = found[0][1]
            self._position = self._seen = self._saved = self._until = None
            self._place = (0, 0)

    def _look(self, timeout: float) -> None:
        """Look what is told, and at the shape of the tables, for changes of which no event trigger told."""
        rows = self._run(_TABLES, None, timeout)
        self._looked = time.monotonic()
        self._kinds = {name: dict(zip(names, kinds, strict=True)) for name, _, names, kinds, _ in rows}
        self._told = {name: frozenset(columns) & frozenset(names) for name, columns, names, _, _ in rows}
        shapes = dict.fromkeys(self._shapes, "") | {name: shape for name, _, _, _, shape in rows}
        self._reshaped |= _differing(self._shapes, shapes)
        self._shapes = shapes

    def _change(self, table: str, text: str | None) -> RowChange:
        if text is None:
            return RowChange(table, None)
        try:
            return RowChange(table, self._reader.from_json(text, self._kinds.get(table, {})))
        except Exception:  # a value that psycopg has no place for, such as a date before year 1
            return RowChange(table, None)


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    return {name for name, shape in before.items() if now.get(name, "") != shape}
