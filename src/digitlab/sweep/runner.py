"""Run cells of a sweep, one by one or many at once, and wait for those that run elsewhere."""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from hydra.core.utils import JobReturn, JobStatus

from digitlab.config.errors import UserError, one_line
from digitlab.platform import console
from digitlab.sweep.jobs import Detached, Jobs
from digitlab.sweep.plan import ELSEWHERE, SweepCell, add_up, duration, look_up, paces_of
from digitlab.sweep.rounds import Rounds
from digitlab.tracking import locks, queries
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store
from digitlab.tracking.turn import LOOK_AGAIN, UnderWayError

DEATHS = 4  # of its workers, until a cell is given up
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


@dataclass(frozen=True)
class Runner:
    """Runs cells as children of the run `parent`: one by one, or all at once, but as many as a budget can stop."""

    store: Store
    launch: Launch
    parent: Run
    at_once: int | None
    plan: Rounds
    is_shared: bool  # whether other hosts may do the same sweep
    jobs: Jobs | None  # where cells are jobs of a cluster

    def run(self, cells: Sequence[SweepCell], number: int = 0) -> Sequence[SweepCell]:
        """Run `cells` and set their status; return those for which there was no time left.

        Those that run elsewhere are waited for, and run here where they break off there. `number` is that of the first
        of them in the sweep.
        """
        refused: list[SweepCell] = []
        while cells:
            refused += self._run([cell for cell in cells if cell.status != ELSEWHERE], number)
            cells = self._wait([cell for cell in cells if cell.status == ELSEWHERE])
        return refused

    def _wait(self, cells: Sequence[SweepCell]) -> Sequence[SweepCell]:
        """Wait for cells that are under way elsewhere; return those that are not over, as soon as one can be run."""
        if cells and self.jobs and self.jobs.detaches:
            raise Detached
        is_told = False
        while True:
            look_up(self.store, cells)
            cells = [cell for cell in cells if not cell.is_over]
            if not cells or any(cell.status != ELSEWHERE for cell in cells):
                return cells
            if not is_told:
                console.say(f"{len(cells)} cells are under way elsewhere; waiting for them")
            is_told = True
            time.sleep(LOOK_AGAIN)

    def _run(self, cells: Sequence[SweepCell], number: int) -> Sequence[SweepCell]:
        refused: Sequence[SweepCell] = ()
        if self.jobs:
            if (new := self.jobs.left_out(cells)) and not self.plan.may_start(self.store, new):
                refused = new
            self.jobs.run(self.parent, [cell for cell in cells if cell not in refused], number)
            return refused
        one_by_one = self.at_once == 1
        size = (self.at_once if one_by_one or self.plan.has_budget else None) or max(len(cells), 1)
        try:
            paces = paces_of(self.store, cells) if one_by_one else {}
            for start in range(0, len(cells), size):
                some = cells[start : start + size]
                if self.is_shared and one_by_one:
                    look_up(self.store, some)
                    if some[0].is_over or some[0].status == ELSEWHERE:
                        continue
                if not self.plan.may_start(self.store, some):
                    refused = cells[start:]
                    break
                if one_by_one:
                    left = duration(add_up(paces, cells[start:]))
                    console.say(f"\ncell {start + 1} of {len(cells)}: {some[0].name}, {left} left")
                launch_all(self.store, some, self.launch, self.parent.id, number + start)
                if one_by_one:
                    paces |= paces_of(self.store, some)  # no other kind has a run more
        finally:
            ran = [cell for cell in cells if cell not in refused and cell.status != ELSEWHERE]
            look_up(self.store, ran, is_over=True)
        return refused


def launch_all(store: Store, cells: Sequence[SweepCell], launch: Launch, parent: str, number: int) -> None:
    """Run all `cells`, even if some fail, and note which failed and why.

    When worker processes die, joblib ends the others too and runs no more cells. New ones then go on with all cells but
    those that were running `DEATHS` times when that happened.
    """
    deaths: Counter[str] = Counter()
    while cells:
        try:
            results = launch([[*cell.overrides, f"sweep.parent={parent}"] for cell in cells], number)
        except Exception as error:
            console.warn(one_line(error))
            running, rest = _interrupted(store, cells)
            may_retry = isinstance(error, BrokenProcessPool)
            if not running:
                deaths["before any cell"] += 1
                if not may_retry or deaths["before any cell"] >= DEATHS:
                    raise UserError(f"no cell can be run: {one_line(error)}") from error
            for cell in running:
                deaths[cell.fingerprint] += 1
                if may_retry and deaths[cell.fingerprint] < DEATHS:
                    rest.append(cell)
                else:
                    times = f", {deaths[cell.fingerprint]} times" if may_retry else ""
                    cell.reason = f"its worker process died, or another one did ({type(error).__name__}){times}"
            cells = rest
            if cells and may_retry:
                console.say(f"starting new workers for {len(cells)} cells")
            continue
        for cell, result in zip(cells, results, strict=True):
            if result.status is JobStatus.FAILED:
                error = result._return_value  # the public property would raise it
                if isinstance(error, UnderWayError):
                    cell.status = ELSEWHERE
                    continue
                cell.status, cell.reason = "failed", one_line(error)
                if not isinstance(error, UserError | OSError):  # for these one line is enough
                    traceback.print_exception(error)
                console.warn(f"{cell.name} failed: {cell.reason}")
        return


def _interrupted(store: Store, cells: Sequence[SweepCell]) -> tuple[list[SweepCell], list[SweepCell]]:
    """Return those of `cells` that were running when the launcher failed, and those that had not started."""
    running, not_started = [], []
    for cell in cells:
        done, broken = queries.find(store, cell.fingerprint, cell.older)
        if broken and broken.info.status == "RUNNING" and locks.mark_dead_run(store, broken) == "KILLED":
            running.append(cell)
        elif not done:
            not_started.append(cell)
    return running, not_started
