"""Run the remaining cells of a sweep, and report the status of every cell."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from digitlab.config.errors import UserError, user_errors
from digitlab.platform import console
from digitlab.platform.signals import exit_on_signals
from digitlab.sweep.jobs import Detached, Jobs
from digitlab.sweep.plan import (
    Compose,
    SweepCell,
    announce,
    duration,
    estimate_seconds,
    look_past,
    look_up,
    rows,
)
from digitlab.sweep.race import Race
from digitlab.sweep.rounds import Rounds
from digitlab.sweep.runner import Launch, Runner
from digitlab.sweep.settle import Settling
from digitlab.sweep.tune import Tuning
from digitlab.tracking import locks, notes
from digitlab.tracking.begin import open_parent
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store


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
        exists = _open(store, settings.sweep.dry_run)
        if exists and settings.rerun:
            look_past(store, planned)
        elif exists:
            look_up(store, planned, is_dry=settings.sweep.dry_run)
    with store.translate_errors():
        name = settings.sweep.name or plan.name
        jobs = Jobs(store, name, cluster, settings.sweep.detach) if cluster else None
        remaining = _remaining(planned, jobs if exists else None)
        left = duration(estimate_seconds(store, remaining, planned) if exists else None)
        if not settings.sweep.detach or settings.sweep.dry_run:
            console.say(f"sweep {name}: {announce(planned, remaining)}, {left}")
        if more := plan.announce(store if exists else None):
            console.say(more)
        if settings.sweep.dry_run:
            return
        if remaining:
            prepare()
        lock, submitted = locks.owner(store, f"sweep-{name}"), ""
        with lock as has_waited, open_parent(store, name) as parent:
            runner = Runner(store, launch, parent, at_once, plan, not (store.file or settings.rerun), jobs)
            swept = _Sweep(store, name, plan, jobs, parent, planned)
            try:
                if has_waited and not settings.rerun:  # for another process, which may have made them
                    look_up(store, remaining)
                swept.run(runner, rounds, look_past if settings.rerun else look_up)
            except Detached as told:
                submitted = str(told)
            finally:
                swept.conclude(submitted)
            swept.check()
        if swept.under_way:
            store.client.update_run(parent.id, status="SCHEDULED")


def _open(store: Store, is_dry: bool) -> bool:
    """Connect to the store, only to read it if `is_dry`; say whether there is anything to read."""
    if is_dry:
        return store.peek()
    store.open()
    return True


def _remaining(cells: Sequence[SweepCell], jobs: Jobs | None) -> list[SweepCell]:
    """Return those of `cells` that are not over, with what their jobs have come to."""
    if jobs:  # another process may have submitted them until now
        jobs.recall(cells)
    return [cell for cell in cells if not cell.is_over]


@dataclass
class _Sweep:
    """A sweep that has begun: the cells that are planned so far, and its parent run, which says how they stand."""

    store: Store
    name: str
    plan: Rounds
    jobs: Jobs | None
    parent: Run
    planned: list[SweepCell]
    began: float = field(default_factory=time.monotonic)

    def run(self, runner: Runner, rounds: Iterator[list[SweepCell]], look: Callable[..., None]) -> None:
        """Run the cells that are planned, then each round that follows from them; forget those it has no time for."""
        remaining = _remaining(self.planned, self.jobs)
        self._record()
        refused = runner.run(remaining)
        for added in rounds:
            look(self.store, added)
            remaining = _remaining(added, self.jobs)
            self.planned += added
            self._record()
            left = duration(estimate_seconds(self.store, remaining, self.planned))
            console.say(f"\nsweep {self.name}: {announce(added, remaining)}, {left}")
            refused = runner.run(remaining, len(self.planned) - len(added))
        self.planned = [cell for cell in self.planned if cell not in refused]
        if self.jobs:
            self.jobs.forget_ended(self.parent)

    def conclude(self, submitted: str) -> None:
        """Record and show how the cells stand, also where the sweep is interrupted; `submitted` says what its jobs do.

        `submitted` is "" unless the sweep leaves its jobs to themselves.
        """
        self._record()
        cells = [asdict(cell) for cell in self.planned]
        notes.write(self.store, self.parent.id, notes.of_sweep(self.store, self.name, cells))
        if not submitted:
            console.show_cells(rows(self.planned))
        last = (
            submitted or (self.jobs and self.jobs.describe(self.under_way)) or f"{time.monotonic() - self.began:.0f} s"
        )
        done = sum(cell.is_over for cell in self.planned)
        console.say(f"sweep {self.name}: {done} of {len(self.planned)} cells are done, {last}")
        if self.plan.outcome and not submitted:
            console.say(self.plan.outcome)

    def check(self) -> None:
        """Raise UserError where a cell failed."""
        failed = [cell for cell in self.planned if not (cell.is_over or (self.jobs and cell.is_under_way))]
        if failed:
            raise UserError(f"{len(failed)} of {len(self.planned)} cells failed; the same command tries them again")

    @property
    def under_way(self) -> list[SweepCell]:
        """The cells that are jobs of a cluster, and are not over."""
        return [cell for cell in self.planned if cell.is_under_way] if self.jobs else []

    def _record(self) -> None:
        self.parent.log_text(json.dumps([asdict(cell) for cell in self.planned], indent=1), "sweep.json")
        files, tags = self.plan.records()
        for name, text in files.items():
            self.parent.log_text(text, name)
        self.parent.log_tags(dict(tags))


def _rounds(cells: Sequence[Sequence[str]], compose: Compose, settings: DictConfig) -> Rounds:
    fresh_seeds = settings.sweep.fresh_seeds
    if settings.sweep.seeds == "auto":
        if fresh_seeds:
            raise UserError(f"sweep.fresh_seeds={fresh_seeds}: sweep.seeds=auto decides how many; give one of them")
        return (Settling if settings.get("claim") else Race)(cells, compose)
    return Tuning(cells, compose, fresh_seeds) if fresh_seeds else Rounds(cells, compose)
