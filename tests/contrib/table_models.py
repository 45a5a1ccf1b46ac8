"""The tables and mapped classes of the tests of table sources."""

from dataclasses import dataclass

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship


class Base(DeclarativeBase):
    """Of the mapped classes."""


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column("name", String(80))
    email: Mapped[str | None] = mapped_column(unique=True)
    orders: Mapped[list["Order"]] = relationship(lazy="joined")


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


class Stock(MappedAsDataclass, Base):
    __tablename__ = "stock"

    shop: Mapped[str] = mapped_column(primary_key=True)
    article: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]


tables = MetaData()

people = Table(
    "people",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("city", String(80)),
    Column("tenant", Integer),
    Column("slug", String(80)),
    UniqueConstraint("tenant", "slug"),
)

stock = Table(
    "plain_stock",
    tables,
    Column("shop", String(80), primary_key=True),
    Column("article", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
)


@dataclass(frozen=True)
class Person:
    """A plain value, of some of the columns."""

    id: int
    name: str
