"""The connections of the Redis tier: how many, whose, and when they end."""
# ruff: noqa: F811  # a fixture is imported, and is the name of an argument

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.support.forking import in_child
from tests.support.servers import RedisServer
from tests.support.servers.asking import PATIENCE_NS, SECOND_NS, Asking
from tests.support.servers.fixtures import asking  # noqa: F401  # a fixture
from tests.support.servers.impostors import Proxy, proxy_to
from tests.support.waiting import run, until, wait_until
from tests.tiers.places import NEVER_MS

from credenza.tiers.base import Announce, Get, Put, ReadHead, Reply, TierError
from credenza.tiers.redis import RedisTier

NAME, EPOCH = b"test:name", b"epoch--1"
WRITE = Put(NAME, b"envelope", 600_000, NEVER_MS)


def connections(server: RedisServer) -> int:
    """Return how many connections others than this question's have."""
    with server.client() as client:
        return len(client.client_list(_type="normal")) - 1


async def ask(tier: RedisTier) -> Reply:
    return (await tier.perform_async([Get(NAME)], PATIENCE_NS))[0]


# Whose ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_existing_client_names_the_server_for_both_colours(
    redis_server: RedisServer, asking: Asking, module: Any, decodes: bool, protocol: int
) -> None:
    """Neither its colour nor its protocol nor how it decodes matters; its database does, and it goes on working."""
    client = module.Redis.from_url(redis_server.url, db=3, decode_responses=decodes, protocol=protocol)
    first, second = asking(client)(WRITE, Get(NAME))
    assert first is True
    assert second.endswith(b"envelope")
    with redis_server.client(db=3) as third:
        assert third.exists(NAME)
    if module is redis:
        assert client.ping()
        client.close()


def test_client_on_a_unix_socket_is_taken(redis_server: RedisServer, asking: Asking) -> None:
    """Its path is the address."""
    with redis.Redis(unix_socket_path=str(redis_server.socket_path)) as client:
        assert asking(client)(WRITE) == [True]
    assert asking(redis_server.unix_url)(Get(NAME))[0].endswith(b"envelope")


def test_provider_of_credentials_is_asked(redis_server: RedisServer, asking: Asking) -> None:
    """User names and passwords that change come from redis-py's provider."""

    class Provider(redis.CredentialProvider):
        asked = 0

        def get_credentials(self) -> tuple[str, str]:
            Provider.asked += 1
            return "default", "whatever"  # the default user of a server without passwords has any

    with redis.Redis(port=redis_server.port, credential_provider=Provider()) as client:
        assert asking(client)(WRITE) == [True]
    assert Provider.asked == 1


