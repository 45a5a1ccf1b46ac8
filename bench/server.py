"""The server that the shared tiers are compared on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

from bench.goals import GOALS, Outcome, Result
from bench.peers import is_installed
from bench.records import PLAIN, TTL, USERS, encoder
from bench.scale import Scale

NEEDED = ("redis", "hiredis", "msgspec")
NO_SERVER = "not measured: no redis-server"

OnServer = Callable[[Scale, str], Result]


def on_redis(*numbers: str) -> Callable[[OnServer], Callable[[Scale], Result]]:
    """Give a comparison the URL of a server that runs for it alone; without one its goals are not measured."""

    def decorate(comparison: OnServer) -> Callable[[Scale], Result]:
        @functools.wraps(comparison)
        def on_server(scale: Scale) -> Result:
            missing = [package for package in NEEDED if not is_installed(package)]
            if missing:
                return unmeasured(numbers, f"not measured: {', '.join(missing)} not installed")
            from tests.support.servers import NoServerError, running_redis

            with contextlib.ExitStack() as stack:
                try:
                    server = stack.enter_context(running_redis())
                except NoServerError:
                    return unmeasured(numbers, NO_SERVER)
                return comparison(scale, server.url)

        return on_server

    return decorate


def unmeasured(numbers: tuple[str, ...], why: str) -> Result:
    """Return the goals without figures."""
    return Result([Outcome(GOALS[number], None, note=why) for number in numbers])


def keep_plain_records(url: str) -> None:
    """Store the records as redis-py reads them: encoded, nothing around."""
    import redis

    encode = encoder()
    with redis.Redis.from_url(url) as client:
        for key, user in USERS.items():
            client.set(PLAIN + key, encode(user), ex=TTL)


def version_of(url: str) -> str:
    """Return which server answers at an address."""
    import redis

    with redis.Redis.from_url(url) as client:
        found = client.info("server")
    return f"Redis {found['redis_version']} on loopback"
