"""Simulations of the protocol by hand.

    python -m tests.support.protocol 4711                          replay a seed: its interleaving, and what is wrong with it
    python -m tests.support.protocol --seeds 0 20000               explore seeds 0 to 19999; print those that fail, at most three
    python -m tests.support.protocol --seeds 0 2000 --mutant NAME  the same with a mutant of the core (see mutants.py)
    python -m tests.support.protocol --seeds 0 2000 --under NAME   the same under a situation (see situations.py)

A mutant that needs a situation is looked for under it. The exit status is 1 if a promise is broken. `--jobs 2` spreads the
seeds over processes.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import subprocess
import sys
import time

from .mutants import NEEDS, mutated
from .run import carriers, failing, run_one
from .situations import SITUATIONS

_MOST_SHOWN = 3


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(prog="tests.support.protocol", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", nargs=2, type=int)
    parser.add_argument("--mutant")
    parser.add_argument("--under", choices=SITUATIONS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--most", type=int, default=_MOST_SHOWN)
    parser.add_argument("--brief", action="store_true")
    options = parser.parse_args(arguments)
    if options.seeds and options.jobs > 1:
        return _spread(arguments, options)
    gc.set_threshold(20_000, 50, 50)  # every world is a circle; the default spends a fifth of the time on them
    situation = options.under or NEEDS.get(options.mutant)
    began = time.monotonic()
    with carriers() as lent, mutated(options.mutant) if options.mutant else contextlib.nullcontext():
        if options.seeds:
            reports = []
            for report in itertools.islice(failing(range(*options.seeds), lent, situation), options.most):
                reports.append(report)
                text = (
                    f"{report.seed}: {report.about}\n  " + "\n  ".join(report.violations)
                    if options.brief
                    else str(report)
                )
                sys.stdout.write(f"{text}\n\n")
                sys.stdout.flush()
        else:
            reports = [run_one(options.seed, lent, situation)]
            sys.stdout.write(f"{reports[0]}\n")
    if options.seeds:
        first, last = options.seeds
        sys.stdout.write(f"{last - first} seeds from {first} in {time.monotonic() - began:.0f} s\n")
    return 1 if any(report.violations for report in reports) else 0


def _spread(arguments: list[str], options: argparse.Namespace) -> int:
    first, last = options.seeds
    rest = [part for part in ("--brief",) if options.brief] + ["--most", str(options.most)]
    rest += ["--mutant", options.mutant] if options.mutant else []
    rest += ["--under", options.under] if options.under else []
    bounds = [first + (last - first) * number // options.jobs for number in range(options.jobs + 1)]
    jobs = [
        subprocess.Popen([sys.executable, "-m", "tests.support.protocol", "--seeds", str(low), str(high), *rest])
        for low, high in itertools.pairwise(bounds)
    ]
    return max([job.wait() for job in jobs])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
