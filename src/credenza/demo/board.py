"""The counters of all workers: each row is written by one worker, and read by all."""

from typing import Protocol

_SUMS = (
    *("hits", "misses", "joined", "shared", "loads", "load_seconds", "failures", "evictions", "unshared"),
    *("queries", "cancelled", "forgotten"),
    *("edits", "statements", "rows", "recovered", "changes"),
)
"""What only grows; a worker that takes over a row goes on from where the last one stopped."""

_STATES = ("size", "flights", "running", "away", "stampedes", "pending", "bursts")
"""What is so now; with the worker it is gone."""

_COLUMNS = {name: column for column, name in enumerate((*_SUMS, *_STATES))}


class Cells(Protocol):
    """Numbers in a row: a list, or memory that processes share."""

    def __getitem__(self, index: int, /) -> float: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...


class Board:
    """A table of numbers, a row for each worker.

    Args:
        workers: how many rows there are.
        cells: where the numbers are kept; memory that processes share, unless there is only one. Each number is read and
            written whole.
    """

    def __init__(self, workers: int = 1, cells: Cells | None = None) -> None:
        self.workers = workers
        self._cells: Cells = [0.0] * cells_of(workers) if cells is None else cells

    def seat(self, worker: int) -> "Seat":
        """Return the row of a worker, counted from 0, to be written by that one alone."""
        return Seat(self, worker)

    def row(self, worker: int) -> dict[str, float]:
        """Return the numbers of one worker."""
        return {name: self.read(worker, name) for name in _COLUMNS}

    def total(self, name: str) -> float:
        """Return one number, summed over all workers."""
        return sum(self.read(worker, name) for worker in range(self.workers))

    def read(self, worker: int, name: str) -> float:
        """Return one number of one worker."""
        return self._cells[worker * len(_COLUMNS) + _COLUMNS[name]]

    def write(self, worker: int, name: str, value: float) -> None:
        """Set one number of one worker; for that worker's seat."""
        self._cells[worker * len(_COLUMNS) + _COLUMNS[name]] = value


class Seat:
    """One worker's row. Values are told as the worker counts them, from 0 on.

    Attributes:
        board: the whole table.
        worker: which row this is.
    """

    def __init__(self, board: Board, worker: int) -> None:
        self.board = board
        self.worker = worker
        self._before = {name: board.read(worker, name) for name in _SUMS}
        for name in _STATES:
            board.write(worker, name, 0.0)

    @property
    def name(self) -> str:
        """What visitors call this worker."""
        return str(self.worker + 1)

    def put(self, name: str, value: float) -> None:
        """Show a number to all."""
        self.board.write(self.worker, name, self._before.get(name, 0.0) + value)


def cells_of(workers: int) -> int:
    """Return how many numbers a board has."""
    return workers * len(_COLUMNS)
