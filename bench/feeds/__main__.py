"""Follow databases that foreign clients change: is anything stale, how long does it take, and what do triggers cost?"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.feeds.places import KINDS, Place, place_of
from tests.feeds.postgres_server import PostgresServer, running_postgres
from tests.support.servers import NoServerError

from bench.feeds import cost, lag, report
from bench.feeds.sabotage import CONTROLS, sabotaged
from bench.feeds.storm import Storm

_CHANGES_OF_A_CHECK = 1_000
_TRIES_OF_A_CONTROL = 3
_CHANGES_OF_A_CONTROL = 10_000


class Ground:
    """Where databases are made."""

    def __init__(self, server: PostgresServer | None, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def place(self, kind: str) -> contextlib.AbstractContextManager[Place]:
        """A new database."""
        return place_of(kind, self.server, self.folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 if something was stale or a control was not caught."""
    options = _parser().parse_args(arguments)
    kinds = KINDS if options.kind == "all" else (options.kind,)
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    is_all = not (options.storm or options.lag or options.cost)
    found: dict[str, Any] = {"seed": seed}
    has_failed = False
    try:
        with _quietly(), _ground(kinds) as ground:
            if options.storm or is_all:
                storms = list(_storms(ground, kinds, options.changes, seed))
                print(report.storms_as_text(storms))
                found["storms"] = [report.storm_as_data(storm) for storm in storms]
                has_failed = not all(storm.is_as_promised for storm in storms)
            if options.lag or is_all:
                lags = [each for kind in kinds for each in _lags(ground, kind, options.samples)]
                print(lag.as_text(lags))
                found["lag"] = [lag.as_data(each) for each in lags]
            if options.cost or is_all:
                costs = [cost.measure(ground.place, kind, options.rounds) for kind in kinds if kind != "logical"]
                print(cost.as_text(costs))
                found["cost"] = [cost.as_data(each) for each in costs]
    except NoServerError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json is not None:
        report.write_json(found, options.json)
    return int(has_failed)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Do not print what followers say when they are cut off."""
    log = logging.getLogger("credenza")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _ground(kinds: Sequence[str]) -> Iterator[Ground]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="credenza-feeds-")))
        server = stack.enter_context(running_postgres()) if set(kinds) - {"sqlite"} else None
        yield Ground(server, folder)


def _storms(ground: Ground, kinds: Sequence[str], changes: int, seed: int) -> Iterator[report.Blown]:
    for kind in kinds:
        print(f"a storm over {kind} ...", file=sys.stderr, flush=True)
        with ground.place(kind) as place:
            storm = Storm(place, seed, changes, checks=max(1, changes // _CHANGES_OF_A_CHECK))
            storm.run()
        yield report.Blown(kind, "", seed, storm.tally)
        for control in CONTROLS[kind]:
            print(f"a storm over {kind}, with a follower that {control} ...", file=sys.stderr, flush=True)
            yield controlled(ground, kind, control, seed)


def controlled(ground: Ground, kind: str, control: str, seed: int) -> report.Blown:
    """Return the first storm that catches a broken follower, or the last of some."""
    for number in range(seed, seed + _TRIES_OF_A_CONTROL):
        with ground.place(kind) as place:
            storm = Storm(
                place,
                number,
                _CHANGES_OF_A_CONTROL,
                checks=_CHANGES_OF_A_CONTROL // 250,
                new_feed=sabotaged(place, control),
            )
            if storm.run(is_control=True):
                break
    return report.Blown(kind, control, number, storm.tally)


def _lags(ground: Ground, kind: str, samples: int) -> Iterator[lag.Lags]:
    for load in lag.LOADS:
        print(f"the lag over {kind}, {load} ...", file=sys.stderr, flush=True)
        with ground.place(kind) as place:
            yield lag.measure(place, load, samples)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.feeds", description=__doc__)
    parser.add_argument("--storm", action="store_true", help="only whether anything stale is left, with controls")
    parser.add_argument("--lag", action="store_true", help="only how long an invalidation takes after the commit")
    parser.add_argument("--cost", action="store_true", help="only what triggers cost writers")
    parser.add_argument("--kind", default="all", choices=("all", *KINDS))
    parser.add_argument("--changes", type=int, default=100_000, help="of a storm, controls apart")
    parser.add_argument("--samples", type=int, default=2_000, help="of the lag, for each kind and load")
    parser.add_argument("--rounds", type=int, default=9, help="of the cost")
    parser.add_argument("--seed", type=int, help="of what is written; when it is committed is up to the machine, too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