def test_provider_of_credentials_that_fails_makes_the_tier_unreachable(
    redis_server: RedisServer, asking: Asking
) -> None:
    """Its error is that of a tier that is away, and its text, which may be secret, is not repeated."""

    class Provider(redis.CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            raise RuntimeError("swordfish")

    with redis.Redis(port=redis_server.port, credential_provider=Provider()) as client:
        with pytest.raises(TierError, match="credentials") as caught:
            asking(client)(WRITE)
        assert "swordfish" not in str(caught.value)


def test_client_name_is_shown_by_the_server(redis_server: RedisServer, asking: Asking) -> None:
    """`client_name` in the URL, or of a client, is that of the connection."""
    asking(f"{redis_server.url}?client_name=shop")(WRITE)
    with redis_server.client() as client:
        assert "shop" in {str(other["name"]) for other in client.client_list()}


# How many, and when they end ------------------------------------------------------------------------------------------


def test_idle_tier_has_no_connection(redis_server: RedisServer) -> None:
    """Nothing is connected before the first operation."""
    before = connections(redis_server)
    tier = RedisTier(redis_server.url)
    assert tier.perform([], PATIENCE_NS) == []
    assert connections(redis_server) == before
    tier.close()


def test_thread_alone_has_one_connection_beside_the_watching_one(redis_server: RedisServer) -> None:
    """One for operations and one that waits for news."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        tier.perform([ReadHead(EPOCH)], PATIENCE_NS)
        watching = threading.Thread(target=tier.watch, args=(0, 10 * SECOND_NS))
        watching.start()
        wait_until(lambda: proxy.accepted == 2, "the watching connection")
        for _ in range(3):
            tier.perform([Get(NAME)], PATIENCE_NS)
        tier.close()
        watching.join()
        assert proxy.accepted == 2


def test_tasks_of_a_loop_share_one_connection(redis_server: RedisServer) -> None:
    """However many ask at once, they take turns."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        records = await asyncio.gather(*(ask(tier) for _ in range(50)))
        assert records == [b""] * 50
        assert proxy.accepted == 1
        await tier.close_async()

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_closed_tier_leaves_no_connection_and_connects_anew(redis_server: RedisServer, asking: Asking) -> None:
    """`close` may be called again; whoever uses the tier afterwards finds it working."""
    before = connections(redis_server)
    caller = asking(redis_server.url)
    for _ in range(2):
        caller(WRITE)
        assert connections(redis_server) == before + 1
        caller.close()
        caller.tier.close()
        wait_until(lambda: connections(redis_server) == before, "the connection to end")
        caller = asking(redis_server.url)


def test_close_ends_a_watch_under_way(redis_server: RedisServer) -> None:
    """The thread that watches returns without an error, long before its timeout."""
    errors: list[BaseException] = []

    def watch() -> None:
        try:
            tier.watch(0, 3_600 * SECOND_NS)
        except BaseException as error:
            errors.append(error)

    with proxy_to(redis_server.port) as proxy, redis_server.client() as client:
        tier = RedisTier(proxy.url)
        tier.watch(0, 1_000_000)  # from here on its connection has been idle
        thread = threading.Thread(target=watch)
        thread.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1, "the server to block the watcher")
        tier.close()
        thread.join()
        assert not errors
        assert proxy.accepted == 1


def test_watch_returns_at_an_announcement(redis_server: RedisServer) -> None:
    """News end the waiting, and so do news that were there before."""
    tier = RedisTier(redis_server.url)
    thread = threading.Thread(target=tier.watch, args=(0, 3_600 * SECOND_NS))
    thread.start()
    with redis_server.client() as client:
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1, "the server to block the watcher")
    tier.perform([Announce(EPOCH, b"me", (NAME,))], PATIENCE_NS)
    thread.join()
    tier.watch(0, 3_600 * SECOND_NS)
    tier.close()


def test_forgotten_tier_leaves_no_connection(redis_server: RedisServer) -> None:
    """A tier that is collected without having been closed ends its connections, and nothing warns."""
    before = connections(redis_server)
    RedisTier(redis_server.url).perform([Get(NAME)], PATIENCE_NS)
    gc.collect()
    wait_until(lambda: connections(redis_server) == before, "the connection to end")


# Event loops ----------------------------------------------------------------------------------------------------------


