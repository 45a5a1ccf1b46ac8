"""The change log of a SQLite file: tables and triggers, as SQL that one can read first."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from typing import Final

from ...errors import ConfigurationError

VERSION: Final = 1
Where = str | os.PathLike[str] | sqlite3.Connection

_LOG: Final = """\
-- The change log of Credenza, version {version}. Run it in one transaction; it may be run again.
CREATE TABLE IF NOT EXISTS credenza_state (
    is_only INTEGER PRIMARY KEY CHECK (is_only = 1),
    version INTEGER NOT NULL,
    epoch TEXT NOT NULL DEFAULT (hex(randomblob(16))),
    trimmed INTEGER NOT NULL DEFAULT 0
);
INSERT OR IGNORE INTO credenza_state (is_only, version) VALUES (1, {version});

-- One row for each changed row, in the order of the commits; c0, c1, ... are the columns that tell keys.
CREATE TABLE IF NOT EXISTS credenza_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS credenza_tables (name TEXT PRIMARY KEY, columns TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS credenza_followers (
    name TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    position INTEGER NOT NULL,
    schema INTEGER NOT NULL
);
"""

# INSERT OR REPLACE removes rows that are in its way, and fires no trigger for them: those are looked for before.
_TABLE: Final = """
-- {comment}
INSERT OR REPLACE INTO credenza_tables (name, columns) VALUES ({name}, {columns_json});
DROP TRIGGER IF EXISTS {t_insert};
CREATE TRIGGER {t_insert} AFTER INSERT ON {table} BEGIN
    INSERT INTO credenza_changes (name, {slots}) VALUES ({name}, {new});
END;
DROP TRIGGER IF EXISTS {t_update};
CREATE TRIGGER {t_update} AFTER UPDATE ON {table} BEGIN
    INSERT INTO credenza_changes (name, {slots}) SELECT {name}, {old} WHERE {differs};
    INSERT INTO credenza_changes (name, {slots}) VALUES ({name}, {new});
END;
DROP TRIGGER IF EXISTS {t_delete};
CREATE TRIGGER {t_delete} AFTER DELETE ON {table} BEGIN
    INSERT INTO credenza_changes (name, {slots}) VALUES ({name}, {old});
END;
DROP TRIGGER IF EXISTS {t_replace};
DROP TRIGGER IF EXISTS {t_collide};
"""
_REPLACED: Final = """\
CREATE TRIGGER {trigger} BEFORE {event} ON {table} BEGIN
    INSERT INTO credenza_changes (name, {slots}) SELECT {name}, {bare} FROM {table} WHERE {in_the_way};
END;
"""


def migration(where: Where, tables: Mapping[str, Sequence[str]]) -> str:
    """Return the SQL that makes the change log, and triggers that write it in the transaction of each change.

    It may be run again, and with further tables. Run it again after a table was made anew, which removes its triggers.

    Args:
        where: the file, or a connection to it: the columns that exist and the unique ones are looked up.
        tables: by table, the columns that tell its keys: those that the templates of `keys=` name.

    Raises:
        ConfigurationError: there is no such table or column, or the log is of a later version.
    """
    with _connection(where) as connection:
        return _script(connection, tables)


def install(where: Where, tables: Mapping[str, Sequence[str]]) -> None:
    """Run what `migration` returns, in one transaction.

    Args:
        where: the file, or a connection to it that is in no transaction.
        tables: as for `migration`.
    """
    with _connection(where) as connection:
        _run(connection, _script(connection, tables))


def uninstall(where: Where) -> None:
    """Remove the log and its triggers; followers then say that it is gone."""
    with _connection(where) as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'credenza\\_%' ESCAPE '\\'"
        )
        drops = [f"DROP TRIGGER IF EXISTS {quoted(name)};" for (name,) in found.fetchall()]
        logs = ("changes", "tables", "followers", "state")
        _run(connection, "\n".join([*drops, *(f"DROP TABLE IF EXISTS credenza_{name};" for name in logs)]))


@contextlib.contextmanager
def _connection(where: Where) -> Generator[sqlite3.Connection, None, None]:
    if isinstance(where, sqlite3.Connection):
        yield where
        return
    with contextlib.closing(sqlite3.connect(where, isolation_level=None)) as connection:
        yield connection


def _run(connection: sqlite3.Connection, script: str) -> None:
    if connection.in_transaction:
        raise ConfigurationError("the connection is in a transaction; commit it first")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _script(connection: sqlite3.Connection, tables: Mapping[str, Sequence[str]]) -> str:
    existing = _columns(connection, "credenza_changes")
    if existing and connection.execute("SELECT max(version) FROM credenza_state").fetchone()[0] > VERSION:
        raise ConfigurationError("the change log is of a later version of Credenza; upgrade the library")
    most = max((len(columns) for columns in tables.values()), default=0)
    parts = [_LOG.format(version=VERSION)]
    parts += [f"ALTER TABLE credenza_changes ADD COLUMN c{i};\n" for i in range(most) if f"c{i}" not in existing]
    for name, columns in tables.items():
        known = _columns(connection, name)
        if isinstance(columns, str) or not columns:
            raise ConfigurationError(f'for {name!r} name the columns that tell its keys, as in {{"users": ["id"]}}')
        for column in columns:
            if column not in known:
                raise ConfigurationError(
                    f"{name!r} has no column {column!r}; it has: {', '.join(known) or 'none, or is not there'}"
                )
        parts.append(_table(connection, name, columns))
    return "".join(parts)


def _table(connection: sqlite3.Connection, name: str, columns: Sequence[str]) -> str:
    words = {
        "comment": " ".join(f"{name}: {', '.join(columns)}".split()),
        "name": literal(name),
        "table": quoted(name),
        "columns_json": literal(json.dumps(list(columns))),
        "slots": ", ".join(f"c{i}" for i in range(len(columns))),
        "old": ", ".join(f"OLD.{quoted(column)}" for column in columns),
        "new": ", ".join(f"NEW.{quoted(column)}" for column in columns),
        "bare": ", ".join(map(quoted, columns)),
        "differs": " OR ".join(map(_differs, columns)),
    }
    words |= {f"t_{event}": quoted(f"credenza_{name}_{event}") for event in TRIGGERS}
    script = _TABLE.format(**words)
    if in_the_way := _in_the_way(connection, name):
        own = [column for column, place in _columns(connection, name).items() if place] or ["rowid"]
        other = " OR ".join(f"{quoted(column)} IS NOT OLD.{quoted(column)}" for column in own)
        script += _REPLACED.format(**words, trigger=words["t_replace"], event="INSERT", in_the_way=in_the_way)
        away = f"({in_the_way}) AND ({other})"
        script += _REPLACED.format(**words, trigger=words["t_collide"], event="UPDATE", in_the_way=away)
    return script


TRIGGERS: Final = ("insert", "update", "delete", "replace", "collide")
NEEDED: Final = ("insert", "update", "delete")


def _differs(column: str) -> str:
    """Return the condition that a column has another value now, be it one that its collation takes for the same."""
    old, new = f"OLD.{quoted(column)}", f"NEW.{quoted(column)}"
    return f"{old} IS NOT {new} COLLATE BINARY OR typeof({old}) <> typeof({new})"


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, int]:
    """Return the columns of a table, each with its place in the primary key, from 1, or 0."""
    rows = connection.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    return {row[1]: row[5] for row in rows}


def _in_the_way(connection: sqlite3.Connection, table: str) -> str:
    """Return the condition on rows that NEW would replace: they share its primary key, or the columns of a unique index."""
    groups: list[list[str | None]] = [[name for name, place in _columns(connection, table).items() if place]]
    indexes = connection.execute(f"PRAGMA index_list({quoted(table)})").fetchall()
    for name in [index[1] for index in indexes if index[2]]:
        groups += [[row[2] for row in connection.execute(f"PRAGMA index_info({quoted(name)})").fetchall()]]
    unique = {
        tuple(filter(None, names)): None for names in groups if names and None not in names
    }  # None: an expression
    return " OR ".join(
        f"({' AND '.join(f'{quoted(name)} = NEW.{quoted(name)}' for name in names)})" for names in unique
    )


def quoted(name: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
