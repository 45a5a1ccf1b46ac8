"""Kill writers with write-behind again and again, and say whether anything that was acknowledged is missing."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.servers import NoServerError, running_postgres

from bench.kills import outage
from bench.kills.nursery import Nursery
from bench.kills.plan import ARMS, CONTROLS, Arm
from bench.kills.report import as_text, write_json
from bench.kills.run import Outcome, Places, run

_MOST_KILLS_OF_A_CONTROL = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 if something was lost or a control was not caught."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    try:
        with contextlib.ExitStack() as stack:
            postgres = stack.enter_context(running_postgres()) if options.source == "postgres" else None
            places = Places(postgres, on_redis=options.journal == "redis")
            nursery = stack.enter_context(Nursery())
            return (_kills if options.outage is None else _outages)(options, seed, places, nursery)
    except NoServerError as error:
        print(error, file=sys.stderr)
        return 2


def _kills(options: argparse.Namespace, seed: int, places: Places, nursery: Nursery) -> int:
    arms = _arms(options)
    share = -(-options.rounds // max(1, sum(not arm.is_control for arm in arms)))
    outcomes: list[Outcome] = []
    for number, arm in enumerate(arms):
        print(f"{arm.name} ...", file=sys.stderr, flush=True)
        kills = _MOST_KILLS_OF_A_CONTROL if arm.is_control else share
        outcomes.append(run(arm, kills, seed + number, places, nursery))
    heading = f"journal {options.journal}, source {options.source}, seed {seed}"
    print(as_text(outcomes, heading))
    if options.json is not None:
        write_json(outcomes, heading, options.json)
    return int(not all(outcome.is_as_promised for outcome in outcomes))


def _arms(options: argparse.Namespace) -> list[Arm]:
    arms = [] if options.control else [arm for arm in ARMS if options.delivery in ("all", arm.delivery)]
    controls = [arm for arm in CONTROLS if options.journal == "sqlite" or arm.sabotage != "forgets"]
    return [*arms, *(controls if options.control or options.delivery == "all" else ())]


def _outages(options: argparse.Namespace, seed: int, places: Places, nursery: Nursery) -> int:
    outcomes = []
    for when_full in ("block", "raise"):
        print(f"the source is away for {options.outage:g} s, {when_full} ...", file=sys.stderr, flush=True)
        outcomes.append(outage.run(when_full, options.outage, seed, places, nursery, bound=options.bound))
    print(outage.as_text(outcomes))
    return int(not all(outcome.is_as_promised for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000, help="how many writers are killed in all, controls apart")
    parser.add_argument("--source", default="sqlite", choices=("sqlite", "postgres"))
    parser.add_argument("--journal", default="sqlite", choices=("sqlite", "redis"))
    parser.add_argument("--delivery", default="all", choices=("all", "at least once", "exactly once"))
    parser.add_argument("--seed", type=int, help="of the orders; what the processes do is up to the machine, too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--control", action="store_true", help="only the controls, which are to be caught")
    parser.add_argument(
        "--outage", type=float, metavar="SECONDS", help="instead: the source is away for so long under load"
    )
    parser.add_argument("--bound", type=int, default=20_000, help="of the journal in an outage")
    return parser


if __name__ == "__main__":
    sys.exit(main())
