"""The tables of the demo: people, what they write, whom they follow and what they like."""

from sqlalchemy import Column, Date, ForeignKey, Index, Integer, MetaData, String, Table

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(120), nullable=False),
    Column("email", String(254), nullable=False),
    Column("city", String(80), nullable=False),
    Column("bio", String(200), nullable=False),
    Column("joined", Date, nullable=False),
)

posts = Table(
    "posts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("body", String(400), nullable=False),
    Column("created", Date, nullable=False),
    Index("posts_by_user", "user_id", "created"),
)

follows = Table(
    "follows",
    metadata,
    Column("follower_id", Integer, ForeignKey("users.id"), primary_key=True),
    Column("followee_id", Integer, ForeignKey("users.id"), primary_key=True),
    Index("follows_by_followee", "followee_id", "follower_id"),
)

likes = Table(
    "likes",
    metadata,
    Column("post_id", Integer, ForeignKey("posts.id"), primary_key=True),
    Column("user_id", Integer, ForeignKey("users.id"), primary_key=True),
)

# Written last: a database without this row is not a whole one.
seeding = Table(
    "seeding",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("users", Integer, nullable=False),
    Column("random_seed", Integer, nullable=False),
)
