"""The demo's database is made whole, or not at all."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, select, text

from credenza.demo import seeding
from credenza.demo.errors import DemoError
from credenza.demo.population import Population, Scale
from credenza.demo.profile import MUTUALS_SHOWN, RECENT_POSTS, read_profile
from credenza.demo.schema import follows, likes, posts, users

SMALL = Scale(users=60)


def test_default_scale_is_half_a_million_rows() -> None:
    """20,000 users and 500,000 rows in all, as the documentation says."""
    assert (Scale().users, Scale().rows) == (20_000, 500_000)


def test_same_seed_gives_the_same_people() -> None:
    """Two populations of one scale are equal row by row; another seed gives others."""

    def rows(scale: Scale) -> list[list[dict[str, object]]]:
        people = Population(scale)
        return [list(made) for made in (people.users(), people.posts(), people.follows(), people.likes())]

    assert rows(SMALL) == rows(SMALL)
    assert rows(SMALL) != rows(Scale(users=60, random_seed=1))
    assert sum(len(made) for made in rows(SMALL)) == SMALL.rows


def test_scale_too_small_for_its_follows_is_refused() -> None:
    """Ten follows each need enough people to follow; fewer would never end."""
    with pytest.raises(ValueError, match="at least 50, got 10"):
        Scale(users=10)


def test_names_read_like_names() -> None:
    """Two capitalised words, and an address that is plain ASCII and nobody's."""
    for user in Population(SMALL).users():
        given, family = str(user["name"]).split()
        assert given[0].isupper()
        assert family[0].isupper()
        assert str(user["email"]).isascii()
        assert str(user["email"]).endswith("@example.org")


class Interrupted(BaseException):
    """Stands for Ctrl+C."""


def _interrupt_after(rows: int) -> Callable[[int], None]:
    seen = Counter[str]()

    def progress(added: int) -> None:
        seen["rows"] += added
        if seen["rows"] >= rows:
            raise Interrupted

    return progress


def test_interrupted_seeding_of_a_file_leaves_nothing(tmp_path: Path) -> None:
    """Neither the file nor the unfinished one is there, and the next run makes a whole one."""
    url = URL.create("sqlite", database=str(tmp_path / "new" / "people.db"))
    with pytest.raises(Interrupted):
        seeding.seed(url, SMALL, _interrupt_after(SMALL.rows // 2))
    assert list((tmp_path / "new").iterdir()) == []
    assert not seeding.is_seeded(url, SMALL)
    seeding.seed(url, SMALL)
    assert seeding.is_seeded(url, SMALL)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["people.db"]


def test_interrupted_seeding_of_a_server_leaves_what_was_there(postgres_url: URL) -> None:
    """The whole database that was there before is still there and still whole."""
    before = _count_rows(postgres_url)
    with pytest.raises(Interrupted):
        seeding.seed(postgres_url, SMALL, _interrupt_after(SMALL.rows // 2))
    assert seeding.is_seeded(postgres_url, Scale(users=300))
    assert _count_rows(postgres_url) == before


def test_killed_seeding_is_not_taken_for_a_database(tmp_path: Path) -> None:
    """A file whose last row is missing, however it came about, is seeded again."""
    path = tmp_path / "people.db"
    url = URL.create("sqlite", database=str(path))
    seeding.seed(url, SMALL)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM seeding")
    connection.close()
    assert not seeding.is_seeded(url, SMALL)
    seeding.seed(url, SMALL)
    assert seeding.is_seeded(url, SMALL)


def test_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A database with other tables is refused and not touched."""
    path = tmp_path / "precious.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (thing TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DemoError, match="not a database of this demo; name another file"):
        seeding.seed(URL.create("sqlite", database=str(path)), SMALL)
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """The message names the file and the option."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 500)
    with pytest.raises(
        DemoError, match=r"letter\.txt cannot be read as a SQLite database; name another with --database"
    ):
        seeding.is_seeded(URL.create("sqlite", database=str(path)), SMALL)


def test_folder_that_cannot_be_made_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """The message says what the system said, and names the option."""
    (tmp_path / "file").write_text("in the way")
    url = URL.create("sqlite", database=str(tmp_path / "file" / "people.db"))
    with pytest.raises(DemoError, match=r"cannot fill sqlite:.*choose another place with --database"):
        seeding.seed(url, SMALL)


def test_server_that_is_not_there_is_reported_without_its_password() -> None:
    """The message names the address; the password stays out."""
    url = URL.create("postgresql+psycopg", "ann", "s3cret", "127.0.0.1", 1, "people")
    with pytest.raises(DemoError, match="cannot reach postgresql") as caught:
        seeding.is_seeded(url, SMALL)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("user_id", [1, 2, 42, 150, 299, 300])
def test_profile_equals_one_computed_by_hand(database_url: URL, user_id: int) -> None:
    """Counts, rank, mutual followers and posts equal those that plain Python computes from the tables."""
    engine = seeding.open_engine(database_url, connections=1)
    with engine.connect() as connection:
        people = {row.id: row for row in connection.execute(select(users))}
        follow = [tuple(row) for row in connection.execute(select(follows.c.follower_id, follows.c.followee_id))]
        post = list(connection.execute(select(posts)))
        liked = Counter(connection.scalars(select(likes.c.post_id)))
        profile = read_profile(connection, user_id)
        assert read_profile(connection, 301) is None
    engine.dispose()

    followers = Counter(followee for _, followee in follow)
    mutual = sorted(
        ({a for a, b in follow if b == user_id} & {b for a, b in follow if a == user_id}),
        key=lambda other: (-followers[other], other),
    )
    own = sorted((row for row in post if row.user_id == user_id), key=lambda row: (row.created, row.id), reverse=True)
    assert profile is not None
    assert (profile.name, profile.joined) == (people[user_id].name, people[user_id].joined.isoformat())
    assert profile.followers == followers[user_id]
    assert profile.following == sum(follower == user_id for follower, _ in follow)
    assert profile.posts == len(own)
    assert profile.likes_received == sum(liked[row.id] for row in own)
    assert profile.rank == 1 + sum(followers[other] > followers[user_id] for other in people)
    assert profile.ranked_of == 300
    assert profile.mutual_count == len(mutual)
    assert [(other.id, other.name, other.followers) for other in profile.mutuals] == [
        (other, people[other].name, followers[other]) for other in mutual[:MUTUALS_SHOWN]
    ]
    assert [(shown.id, shown.body, shown.created, shown.likes) for shown in profile.recent_posts] == [
        (row.id, row.body, row.created.isoformat(), liked[row.id]) for row in own[:RECENT_POSTS]
    ]


def _count_rows(url: URL) -> list[int]:
    engine = seeding.open_engine(url, connections=1)
    with engine.connect() as connection:
        tables = ("users", "posts", "follows", "likes", "seeding")
        counts = [connection.scalar(text(f"SELECT count(*) FROM {seeding.SCHEMA}.{table}")) or 0 for table in tables]
    engine.dispose()
    return counts
