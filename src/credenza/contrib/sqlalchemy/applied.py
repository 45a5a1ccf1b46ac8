"""Up to which place each journal was applied, kept in the same database as the records."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Dialect, MetaData, Table, Text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from credenza import ConfigurationError

from .options import APPLIED
from .upserts import insert

_NOWHERE: Final = -1
"""The place of a journal of which nothing was applied."""
_UNDEFINED_TABLE: Final = "42P01"  # PostgreSQL's code, whatever the driver


def applied_table(metadata: MetaData, *, name: str = APPLIED, schema: str | None = None) -> Table:
    """Describe the table that `exactly_once=True` needs, one row for each journal.

    With it in the application's own metadata, `metadata.create_all()` makes it and migration tools know it.
    """
    return Table(
        name,
        metadata,
        Column("journal", Text, primary_key=True),
        Column("place", BigInteger, nullable=False),
        schema=schema,
    )


class Applied:
    """The row of a journal, which whoever applies its writes holds until the commit."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self.table = table
        self._dialect = dialect

    def claim(self, connection: Connection, journal: str) -> int:
        """Return the last place that was applied; until the transaction ends, others wait here.

        It is the first statement of its transaction, and it writes: so SQLite takes its lock before anything is read, and
        on PostgreSQL two that begin with a new journal wait for each other, though there is no row yet that could be locked.

        Raises:
            ConfigurationError: the table is missing.
        """
        statement = insert(self._dialect, self.table).values(journal=journal, place=_NOWHERE)
        claim = statement.on_conflict_do_update(
            index_elements=[self.table.c.journal], set_={"journal": statement.excluded.journal}
        ).returning(self.table.c.place)
        try:
            return int(connection.execute(claim).scalar_one())
        except DBAPIError as error:
            if _says_missing(error):
                raise ConfigurationError(
                    f"the table {self.table.fullname} is missing, which exactly_once=True needs; call install() of the source, "
                    "or put its ddl() into a migration"
                ) from error
            raise

    def advance(self, connection: Connection, journal: str, place: int) -> None:
        """Note that everything up to `place` is applied once the transaction has committed."""
        connection.execute(update(self.table).where(self.table.c.journal == journal).values(place=place))

    def create(self, connection: Connection) -> None:
        """Make the table, unless it is there."""
        connection.execute(CreateTable(self.table, if_not_exists=True))

    def ddl(self) -> str:
        """Return the statement that makes the table."""
        return str(CreateTable(self.table, if_not_exists=True).compile(dialect=self._dialect)).strip() + ";"


def _says_missing(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return code == _UNDEFINED_TABLE or "no such table" in str(error.orig)
