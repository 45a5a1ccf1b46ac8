"""Simulations by hand.

    python -m tests.support.simulation 4711              replay a seed: its interleaving, and the rules that it breaks
    python -m tests.support.simulation 0 20000           explore seeds 0 to 19999; print those that break a rule, at most three
    python -m tests.support.simulation 0 2000 NAME       the same with a mutant of the core (see mutants.py)

The exit status is 1 if a rule is broken. The package has to be importable: run it in the virtual environment of
`make test`, or with `PYTHONPATH=src`.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys

from .mutants import mutated
from .run import carriers, failing, run_one

_MOST_SHOWN = 3


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    if not arguments:
        sys.stdout.write(__doc__ or "")
        return 2
    gc.set_threshold(20_000, 50, 50)  # every world is a circle; the default spends a fifth of the time on them
    with carriers() as lent, mutated(arguments[2]) if len(arguments) > 2 else contextlib.nullcontext():
        if len(arguments) == 1:
            reports = [run_one(int(arguments[0]), lent)]
        else:
            seeds = range(int(arguments[0]), int(arguments[1]))
            reports = list(itertools.islice(failing(seeds, lent), _MOST_SHOWN))
    for report in reports:
        sys.stdout.write(f"{report}\n\n")
    return 1 if any(report.violations for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
