"""What the processes of a crowd do; imported by each of them."""

import asyncio
import time
from typing import Any

from credenza import Cache

HELD_SECONDS = 0.2
TASKS = 200


def read_together(url: str, start: Any, loads: Any, results: Any) -> None:
    """Read one cold key with many tasks when all processes are ready; count the loads of all of them."""
    cache: Cache[str, str] = Cache.from_url(url, tier_timeout=10)

    async def load() -> str:
        with loads.get_lock():
            loads.value += 1
        await asyncio.sleep(HELD_SECONDS)
        return "value"

    async def main() -> list[str]:
        start.wait(60)
        values = await asyncio.gather(*[cache.aio.get_or_load("cold", load) for _ in range(TASKS)])
        await cache.aio.close()
        return values

    results.put(sorted(set(asyncio.run(main()))))


def load_for_ever(url: str, loads: Any, is_loading: Any) -> None:
    """Begin a load that does not end."""
    cache: Cache[str, str] = Cache.from_url(url, tier_timeout=10)

    def load() -> str:
        with loads.get_lock():
            loads.value += 1
        is_loading.set()
        time.sleep(600)
        return "never"

    cache.get_or_load("cold", load)
