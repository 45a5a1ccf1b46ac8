"""One simulation: processes over one tier, their clients, and what is recorded of them."""

from __future__ import annotations

from credenza.runtime.actors import Carriers
from credenza.runtime.simulation import Simulation

from .clients import Clients
from .database import Database
from .history import NEVER, SECOND, History
from .nemesis import Nemesis
from .process import Process
from .situations import config_under
from .tier import Network

_PATIENCE_NS = 300 * SECOND
"""Longer than all calls take one after the other; who is not done by then hangs."""

_MOST_ROUNDS = 100


class World:
    """Runs one seed, under a situation if one is named.

    Attributes:
        history: what happened.
        is_audit: the last phase, in which nothing goes wrong any more.
    """

    def __init__(self, seed: int, carriers: Carriers, situation: str | None = None) -> None:
        config = self.config = config_under(situation, seed)
        self.simulation = Simulation(
            seed,
            carriers,
            preempt_rate=config.preempt_rate,
            lag_rate=config.lag_rate,
            load_fault_rate=config.fault_rate / 2,
        )
        self.rng = self.simulation.random
        self.history = History(lambda: (self.simulation.now_ns, self.actor_name()))
        self.is_audit = False
        self.network = Network(self.simulation, self.history, config)
        self.database = Database(self)
        self.processes = [Process(self, number + 1) for number in range(config.processes)]
        self.network.processes = self.processes
        self.clients = Clients(self)
        self.nemesis = Nemesis(self)

    def actor_name(self) -> str:
        current = self.simulation.current
        return current.name if current is not None else "-"

    def some_time(self, pace: float) -> int:
        """Return how long something takes, in nanoseconds: often no time, and short times are as likely as long ones."""
        draw = self.rng.random()
        if draw < 0.35 or self.is_audit:
            return 0
        return int(pace * 10 ** self.rng.uniform(6, 9.3)) if draw < 0.97 else 3 * SECOND

    def goes_wrong(self, rate: float) -> bool:
        return bool(rate) and not self.is_audit and self.rng.random() < rate

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Let the clients call, then let everything come to rest, then look at what is left."""
        try:
            self.clients.begin()
            self.nemesis.begin()
            self._run_until_done()
            if not self.history.broken:
                self._calm_down()
            if not self.history.broken:
                self._look()
            if self.simulation.lag_ns > SECOND:
                self.history.faults.append((0, NEVER, "starves"))  # somewhere; a keeper may have come too late
        finally:
            self.network.is_closed = True
            self.simulation.close()
            for process in self.processes:
                process.forget_functions()
        return self.history

    def _run_until_done(self) -> None:
        """Run until the clients that live have ended. Whoever is paused goes on in the end."""
        ends_ns = self.simulation.now_ns + _PATIENCE_NS
        while self._busy() and self.simulation.now_ns < ends_ns:
            self.simulation.run(lasts_ns=SECOND // 5)
        self.history.broken.extend(f"{actor.name} never ended" for actor in self._busy())

    def _busy(self) -> list[object]:
        killed = {process.name for process in self.processes if not process.is_alive}
        return [actor for actor in self.clients.actors if not actor.is_done and actor.group not in killed]

    def _calm_down(self) -> None:
        """Stop the faults; let fences and leases of the dead expire; let the living deliver what they owe; read everything."""
        self.is_audit = self.network.is_calm = True
        self.simulation.lag_rate = 0.0
        self.history.note("from here on nothing goes wrong")
        self.network.cut.clear()
        for process in self.processes:
            process.resume()
        living = [process for process in self.processes if process.is_alive]
        for process in living:
            self.simulation.freeze(process.name)
        ends_ns = self.simulation.now_ns + 11 * SECOND
        self.simulation.run(lasts_ns=ends_ns - self.simulation.now_ns)
        self.simulation.now_ns = max(ends_ns, self.simulation.now_ns)
        for process in living:
            self.simulation.thaw(process.name)
        for _ in range(_MOST_ROUNDS):
            self.simulation.run(lasts_ns=SECOND // 4)  # all proofs have ended by now
            if not any(process.shared.breaker.is_away or process.shared.owed for process in living):
                break
        self.history.note("the audit begins")
        self.clients.audit()
        self._run_until_done()

    def _look(self) -> None:
        """See that nothing is held that nobody needs."""
        living = [process for process in self.processes if process.is_alive]
        if any(leftovers(process) for process in living) or self.network.leftovers():
            self.simulation.run(lasts_ns=5 * SECOND)
        for process in living:
            self.history.broken.extend(f"{process.name}: {what}" for what in leftovers(process))
        self.history.broken.extend(f"the tier still has {what}" for what in self.network.leftovers())


def leftovers(process: Process) -> list[str]:
    """Return what a process that rests should not have."""
    state, shared = process.state, process.shared
    left = {
        "flights": state.flights,
        "look-ups": state.looks,
        "leases": shared.leases,
        "fences": shared.barriers,
        "local fences": bool(state.fences),
        "owed invalidations": len(shared.owed) or process.owing,
        "an unreachable tier": shared.breaker.is_away,
    }
    return [f"{what} are left over: {value}" for what, value in left.items() if value]
