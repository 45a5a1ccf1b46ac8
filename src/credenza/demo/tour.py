"""A tour of the running service over HTTP: what a cache promises, each promise checked."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .client import Client, Reply
from .rows import USER, Action, Probe, Row, count, differences, second_name, unlike
from .settings import Settings
from .stampede import REQUESTS
from .tour_workers import Control, WorkersTour
from .tour_writing import WritingTour

UNKNOWN_USER = 2_000_000_011
_MUCH_MORE = 5  # times as many queries without protection: the promise; it is usually all of them
_TRIES = 3  # of a stampede without protection: over few users a query may be over before the second visitor comes


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the strategy promises.

    Attributes:
        cold: `X-Cache` of the first read.
        warm: of the next one, and how many queries that costs.
        is_shared: whether one load serves a whole stampede.
        after_update: `X-Cache` of the first read after an update, and how many queries that costs.
        is_exact: whether it costs so many; else at most one for each worker, since the update may be heard of once more.
    """

    cold: tuple[str, ...]
    warm: tuple[str, ...]
    warm_queries: int
    is_shared: bool
    after_update: tuple[str, ...]
    after_update_queries: int
    is_exact: bool = True


_EXPECTED = {
    "cache-aside": _Expected(("miss",), ("hit",), 0, True, ("miss",), 1),
    "write-through": _Expected(("miss",), ("hit",), 0, True, ("hit",), 0),
    "write-behind": _Expected(("miss",), ("hit",), 0, True, ("hit",), 0),
    "no-cache": _Expected(("bypass",), ("bypass",), 1, False, ("bypass",), 1),
}


class Tour:
    """Drives one service.

    It expects to be alone with it: the queries of other visitors would be counted too.

    Args:
        client: speaks to the service.
        requests: how many a stampede has.
        control: what whoever started the service may do to it.
        settings: of the service, known to whoever started it; without them some steps are skipped.
    """

    def __init__(
        self,
        client: Client,
        *,
        requests: int = REQUESTS,
        control: Control | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._probe = Probe(client)
        self._settings = settings
        self._requests = requests
        self._control = control
        self._expected = _EXPECTED["cache-aside"]

    async def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """Go through all steps and return their rows; `on_row` gets each one as soon as it is known."""
        stats = await self._probe.stats()
        self._expected = _expected(stats["settings"])
        steps: list[Callable[[], Awaitable[Row]]] = [
            self._first_load,
            self._second_load,
            self._stampede_protected,
            self._stampede_unprotected,
            self._update,
            self._unknown_first,
            self._unknown_again,
        ]
        if stats["workers"] > 1:
            want = self._expected
            steps += WorkersTour(
                self._probe,
                stats["workers"],
                queries_after_update=want.after_update_queries if want.is_shared else None,
                is_exact=want.is_exact,
                control=self._control,
            ).steps()
        steps += WritingTour(self._probe, stats["settings"], self._settings).steps()
        rows: list[Row] = []
        for step in steps:
            rows.append(await step())
            on_row(rows[-1])
        return rows

    async def _first_load(self) -> Row:
        await self._probe.expire(USER)
        return await self._read("first load", USER, status=200, cache=self._expected.cold, queries=1)

    async def _second_load(self) -> Row:
        want = self._expected
        return await self._read("second load", USER, status=200, cache=want.warm, queries=want.warm_queries)

    async def _unknown_first(self) -> Row:
        await self._probe.expire(UNKNOWN_USER)
        return await self._read("unknown user", UNKNOWN_USER, status=404, cache=self._expected.cold, queries=1)

    async def _unknown_again(self) -> Row:
        cache, queries = self._expected.warm, self._expected.warm_queries
        return await self._read("unknown user again", UNKNOWN_USER, status=404, cache=cache, queries=queries)

    async def _stampede_protected(self) -> Row:
        await self._probe.expire(USER)
        most = 1 if self._expected.is_shared else self._requests

        def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
            yield from unlike(replies)
            if queries > most:
                yield count(queries)

        step = f"{self._requests} at once, protected"
        return await self._probe.measure(step, count(most), self._at_once("/user"), check)

    async def _stampede_unprotected(self) -> Row:
        def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
            yield from unlike(replies)
            if queries < _MUCH_MORE:
                yield f"only {count(queries)}: nothing to compare with"

        step, promise = f"{self._requests} at once, unprotected", f"{_MUCH_MORE} queries or more"

        async def attempt() -> Row:
            await self._probe.expire(USER)
            return await self._probe.measure(step, promise, self._at_once("/unprotected/user"), check)

        row = await attempt()
        for _ in range(_TRIES - 1):
            if row.queries < _MUCH_MORE:
                row = await attempt()
        return row

    async def _update(self) -> Row:
        want, probe, step = self._expected, self._probe, "update, then read"
        old = (await probe.get(USER)).body["name"]
        new = second_name(old)
        most = want.after_update_queries if want.is_exact else max(want.after_update_queries, 1)

        def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
            if replies[0].body.get("name") != new:
                yield f"the old name {replies[0].body.get('name')!r}"
            counted = queries if want.is_exact else max(queries, most)
            yield from differences(replies[0], counted, 200, cache, most)

        cache = want.after_update if want.is_exact else tuple(dict.fromkeys((*want.after_update, *want.cold)))
        cost = count(most) if want.is_exact else f"at most {count(most)}"
        async with probe.renaming(new, back=old) as put:
            if put.status != 200:
                return Row(step, "", 0, 0.0, "the new name", (f"the update answered {put.status}",))
            return await probe.measure(step, f"the new name, {_any_of(cache)}, {cost}", self._once(USER), check)

    async def _read(self, step: str, user_id: int, *, status: int, cache: tuple[str, ...], queries: int) -> Row:
        def check(replies: Sequence[Reply], counted: int) -> Iterable[str]:
            return differences(replies[0], counted, status, cache, queries)

        promise = f"{status}, {_any_of(cache)}, {count(queries)}"
        return await self._probe.measure(step, promise, self._once(user_id), check)

    def _once(self, user_id: int) -> Action:
        async def action() -> list[Reply]:
            return [await self._probe.get(user_id)]

        return action

    def _at_once(self, path: str) -> Action:
        return lambda: self._probe.client.send_at_once(f"{path}?id={USER}", self._requests)


def _expected(settings: dict[str, str]) -> _Expected:
    """Return what is promised; with a shared cache, what is at hand may also come from there."""
    want = _EXPECTED[settings["strategy"]]
    is_shared = "shared cache" in settings
    if "follows" in settings or (is_shared and settings["strategy"] == "write-behind"):
        want = replace(want, is_exact=False)
    if not is_shared:
        return want
    return replace(want, warm=_or_shared(want.warm), after_update=_or_shared(want.after_update))


def _or_shared(cache: tuple[str, ...]) -> tuple[str, ...]:
    return (*cache, "shared") if "hit" in cache else cache


def _any_of(words: tuple[str, ...]) -> str:
    return " or ".join(words)
