"""The change log of PostgreSQL: tables and triggers, as SQL that one can read first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...errors import ConfigurationError
from .links import literal, psycopg_module, quoted
from .triggers import triggers

VERSION: Final = 1
SCHEMA: Final = "credenza"

_LOG: Final = """\
-- The change log of Credenza, version {version}. Run it in one transaction; it may be run again.
CREATE SCHEMA IF NOT EXISTS {s};

CREATE TABLE IF NOT EXISTS {s}.state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version integer NOT NULL,
    epoch uuid NOT NULL DEFAULT gen_random_uuid(),
    trimmed pg_snapshot NOT NULL DEFAULT '1:1:',
    next_trim pg_snapshot,
    next_trim_at timestamptz
);
DO $$ BEGIN
    IF EXISTS (SELECT FROM {s}.state WHERE version > {version}) THEN
        RAISE EXCEPTION 'the change log is of a later version of Credenza; upgrade the library';
    END IF;
END $$;
INSERT INTO {s}.state (version) VALUES ({version}) ON CONFLICT (is_only) DO UPDATE SET version = excluded.version;

-- One row for each changed row. "row" has the columns that tell keys; null stands for all rows of the table.
CREATE TABLE IF NOT EXISTS {s}.changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    "row" jsonb,
    PRIMARY KEY (xid, id)
);
CREATE TABLE IF NOT EXISTS {s}.tables (
    name text PRIMARY KEY,
    relation oid NOT NULL,
    identity text NOT NULL,
    columns text[] NOT NULL
);
CREATE TABLE IF NOT EXISTS {s}.followers (
    name text PRIMARY KEY,
    identity text NOT NULL,
    position text NOT NULL,
    shapes jsonb NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION {s}.log_whole() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {s}.changes (name) VALUES (TG_ARGV[0]);{notify}
    RETURN NULL;
END $$;
"""

_DDL: Final = """
-- ALTER TABLE and DROP TABLE. Event triggers are for superusers; without them followers look every few seconds.
CREATE OR REPLACE FUNCTION {s}.log_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE touched oid[];
BEGIN
    IF TG_EVENT = 'sql_drop' THEN
        touched := ARRAY(SELECT objid FROM pg_event_trigger_dropped_objects() WHERE classid = 'pg_class'::regclass);
    ELSE
        touched := ARRAY(SELECT objid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass);
    END IF;
    INSERT INTO {s}.changes (name) SELECT name FROM {s}.tables WHERE relation = ANY (touched)
        OR relation IN (SELECT pg_partition_root(part) FROM unnest(touched) AS part);{notify}
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the change log of Credenza could not note a change of a table';
END $$;
DO $$ BEGIN
    DROP EVENT TRIGGER IF EXISTS {ddl};
    DROP EVENT TRIGGER IF EXISTS {drop};
    CREATE EVENT TRIGGER {ddl} ON ddl_command_end EXECUTE FUNCTION {s}.log_ddl();
    CREATE EVENT TRIGGER {drop} ON sql_drop EXECUTE FUNCTION {s}.log_ddl();
    ALTER EVENT TRIGGER {ddl} ENABLE ALWAYS;
    ALTER EVENT TRIGGER {drop} ENABLE ALWAYS;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'no event trigger without a superuser: changes of tables are noticed within seconds, not at once';
END $$;
"""

_GRANT: Final = """
GRANT USAGE ON SCHEMA {s} TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {role};
GRANT UPDATE ON {s}.state TO {role};
GRANT DELETE ON {s}.changes TO {role};
GRANT INSERT, UPDATE ON {s}.followers TO {role};
"""

_GONE: Final = """\
-- Removes the change log of Credenza, with its triggers.
DO $$ DECLARE one regprocedure; BEGIN
    DROP EVENT TRIGGER IF EXISTS {ddl};
    DROP EVENT TRIGGER IF EXISTS {drop};
    FOR one IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = {s_literal} AND p.proname LIKE 'log\\_%' LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', one);
    END LOOP;
END $$;
DROP TABLE IF EXISTS {s}.changes, {s}.tables, {s}.followers, {s}.state;
DO $$ BEGIN
    DROP SCHEMA IF EXISTS {s};
EXCEPTION WHEN dependent_objects_still_exist THEN
    NULL;
END $$;
"""


def migration(
    tables: Mapping[str, Sequence[str]], *, schema: str = SCHEMA, notify: bool = True, readers: Sequence[str] = ()
) -> str:
    """Return the SQL that makes the change log, and triggers that write it in the transaction of each change.

    It may be run again, and with further tables. A trigger costs a row in the log for each changed row, or two where a column
    that is told changes. Writers need no rights on the log.

    Args:
        tables: by table, as SQL would name it, the columns that tell its keys: those that the templates of `keys=` name.
        schema: where the log is to be; it is made.
        notify: wake followers with NOTIFY. Without it they poll, PREPARE TRANSACTION works, and commits do not queue up for
            NOTIFY.
        readers: roles that may follow.

    Raises:
        ConfigurationError: a table without columns.
    """
    s = quoted(schema)
    ring = f"\n    PERFORM pg_notify({literal(channel(schema))}, '');" if notify else ""
    parts = [_LOG.format(s=s, version=VERSION, notify=ring)]
    for name, columns in tables.items():
        if isinstance(columns, str) or not columns:
            raise ConfigurationError(f'for {name!r} name the columns that tell its keys, as in {{"users": ["id"]}}')
        parts.append(triggers(name, tuple(columns), s=s, ring=ring))
    parts.append(_DDL.format(s=s, notify=ring, **_events(schema)))
    parts += [_GRANT.format(s=s, role=quoted(role)) for role in readers]
    return "".join(parts)


def removal(*, schema: str = SCHEMA) -> str:
    """Return the SQL that removes the log and its triggers; followers then say that it is gone."""
    return _GONE.format(s=quoted(schema), s_literal=literal(schema), **_events(schema))


def install(
    where: Any,  # Any: a connection of psycopg, or its URL
    tables: Mapping[str, Sequence[str]],
    *,
    schema: str = SCHEMA,
    notify: bool = True,
    readers: Sequence[str] = (),
) -> None:
    """Run what `migration` returns, in one transaction; it waits for writers of the tables, and they for it.

    Args:
        where: a connection of psycopg, whose transaction under way is joined, or a connection string.
        tables: as for `migration`, as are the others.
        schema: as above.
        notify: as above.
        readers: as above.
    """
    _run(where, migration(tables, schema=schema, notify=notify, readers=readers))


def uninstall(where: Any, *, schema: str = SCHEMA) -> None:  # Any: as for `install`
    """Run what `removal` returns, in one transaction."""
    _run(where, removal(schema=schema))


def _run(where: Any, script: str) -> None:
    psycopg = psycopg_module()
    if isinstance(where, str):
        with psycopg.connect(where) as connection:
            connection.execute(script)
        return
    with where.transaction():
        where.execute(script)


def channel(schema: str) -> str:
    """Return what followers listen to."""
    return f"{schema[:50]}_changes"


def _events(schema: str) -> dict[str, str]:
    return {"ddl": quoted(f"{schema[:50]}_ddl"), "drop": quoted(f"{schema[:50]}_drop")}
