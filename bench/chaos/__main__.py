"""Run the cache under faults, level by level, and say whether each kept its promise and each control was caught."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.servers import NoServerError, running_postgres

from bench.chaos.plan import ARMS, CONTROLS, Arm
from bench.chaos.report import as_text, write_json
from bench.chaos.run import Outcome, run

_CONTROL_SHARE = 0.5
"""A control runs for so much of the time of the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 if a promise was broken or a control was not caught."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    arms = _arms(options)
    shares = {arm.name: _CONTROL_SHARE if arm.is_control else 1.0 for arm in arms}
    unit = options.seconds / sum(shares.values())
    outcomes: list[Outcome] = []
    try:
        with running_postgres() if options.postgres else contextlib.nullcontext() as postgres:
            for number, arm in enumerate(arms):
                print(f"{arm.name} ...", file=sys.stderr, flush=True)
                outcomes.append(run(arm, unit * shares[arm.name], seed + number, postgres=postgres))
    except NoServerError as error:
        print(error, file=sys.stderr)
        return 2
    print(as_text(outcomes, seed))
    if options.json is not None:
        write_json(outcomes, seed, options.json)
    return int(not all(outcome.is_as_promised for outcome in outcomes))


def _arms(options: argparse.Namespace) -> list[Arm]:
    arms = [] if options.control else [arm for arm in ARMS if options.coherence in ("all", arm.coherence)]
    if options.memory is not None:
        arms = [arm for arm in arms if arm.memory == options.memory]
    has_controls = options.control or (options.coherence == "all" and options.memory is None)
    return [*arms, *CONTROLS] if has_controls else arms


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long in all, starts not counted")
    parser.add_argument("--coherence", default="all", choices=("all", "strict", "bounded", "invalidate", "ttl"))
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, help="only with, or only without memory tier"
    )
    parser.add_argument("--seed", type=int, help="of the faults; what the processes do is up to the machine, too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--control", action="store_true", help="only the controls, which are to be caught")
    parser.add_argument("--postgres", action="store_true", help="the rows in PostgreSQL instead of a SQLite file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
