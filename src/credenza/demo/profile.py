"""The profile query: one statement, with the joins and aggregations that such pages really need."""

from dataclasses import asdict, dataclass
from typing import Any  # a decoded JSON column has no narrower type

from sqlalchemy import JSON, BindParameter, Connection, Integer, Select, bindparam, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import CTE, FromClause

from .schema import follows, likes, posts, users

RECENT_POSTS = 5
MUTUALS_SHOWN = 8

# The databases call the same two functions by different names: (an array of rows, one row as an object).
_JSON_FUNCTIONS = {
    "sqlite": ("json_group_array", "json_object"),
    "postgresql": ("json_agg", "json_build_object"),
}


@dataclass(frozen=True, slots=True)
class Post:
    """One post, with how many people like it."""

    id: int
    body: str
    created: str
    likes: int


@dataclass(frozen=True, slots=True)
class Mutual:
    """Somebody who follows the user and is followed back."""

    id: int
    name: str
    followers: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that the page shows of one user."""

    id: int
    name: str
    email: str
    city: str
    bio: str
    joined: str
    followers: int
    following: int
    posts: int
    likes_received: int
    rank: int
    ranked_of: int
    mutual_count: int
    mutuals: tuple[Mutual, ...]
    recent_posts: tuple[Post, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `GET /user` answers."""
        return asdict(self)


def read_profile(connection: Connection, user_id: int) -> Profile | None:
    """Run the query; None if there is no such user."""
    row = connection.execute(_STATEMENTS[connection.dialect.name], {"user_id": user_id}).mappings().one_or_none()
    if row is None:
        return None
    fields: dict[str, Any] = dict(row)
    fields["joined"] = fields["joined"].isoformat()
    fields["rank"] = int(fields["rank"])  # PostgreSQL sums to a Decimal
    # An aggregate over an ordered subquery keeps its order in practice, but neither database promises it.
    mutuals = sorted(fields.pop("mutuals") or [], key=lambda mutual: (-mutual["followers"], mutual["id"]))
    recent = sorted(fields.pop("recent_posts") or [], key=lambda post: (post["created"], post["id"]), reverse=True)
    return Profile(
        **fields,
        mutuals=tuple(Mutual(**mutual) for mutual in mutuals),
        recent_posts=tuple(Post(**post) for post in recent),
    )


def _profile_statement(dialect: str) -> Select[Any]:
    user_id: BindParameter[int] = bindparam("user_id", type_=Integer)
    standings, mutual, recent = _standings(), _mutual(user_id), _recent(user_id)
    shown = select(mutual).order_by(mutual.c.followers.desc(), mutual.c.id).limit(MUTUALS_SHOWN).subquery()
    followers = _count(follows.c.followee_id == user_id)
    received = select(func.count()).join_from(likes, posts).where(posts.c.user_id == user_id)
    after_all = select(func.count(follows.c.followee_id.distinct()) + 1)
    return (
        select(
            *(users.c[name] for name in ("id", "name", "email", "city", "bio", "joined")),
            func.coalesce(standings.c.followers, 0).label("followers"),
            _count(follows.c.follower_id == user_id).label("following"),
            _count(posts.c.user_id == user_id).label("posts"),
            received.scalar_subquery().label("likes_received"),
            func.coalesce(standings.c.rank, after_all.scalar_subquery()).label("rank"),
            select(func.count()).select_from(users).scalar_subquery().label("ranked_of"),
            select(func.count()).select_from(mutual).scalar_subquery().label("mutual_count"),
            _rows_as_json(dialect, shown).label("mutuals"),
            _rows_as_json(dialect, recent).label("recent_posts"),
        )
        .join_from(users, standings, standings.c.followers == followers, isouter=True)
        .where(users.c.id == user_id)
    )


def _standings() -> CTE:
    """For each number of followers that somebody has: the rank that comes with it.

    People with equally many followers share a rank, so the window runs over the distinct counts.
    """
    counts = (
        select(follows.c.followee_id, func.count().label("followers"))
        .group_by(follows.c.followee_id)
        .cte("follower_counts")
    )
    people = func.count()
    ahead = func.sum(people).over(order_by=counts.c.followers.desc()) - people
    return select(counts.c.followers, (ahead + 1).label("rank")).group_by(counts.c.followers).cte("standings")


def _mutual(user_id: ColumnElement[int]) -> CTE:
    """Everybody who follows the user and is followed back, with their own followers counted."""
    back, audience = follows.alias("back"), follows.alias("audience")
    return (
        select(users.c.id, users.c.name, func.count().label("followers"))
        .join(follows, follows.c.follower_id == users.c.id)
        .join(back, (back.c.followee_id == users.c.id) & (back.c.follower_id == user_id))
        .join(audience, audience.c.followee_id == users.c.id)
        .where(follows.c.followee_id == user_id)
        .group_by(users.c.id, users.c.name)
        .cte("mutual")
    )


def _recent(user_id: ColumnElement[int]) -> CTE:
    """The latest posts with their likes."""
    latest = (
        select(posts.c.id, posts.c.body, posts.c.created)
        .where(posts.c.user_id == user_id)
        .order_by(posts.c.created.desc(), posts.c.id.desc())
        .limit(RECENT_POSTS)
        .cte("latest")
    )
    return (
        select(latest.c.id, latest.c.body, latest.c.created, func.count(likes.c.user_id).label("likes"))
        .outerjoin(likes, likes.c.post_id == latest.c.id)
        .group_by(latest.c.id, latest.c.body, latest.c.created)
        .cte("recent")
    )


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).where(condition).scalar_subquery()


def _rows_as_json(dialect: str, rows: FromClause) -> ColumnElement[Any]:
    array, record = _JSON_FUNCTIONS[dialect]
    fields: list[ColumnElement[Any]] = []
    for column in rows.c:
        fields += literal_column(f"'{column.name}'"), column
    aggregate = getattr(func, array)(getattr(func, record)(*fields), type_=JSON)
    return select(aggregate).select_from(rows).scalar_subquery()


_STATEMENTS = {dialect: _profile_statement(dialect) for dialect in _JSON_FUNCTIONS}
