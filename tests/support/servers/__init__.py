"""Real servers for tests: Redis and Valkey, alone, as a cluster, and behind a sentinel; PostgreSQL."""

from .binaries import SERVERS, NoServerError, find_server
from .groups import Cluster, SentinelSetup, running_cluster, running_sentinel
from .postgres import running_postgres
from .redis_server import RedisServer, free_port, running_redis

__all__ = [
    "SERVERS",
    "Cluster",
    "NoServerError",
    "RedisServer",
    "SentinelSetup",
    "find_server",
    "free_port",
    "running_cluster",
    "running_postgres",
    "running_redis",
    "running_sentinel",
]
