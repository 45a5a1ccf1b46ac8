"""The pure table in a process of its own, whatever runs here: P8.

Its peers take part there, in the same rounds; what it measured comes back as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import ours
from bench.goals import Result, compare, table_of
from bench.measure import Contender, Samples, measure, sync_timer
from bench.peers import MAXSIZE, SYNC_PEERS, TTL
from bench.scale import Scale
from bench.streams import HOT_KEYS, hot_stream

NAME = "credenza, pure table"
LOCKED, KEYED = "cachetools.cached, lock", "cachetools.cached, lock, key function"
SHOWN = ("functools.lru_cache", "cachebox.cached", LOCKED, KEYED)
CHILD_SECONDS = 300


def pure_environment() -> dict[str, str]:
    """Return the environment of a process in which the pure table runs."""
    return {**os.environ, "CREDENZA_PURE": "1"}


def pure_hits(scale: Scale) -> Result:
    """Compare a hit of the pure table with its peers."""
    samples = _in_child(scale.rounds)
    note = "Measured in a process of its own."
    said = ""
    if KEYED in samples.per_operation:
        said = f"{samples.ratio(NAME, KEYED).median:.3f} where cachetools has a key function too"
    lines = [("P8", LOCKED)] if LOCKED in samples.per_operation else []
    return Result(
        (compare("P8", samples, NAME, LOCKED, note=said, implementation="pure"),),
        (table_of("Hit of a decorated def, pure table", samples, base=NAME, note=note, lines=lines),),
    )


def _in_child(rounds: int) -> Samples:
    done = subprocess.run(
        [sys.executable, "-m", "bench.pure", str(rounds)],
        cwd=Path(__file__).resolve().parent.parent,
        env=pure_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=CHILD_SECONDS,
        check=True,
    )
    return Samples(**json.loads(done.stdout))


# In the child ---------------------------------------------------------------------------------------------------------


def hits_here(rounds: int) -> Samples:
    """Time hits in this process, which has to run the pure table."""
    assert ours.implementation() == "pure", f"the {ours.implementation()} table runs in spite of CREDENZA_PURE=1"
    builds = [
        (NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
        *((peer.name, peer.build, peer.setting) for peer in SYNC_PEERS if peer.name in SHOWN and peer.is_installed()),
    ]
    contenders = []
    for name, build, setting in builds:
        function = build(ours.load)
        for key in HOT_KEYS:
            function(key)
        contenders.append(Contender(name, sync_timer(function), setting))
    stream = hot_stream(10_000)
    return measure(contenders, lambda _: stream, rounds=rounds)


def main(rounds: int) -> None:
    """Print what was measured here."""
    samples = hits_here(rounds)
    json.dump({name: getattr(samples, name) for name in Samples.__slots__}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
