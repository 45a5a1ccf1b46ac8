"""What goes wrong besides messages: pauses, kills, cut lines, a tier that forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .history import SECOND

if TYPE_CHECKING:
    from .process import Process
    from .world import World

NEMESIS = "nemesis"


class Nemesis:
    """An actor that does harm now and then, until the clients have ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._left = world.rng.randrange(3, 15)  # so many faults, or a process may never get anywhere
        self._undo: list[tuple[int, Process, str]] = []

    def begin(self) -> None:
        config = self._world.config
        if config.pauses or config.kills or config.cuts or config.jumps or config.evictions or config.losses:
            self._world.simulation.begin_task(self._work(), name=NEMESIS, group=NEMESIS)

    async def _work(self) -> None:
        simulation = self._world.simulation
        while not self._world.is_audit:
            next_ns = simulation.now_ns + int(10 ** self._rng.uniform(6.5, 9.3))
            if self._undo:
                next_ns = min(next_ns, self._undo[0][0])
            await simulation.suspend(max(next_ns, simulation.now_ns + 1))
            if self._world.is_audit:
                return
            if simulation.is_nested():
                continue  # a process is stopped between the steps of its actors
            self._mend(simulation.now_ns)
            if self._left:
                self._harm(simulation.now_ns)

    def _mend(self, now_ns: int) -> None:
        while self._undo and self._undo[0][0] <= now_ns:
            _, process, what = self._undo.pop(0)
            if what == "pause":
                process.resume()
            else:
                self._world.network.cut.discard(process.number)
                self._world.history.fault("mends", f"the line of {process.name}")

    def _harm(self, now_ns: int) -> None:
        config, network, history = self._world.config, self._world.network, self._world.history
        alive = [process for process in self._world.processes if process.is_alive]
        process = self._rng.choice(alive)
        if self._happens(config.pauses * (3 if process.is_keeping_up else 1)) and not process.is_paused:
            process.pause()
            self._later(now_ns + self._length(), process, "pause")
        if self._happens(config.cuts) and process.number not in network.cut:
            network.cut.add(process.number)
            history.fault("cuts", f"the line of {process.name}")
            self._later(now_ns + self._length(), process, "cut")
        if self._happens(config.kills) and len(alive) > 1 and not process.is_paused:
            process.kill()
        if self._happens(config.jumps):
            jump_ms = self._rng.randrange(1, 3000)
            network.jumped_ms += jump_ms
            history.fault("jumps", f"the tier's clock by {jump_ms} ms")
        if self._happens(config.evictions):
            self._evict()
        if self._happens(config.losses):
            network.forget_all()
            history.fault("loses", "the tier loses its memory")
            history.upset(None)

    def _evict(self) -> None:
        network = self._world.network
        names = sorted(name for name, (record, _) in network.shelf.held.items() if record[:1] in (b"V", b"L"))
        if names:
            name = self._rng.choice(names)
            network.shelf.forget(name)
            self._world.history.note("the tier evicts", name.decode())
            self._world.history.upset(name.removeprefix(b"n:").decode())

    def _happens(self, rate: float) -> bool:
        happens = bool(rate) and self._left > 0 and self._rng.random() < rate
        self._left -= happens
        return happens

    def _length(self) -> int:
        """Return how long something lasts: mostly shorter than a proof, sometimes longer than a fence."""
        return int(10 ** self._rng.uniform(7, 10.2)) if self._rng.random() < 0.8 else 6 * SECOND

    def _later(self, at_ns: int, process: Process, what: str) -> None:
        self._undo.append((at_ns, process, what))
        self._undo.sort(key=lambda each: each[0])
