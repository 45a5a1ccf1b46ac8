"""Fills the demo's database, wholly or not at all.

A SQLite file is written under another name and renamed when it is whole; PostgreSQL is filled in one transaction. So
an interrupted run leaves nothing that a later one could take for a database.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema, DropSchema

from .errors import DemoError
from .population import Population, Row, Scale
from .schema import follows, likes, metadata, posts, seeding, users

VERSION = 2
SCHEMA = "credenza_demo"
_BATCH = 5_000
_LOCK = 0x637265  # any number that nobody else locks

Progress = Callable[[int], None]


def open_engine(url: URL, *, connections: int) -> Engine:
    """Return an engine whose tables live in their own schema, where the database has schemas."""
    if url.get_backend_name() == "sqlite":
        return create_engine(
            url, pool_size=connections, max_overflow=0, hide_parameters=True, connect_args={"timeout": 30}
        )
    try:
        return create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,  # what people are called has no place in a log
            execution_options={"schema_translate_map": {None: SCHEMA}},
        )
    except ModuleNotFoundError as exc:
        raise DemoError(f"PostgreSQL needs {exc.name}; install it: pip install 'credenza[postgres]'") from exc


def is_seeded(url: URL, scale: Scale) -> bool:
    """Tell whether the database is there, whole, and of this scale. It is not changed."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return False
    engine = open_engine(url, connections=1)
    try:
        with engine.connect() as connection:
            return _is_current(connection, scale)
    except DatabaseError as exc:
        if url.get_backend_name() == "sqlite":
            message = f"{url.database} cannot be read as a SQLite database; name another with --database"
            raise DemoError(message) from exc
        raise DemoError(f"cannot reach {url.render_as_string()}: {_first_line(exc)}") from exc
    finally:
        engine.dispose()


def seed(url: URL, scale: Scale, progress: Progress = lambda rows: None) -> None:
    """Fill the database; blocks until it is whole.

    Args:
        url: which database; an earlier one of ours at that place is replaced.
        scale: how much to write.
        progress: called with the number of rows that each batch added.

    Raises:
        DemoError: the place cannot be written, or the file there is not ours.
    """
    try:
        if url.get_backend_name() == "sqlite":
            _seed_file(url, scale, progress)
        else:
            _seed_server(url, scale, progress)
    except (OSError, SQLAlchemyError) as exc:
        place = url.render_as_string()
        raise DemoError(f"cannot fill {place}: {_first_line(exc)}; choose another place with --database") from exc


def _seed_file(url: URL, scale: Scale, progress: Progress) -> None:
    target = Path(url.database or "")
    if target.exists() and not _is_ours(url):
        raise DemoError(f"{target} exists and is not a database of this demo; name another file with --database")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    engine = create_engine(url.set(database=str(unfinished)), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            # Nothing to lose yet: a power cut here leaves an unfinished file, which nobody opens.
            connection.exec_driver_sql("PRAGMA journal_mode = OFF")
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
            connection.rollback()
            _fill(connection, scale, progress)
            connection.commit()
        unfinished.replace(target)
    finally:
        engine.dispose()
        unfinished.unlink(missing_ok=True)


def _seed_server(url: URL, scale: Scale, progress: Progress) -> None:
    engine = open_engine(url, connections=1)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if _is_current(connection, scale):  # somebody else was filling it while we waited
                return
            connection.execute(DropSchema(SCHEMA, cascade=True, if_exists=True))
            connection.execute(CreateSchema(SCHEMA))
            _fill(connection, scale, progress)
    finally:
        engine.dispose()


def _fill(connection: Connection, scale: Scale, progress: Progress) -> None:
    metadata.create_all(connection)
    people = Population(scale)
    sources: list[tuple[Table, Iterator[Row]]] = [
        (users, people.users()),
        (posts, people.posts()),
        (follows, people.follows()),
        (likes, people.likes()),
    ]
    for table, rows in sources:
        while batch := list(islice(rows, _BATCH)):
            _insert(connection, table, batch)
            progress(len(batch))
    connection.execute(insert(seeding), [{"version": VERSION, "users": scale.users, "random_seed": scale.random_seed}])
    connection.execute(text("ANALYZE"))


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if connection.dialect.name == "sqlite":
        connection.execute(insert(table), rows)
        return
    # PostgreSQL's own way of taking rows in bulk, several times as fast as statements are.
    names = list(rows[0])
    driver: Any = connection.connection.driver_connection  # the driver's own connection has no type of ours
    command = f"COPY {SCHEMA}.{table.name} ({', '.join(names)}) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        for row in rows:
            copy.write_row([row[name] for name in names])


def _is_current(connection: Connection, scale: Scale) -> bool:
    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    if not inspect(connection).has_table(seeding.name, schema=schema):
        return False
    row = connection.execute(select(seeding)).one_or_none()
    return row is not None and tuple(row) == (VERSION, scale.users, scale.random_seed)


def _is_ours(url: URL) -> bool:
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            names = inspect(connection).get_table_names()
            tables = {name for name in names if not name.startswith("credenza_")}  # those are of a change feed
            return not tables or tables == set(metadata.tables)
    except DatabaseError:
        return False
    finally:
        engine.dispose()


def _first_line(exc: BaseException) -> str:
    cause = getattr(exc, "orig", None) or exc
    return str(cause).strip().partition("\n")[0]
