"""The triggers that log the changes of one table, as SQL."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from .links import array, literal, quoted

_HEAD: Final = """
-- {name}: {listed}
INSERT INTO {s}.tables (name, relation, identity, columns)
    SELECT {name_literal}, oid, relnamespace || ' ' || relname, {columns} FROM pg_class WHERE oid = {name_literal}::regclass
    ON CONFLICT (name) DO UPDATE
        SET relation = excluded.relation, identity = excluded.identity, columns = excluded.columns;
"""

# Values are compared as text: 1.0 and 1.00 are equal, and make different keys.
_BY_ROW: Final = """
CREATE OR REPLACE FUNCTION {s}.{by_row}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    before jsonb;
    after jsonb;
BEGIN
    BEGIN
        IF TG_OP <> 'INSERT' THEN before := jsonb_build_object({old}); END IF;
        IF TG_OP <> 'DELETE' THEN after := jsonb_build_object({new}); END IF;
    EXCEPTION WHEN undefined_column THEN  -- it was renamed or dropped: the write goes on, and all rows count as changed
        INSERT INTO {s}.changes (name) VALUES ({name_literal});{notify}
        RETURN NULL;
    END;
    IF before IS NOT NULL AND before::text IS DISTINCT FROM after::text THEN
        INSERT INTO {s}.changes (name, "row") VALUES ({name_literal}, before);
    END IF;
    IF after IS NOT NULL THEN
        INSERT INTO {s}.changes (name, "row") VALUES ({name_literal}, after);
    END IF;{notify}
    RETURN NULL;
END $$;
"""

# The look at one row comes first, so that nothing is written inside of EXCEPTION: that would take a subtransaction's number.
_BY_STATEMENT: Final = """
CREATE OR REPLACE FUNCTION {s}.{by_statement}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
BEGIN
    BEGIN
        IF TG_OP = 'DELETE' THEN
            PERFORM {before} FROM before LIMIT 1;
        ELSE
            PERFORM {after} FROM after LIMIT 1;
        END IF;
        IF NOT FOUND THEN RETURN NULL; END IF;
    EXCEPTION WHEN undefined_column THEN  -- as above
        INSERT INTO {s}.changes (name) VALUES ({name_literal});{notify}
        RETURN NULL;
    END;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO {s}.changes (name, "row") SELECT {name_literal}, jsonb_build_object({after}) FROM after;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO {s}.changes (name, "row") SELECT {name_literal}, jsonb_build_object({before}) FROM before;
    ELSE
        INSERT INTO {s}.changes (name, "row") SELECT {name_literal}, told.image::jsonb FROM (
            SELECT jsonb_build_object({before})::text AS image FROM before
            UNION SELECT jsonb_build_object({after})::text FROM after) AS told;
    END IF;{notify}
    RETURN NULL;
END $$;
"""

_TRIGGERS: Final = """
-- A bulk of rows is logged by the statement, which is much faster. Not so what is written through a parent or by a subscription:
-- no statement names the table then. A subscription's session is a "replica", and is told by the row.
DROP TRIGGER IF EXISTS credenza_insert ON {relation};
DROP TRIGGER IF EXISTS credenza_update ON {relation};
DROP TRIGGER IF EXISTS credenza_delete ON {relation};
DROP TRIGGER IF EXISTS credenza_row ON {relation};
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = {name_literal}::regclass AND relkind = 'r')
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = {name_literal}::regclass) THEN
        CREATE TRIGGER credenza_insert AFTER INSERT ON {relation} REFERENCING NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION {s}.{by_statement}();
        CREATE TRIGGER credenza_update AFTER UPDATE ON {relation} REFERENCING OLD TABLE AS before NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION {s}.{by_statement}();
        CREATE TRIGGER credenza_delete AFTER DELETE ON {relation} REFERENCING OLD TABLE AS before
            FOR EACH STATEMENT EXECUTE FUNCTION {s}.{by_statement}();
        CREATE TRIGGER credenza_row AFTER INSERT OR UPDATE OR DELETE ON {relation} FOR EACH ROW
            WHEN (current_setting('session_replication_role') = 'replica') EXECUTE FUNCTION {s}.{by_row}();
    ELSE
        CREATE TRIGGER credenza_row AFTER INSERT OR UPDATE OR DELETE ON {relation}
            FOR EACH ROW EXECUTE FUNCTION {s}.{by_row}();
    END IF;
END $$;
ALTER TABLE {relation} ENABLE ALWAYS TRIGGER credenza_row;  -- for rows that replication writes, too
DO $$ DECLARE part regclass; BEGIN
    FOR part IN SELECT {name_literal}::regclass UNION SELECT relid FROM pg_partition_tree({name_literal}) LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS credenza_truncate ON %s', part);
        EXECUTE format('CREATE TRIGGER credenza_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT '
            'EXECUTE FUNCTION {s_in_format}.log_whole(%L)', part, {name_literal});
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER credenza_truncate', part);
    END LOOP;
END $$;
INSERT INTO {s}.changes (name) VALUES ({name_literal});  -- what was written without the triggers counts as changed
"""


def triggers(name: str, columns: Sequence[str], *, s: str, ring: str) -> str:
    """Return the SQL that logs a table.

    Args:
        name: as SQL would name it.
        columns: that are told.
        s: the schema of the log, quoted.
        ring: a statement of PL/pgSQL that wakes followers, or nothing.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    function = f"{re.sub(r'[^a-z0-9_]', '_', name.lower())[:40]}_{digest}"
    return (_HEAD + _BY_ROW + _BY_STATEMENT + _TRIGGERS).format(
        s=s,
        s_in_format=s.replace("'", "''").replace("%", "%%"),
        name=" ".join(name.split()),
        listed=", ".join(" ".join(column.split()) for column in columns),
        name_literal=literal(name),
        relation=name,
        columns=array(columns),
        by_row=quoted(f"log_row_{function}"),
        by_statement=quoted(f"log_{function}"),
        old=_pairs("OLD", columns),
        new=_pairs("NEW", columns),
        before=_pairs("before", columns),
        after=_pairs("after", columns),
        notify=ring,
    )


def _pairs(row: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{literal(column)}, {row}.{quoted(column)}" for column in columns)
