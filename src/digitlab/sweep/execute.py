"""Run the remaining cells of a sweep, and report the status of every cell."""

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from digitlab.config.errors import UserError, one_line, user_errors
from digitlab.platform import console
from digitlab.platform.signals import exit_on_signals
from digitlab.sweep.jobs import Detached, Jobs
from digitlab.sweep.plan import (
    ELSEWHERE,
    Compose,
    SweepCell,
    add_up,
    announce,
    duration,
    estimate_seconds,
    look_past,
    look_up,
    paces_of,
    rows,
)
from digitlab.sweep.race import Race
from digitlab.sweep.rounds import Rounds
from digitlab.sweep.settle import Settling
from digitlab.sweep.tune import Tuning
from digitlab.tracking import locks, notes, queries
from digitlab.tracking.begin import open_parent
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store
from digitlab.tracking.turn import LOOK_AGAIN, UnderWayError

DEATHS = 4  # of its workers, until a cell is given up
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


@exit_on_signals()
def sweep(
    cells: Sequence[Sequence[str]],
    compose: Compose,
    launch: Launch,
    at_once: int | None,
    cluster: Any = None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Run those of `cells` that are not done, as children of one parent run, and print the status of every cell.

    - `cells`: the overrides of each run; of each arm of a race, with sweep.seeds=auto.
    - `compose`: makes a configuration of overrides.
    - `launch`: runs cells; its second argument is the number of the first of them.
    - `at_once`: how many cells are run at once; None where only the launcher knows. One is launched on its own.
    - `cluster`: the launcher, where cells are jobs of SLURM.
    - `prepare`: makes ready to launch; called before anything is recorded, and only where there are cells to run.

    Raises UserError for an invalid cell, before any runs, and for cells that failed, after all have run.
    """
    console.prepare()
    settings = compose(cells[0]).copy()
    plan = _rounds(cells, compose, settings)
    with user_errors("tracking"):
        store = Store(settings.tracking.uri, settings.tracking.experiment)
    rounds = plan.rounds(store)
    planned = list(next(rounds))
    with user_errors("tracking"):
        if settings.sweep.dry_run:
            exists = store.peek()
        else:
            store.open()
            exists = True
        if exists and settings.rerun:
            look_past(store, planned)
        elif exists:
            look_up(store, planned, is_dry=settings.sweep.dry_run)
    with store.translate_errors():
        name = settings.sweep.name or plan.name
        jobs = Jobs(store, name, cluster, settings.sweep.detach) if cluster else None
        if jobs and exists:
            jobs.recall(planned)
        remaining = [cell for cell in planned if not cell.is_over]
        left = duration(estimate_seconds(store, remaining, planned) if exists else None)
        if not settings.sweep.detach or settings.sweep.dry_run:
            console.say(f"sweep {name}: {announce(planned, remaining)}, {left}")
        if more := plan.announce(store if exists else None):
            console.say(more)
        if settings.sweep.dry_run:
            return
        if remaining:
            prepare()
        began, submitted = time.monotonic(), ""
        lock = locks.owner(store, f"sweep-{name}")
        with lock as has_waited, open_parent(store, name) as parent:
            try:
                if has_waited and not settings.rerun:  # for another process, which may have made them
                    look_up(store, remaining)
                if jobs:  # another process may have submitted them until now
                    jobs.recall(planned)
                remaining = [cell for cell in remaining if not cell.is_over]
                _record(parent, planned, plan)
                is_shared = not (store.file or settings.rerun)
                runner = _Runner(store, launch, parent, at_once, plan, is_shared, jobs)
                refused = runner.run(remaining)
                for added in rounds:
                    (look_past if settings.rerun else look_up)(store, added)
                    if jobs:
                        jobs.recall(added)
                    remaining = [cell for cell in added if not cell.is_over]
                    planned += added
                    _record(parent, planned, plan)
                    left = duration(estimate_seconds(store, remaining, planned))
                    console.say(f"\nsweep {name}: {announce(added, remaining)}, {left}")
                    refused = runner.run(remaining, len(planned) - len(added))
                planned = [cell for cell in planned if cell not in refused]
                if jobs:
                    jobs.forget_ended(parent)
            except Detached as told:
                submitted = str(told)
            finally:
                _record(parent, planned, plan)
                notes.write(store, parent.id, notes.of_sweep(store, name, [asdict(cell) for cell in planned]))
                if not submitted:
                    console.show_cells(rows(planned))
                under_way = [cell for cell in planned if cell.is_under_way] if jobs else []
                last = submitted or (jobs and jobs.describe(under_way)) or f"{time.monotonic() - began:.0f} s"
                console.say(
                    f"sweep {name}: {sum(cell.is_over for cell in planned)} of {len(planned)} cells are done, {last}"
                )
                if plan.outcome and not submitted:
                    console.say(plan.outcome)
            failed = [cell for cell in planned if not (cell.is_over or (jobs and cell.is_under_way))]
            if failed:
                raise UserError(f"{len(failed)} of {len(planned)} cells failed; the same command tries them again")
        if under_way:
            store.client.update_run(parent.id, status="SCHEDULED")


def _rounds(cells: Sequence[Sequence[str]], compose: Compose, settings: DictConfig) -> Rounds:
    fresh_seeds = settings.sweep.fresh_seeds
    if settings.sweep.seeds == "auto":
        if fresh_seeds:
            raise UserError(f"sweep.fresh_seeds={fresh_seeds}: sweep.seeds=auto decides how many; give one of them")
        return (Settling if settings.get("claim") else Race)(cells, compose)
    return Tuning(cells, compose, fresh_seeds) if fresh_seeds else Rounds(cells, compose)


@dataclass(frozen=True)
class _Runner:
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
                _launch(self.store, some, self.launch, self.parent.id, number + start)
                if one_by_one:
                    paces |= paces_of(self.store, some)  # no other kind has a run more
        finally:
            ran = [cell for cell in cells if cell not in refused and cell.status != ELSEWHERE]
            look_up(self.store, ran, is_over=True)
        return refused


def _launch(store: Store, cells: Sequence[SweepCell], launch: Launch, parent: str, number: int) -> None:
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


def _record(parent: Run, cells: Sequence[SweepCell], plan: Rounds) -> None:
    parent.log_text(json.dumps([asdict(cell) for cell in cells], indent=1), "sweep.json")
    files, tags = plan.records()
    for name, text in files.items():
        parent.log_text(text, name)
    parent.log_tags(dict(tags))