def test_cancelled_batch_drops_its_connection(redis_server: RedisServer) -> None:
    """An answer under way is never taken for that of the next batch."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await tier.perform_async([WRITE, Put(b"test:other", b"other", 600_000, NEVER_MS)], PATIENCE_NS)
        proxy.hold()
        sent = proxy.requests
        task = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > sent, "the batch to be sent")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.let_go()
        for _ in range(3):
            (record,) = await tier.perform_async([Get(b"test:other")], PATIENCE_NS)
            assert record.endswith(b"other")
        assert proxy.accepted == 2
        await tier.close_async()

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_task_cancelled_while_it_waits_for_its_turn_disturbs_nobody(redis_server: RedisServer) -> None:
    """The batch under way goes on, on the same connection."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await ask(tier)
        proxy.hold()
        sent = proxy.requests
        first = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > sent, "the batch to be sent")
        second = asyncio.create_task(ask(tier))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        proxy.let_go()
        assert await first == b""
        assert await ask(tier) == b""
        assert proxy.accepted == 1
        await tier.close_async()

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_task_that_waits_for_its_turn_gives_up_in_time(redis_server: RedisServer) -> None:
    """The timeout covers the waiting for others."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await ask(tier)
        proxy.hold()
        sent = proxy.requests
        first = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > sent, "the batch to be sent")
        with pytest.raises(TierError, match="kept busy"):
            await tier.perform_async([Get(NAME)], SECOND_NS // 20)
        proxy.let_go()
        await first
        await tier.close_async()

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_thread_that_waits_for_a_connection_does_not_blame_the_server(redis_server: RedisServer) -> None:
    """Two batches that wait do not make a third one fail: its time begins with its turn."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        tier.perform([WRITE], PATIENCE_NS)
        proxy.hold()
        sent = proxy.requests
        replies: list[Reply] = []

        def look(timeout_ns: int) -> None:
            replies.extend(tier.perform([Get(NAME)], timeout_ns))

        busy = [threading.Thread(target=look, args=(PATIENCE_NS,)) for _ in range(2)]
        for thread in busy:
            thread.start()
        wait_until(lambda: proxy.requests > sent + 1, "both batches to be sent")
        third = threading.Thread(target=look, args=(2 * SECOND_NS,))
        third.start()
        third.join(0.05)
        assert proxy.accepted == 2
        proxy.let_go()
        for thread in (*busy, third):
            thread.join()
        assert len(replies) == 3
        assert proxy.accepted == 2
        tier.close()
        wait_until(lambda: not proxy.is_busy(), "the connections to end")


def test_close_of_a_loop_fails_its_batch_under_way(redis_server: RedisServer) -> None:
    """Nobody waits for a connection that was closed, and none is opened in its place."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await ask(tier)
        proxy.hold()
        sent = proxy.requests
        task = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > sent, "the batch to be sent")
        await tier.close_async()
        with pytest.raises(TierError):
            await task
        assert proxy.accepted == 1

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_close_while_a_thread_waits_for_an_answer_lets_it_have_it(redis_server: RedisServer) -> None:
    """Its connection ends as soon as it is done."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        tier.perform([WRITE], PATIENCE_NS)
        proxy.hold()
        sent = proxy.requests
        records: list[Reply] = []
        thread = threading.Thread(target=lambda: records.extend(tier.perform([Get(NAME)], PATIENCE_NS)))
        thread.start()
        wait_until(lambda: proxy.requests > sent, "the batch to be sent")
        tier.close()
        proxy.let_go()
        thread.join()
        assert records[0].endswith(b"envelope")
        wait_until(lambda: not proxy.is_busy(), "the connection to end")


def test_close_while_a_task_connects_leaves_no_connection(redis_server: RedisServer) -> None:
    """What comes about after the closing is closed at once."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(f"{proxy.url}/1")
        proxy.hold()
        task = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > 0, "the greeting to be sent")
        await tier.close_async()
        proxy.let_go()
        with pytest.raises(TierError, match="closed"):
            await task
        await until(lambda: not proxy.is_busy(), "the connection to end")

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_task_that_waited_for_its_turn_while_the_loop_was_closed_begins_anew(redis_server: RedisServer) -> None:
    """Its connection is one that the next closing finds."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await ask(tier)
        proxy.hold()
        sent = proxy.requests
        first = asyncio.create_task(ask(tier))
        await until(lambda: proxy.requests > sent, "the batch to be sent")
        second = asyncio.create_task(ask(tier))
        await asyncio.sleep(0)
        await tier.close_async()
        with pytest.raises(TierError):
            await first
        proxy.let_go()
        assert await second == b""
        await tier.close_async()
        await until(lambda: not proxy.is_busy(), "the connections to end")

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))


def test_loop_that_ends_closes_its_connection(redis_server: RedisServer) -> None:
    """`asyncio.run` leaves none behind, though nobody closed the tier; each loop has its own."""
    before = connections(redis_server)
    tier = RedisTier(redis_server.url)
    for _ in range(3):
        asyncio.run(ask(tier))
        wait_until(lambda: connections(redis_server) == before, "the loop's connection to end")
    tier.close()


def closed_without_a_word(tier: RedisTier) -> None:
    """Use a tier on a loop that is closed without shutting its generators down."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask(tier))
    loop.close()


@pytest.mark.parametrize(
    "find",
    [lambda tier: asyncio.run(ask(tier)), lambda tier: tier.close(), None],
    ids=["another loop", "close", "collected"],
)
def test_loop_that_died_leaves_no_connection(
    redis_server: RedisServer, find: Callable[[RedisTier], None] | None
) -> None:
    """Its connection is closed by whoever comes next, and nothing warns."""
    before = connections(redis_server)
    tier = RedisTier(redis_server.url)
    closed_without_a_word(tier)
    if find is not None:
        find(tier)
        wait_until(lambda: connections(redis_server) == before, "the dead loop's connection to end")
    del tier
    gc.collect()
    wait_until(lambda: connections(redis_server) == before, "the dead loop's connection to end")


def test_loops_of_several_threads_do_not_meet(redis_server: RedisServer) -> None:
    """Each has a connection of its own and its own answers."""
    tier = RedisTier(redis_server.url)
    wrong: list[object] = []

    async def main(number: int) -> None:
        for turn in range(20):
            name, envelope = b"test:%d" % number, b"%d-%d" % (number, turn)
            _, record = await tier.perform_async([Put(name, envelope, 60_000, NEVER_MS), Get(name)], PATIENCE_NS)
            if not record.endswith(b"\0" + envelope):
                wrong.append(record)
        await tier.close_async()

    threads = [threading.Thread(target=asyncio.run, args=(main(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Forks ----------------------------------------------------------------------------------------------------------------


def test_forked_child_has_connections_of_its_own(redis_server: RedisServer) -> None:
    """The child's answers are its own, the parent's connection is neither used nor ended by it."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        tier.perform([WRITE], PATIENCE_NS)

        def child() -> bool:
            tier.forget_parent()
            record = tier.perform([Get(NAME)], PATIENCE_NS)[0]
            tier.close()
            return bool(record.endswith(b"envelope"))

        assert in_child(child) == "True"
        assert proxy.accepted == 2
        assert tier.perform([Get(NAME)], PATIENCE_NS)[0].endswith(b"envelope")
        assert proxy.accepted == 2
        tier.close()


def test_fork_amid_a_batch_leaves_the_child_free(redis_server: RedisServer) -> None:
    """The lock that another thread of the parent held does not block the child."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        tier.perform([WRITE], PATIENCE_NS)
        proxy.hold()
        sent = proxy.requests
        thread = threading.Thread(target=tier.perform, args=([Get(NAME)], PATIENCE_NS))
        thread.start()
        wait_until(lambda: proxy.requests > sent, "the batch to be sent")

        def child() -> str:
            tier.forget_parent()
            try:
                tier.perform([Get(NAME)], SECOND_NS // 20)
            except TierError as error:
                return str(error)
            return "answered"

        assert "in time" in in_child(child)  # the proxy holds its answer back: it came as far as that
        proxy.let_go()
        thread.join()
        tier.close()


def test_fork_within_a_loop_leaves_the_parents_connection_alone(redis_server: RedisServer) -> None:
    """What the child drops is not unregistered from the selector that it shares with its parent."""

    async def main(proxy: Proxy) -> None:
        tier = RedisTier(proxy.url)
        await tier.perform_async([WRITE], PATIENCE_NS)

        def child() -> bool:
            tier.forget_parent()
            gc.collect()
            record = tier.perform([Get(NAME)], PATIENCE_NS)[0]
            tier.close()
            return bool(record.endswith(b"envelope"))

        assert in_child(child) == "True"
        assert (await ask(tier)).endswith(b"envelope")
        assert proxy.accepted == 2
        await tier.close_async()

    with proxy_to(redis_server.port) as proxy:
        run(main(proxy))
