"""The cells of a sweep as jobs of SLURM, which go on without this process and are found again by the next one.

Which cells are submitted together is written down before they are, under a mark that stands in the comment of their
jobs: however early this process is killed, no cell gets a second job from this machine.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from hydra.core.utils import JobStatus

from digitlab.config.errors import UserError, one_line
from digitlab.platform import console
from digitlab.platform.signals import jobs_go_on
from digitlab.platform.text import count
from digitlab.sweep import squeue
from digitlab.sweep.plan import ELSEWHERE, PENDING, RUNNING, SweepCell, look_up
from digitlab.sweep.squeue import Job
from digitlab.sweep.submitit_internals import log, result, submit
from digitlab.tracking import locks, queries
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store
from digitlab.tracking.tags import remove_tag
from digitlab.tracking.turn import UnderWayError

FOLDER, TAG = "jobs", "jobs."  # of files and of tags of the sweep's run, each with a mark
MOST = 1000  # jobs in an array; more are refused where the cluster's administrator did not allow them
SOON, SOON_FOR, LATER = 2, 60, 15  # seconds until SLURM is asked again, at first and when that has gone on for a while


class Detached(Exception):  # noqa: N818  not an error
    """The jobs go on without this process; says what it has submitted, if anything."""


class Jobs:
    """The jobs of the sweep `name`, which `launcher` submits. This process waits for them, but where it `detaches`."""

    def __init__(self, store: Store, name: str, launcher: Any, detaches: bool):
        self.store, self.name, self.launcher, self.detaches = store, name, launcher, detaches
        self.marks: dict[str, list[str]] = {}  # the jobs of each, some of which may not have ended
        self.job_of: dict[str, str] = {}  # the newest of each cell, by fingerprint
        self.queue: dict[str, Job] = {}

    def recall(self, cells: Sequence[SweepCell]) -> None:
        """Set the status of those of `cells` whose jobs are under way since an earlier command."""
        parent = next((run for run in queries.find(self.store, f"sweep-{self.name}") if run), None)
        tags = parent.data.tags if parent else {}
        first = {key.removeprefix(TAG): job for key, job in tags.items() if key.startswith(TAG)}
        if not (parent and first):
            return
        ids = {job.mark: number.partition("_")[0] for number, job in squeue.jobs().items()}
        first = {mark: job or ids.get(mark, "") for mark, job in first.items()}
        for mark in sorted((mark for mark in first if first[mark]), key=lambda mark: int(first[mark])):
            with queries.artifact(self.store, parent.info.run_id, f"{FOLDER}/{mark}.json") as file:
                fingerprints = json.loads(file.read_text()) if file else []
            if not fingerprints:
                console.warn(
                    f"which cells the jobs {first[mark]} have cannot be read; each cell is made once all the same"
                )
                continue
            several = len(fingerprints) > 1
            self.marks[mark] = [f"{first[mark]}_{n}" if several else first[mark] for n in range(len(fingerprints))]
            self.job_of |= dict(zip(fingerprints, self.marks[mark], strict=True))
        self._look()
        for cell in cells:
            if not cell.is_over and cell.fingerprint in self.job_of:
                cell.older = None  # what is done by now may be of its job
                self._stand(cell)

    def _look(self) -> None:
        """Ask SLURM how the jobs stand; others may have their ids by now, where it has forgotten them."""
        self.queue = {number: job for number, job in squeue.jobs().items() if job.mark in self.marks}

    def left_out(self, cells: Sequence[SweepCell]) -> list[SweepCell]:
        """Return those of `cells` that are to be submitted; none while this process only says how the others stand."""
        known = any(cell.fingerprint in self.job_of for cell in cells)
        return [] if self.detaches and known else [cell for cell in cells if not cell.is_under_way]

    def run(self, parent: Run, cells: Sequence[SweepCell], number: int) -> None:
        """Submit those of `cells` that are `left_out` as children of the run `parent`, and wait for all.

        `number` is that of the first cell in the sweep. Raises Detached where it does not wait.
        """
        new = self.left_out(cells)
        for start in range(0, len(new), MOST):
            self._submit(parent, new[start : start + MOST], number + start)
        if new and self.detaches:
            ids = " ".join(dict.fromkeys(cell.job.partition("_")[0] for cell in new))
            raise Detached(f"{count(len(new), 'job')} submitted as {ids}; the same command says how they stand")
        self._wait([cell for cell in cells if cell.fingerprint in self.job_of])
        if self.detaches and any(cell.is_under_way for cell in cells):
            raise Detached

    def _submit(self, parent: Run, cells: Sequence[SweepCell], number: int) -> None:
        mark = f"digitlab-{uuid4().hex}"
        parent.log_text(json.dumps([cell.fingerprint for cell in cells]), f"{FOLDER}/{mark}.json")
        parent.log_tags({TAG + mark: ""})
        overrides = [[*cell.overrides, f"sweep.parent={parent.id}"] for cell in cells]
        try:
            self.marks[mark] = submit(self.launcher, overrides, number, mark)
        except Exception as error:
            remove_tag(parent.client, parent.id, TAG + mark)
            raise UserError(f"no job can be submitted: {one_line(error)}") from error
        parent.log_tags({TAG + mark: self.marks[mark][0].partition("_")[0]})
        for cell, job in zip(cells, self.marks[mark], strict=True):
            self.job_of[cell.fingerprint], cell.job, cell.status = job, job, PENDING

    def _wait(self, cells: Sequence[SweepCell]) -> None:
        """Set the status of `cells` by their jobs, and wait until these have ended."""
        if cells:
            jobs_go_on()
        began, told, is_away, under_way = time.monotonic(), Counter(), False, list(cells)
        while under_way:
            try:
                self._look()
                is_away = False
            except OSError as error:
                if self.detaches:
                    raise
                if not is_away:
                    console.warn(f"SLURM does not answer, and is asked again: {one_line(error)}")
                is_away = True
            else:
                ended = [cell for cell in under_way if self._stand(cell)]
                for cell in ended:
                    self._conclude(cell)
                under_way = [cell for cell in under_way if cell not in ended]
            if self.detaches:
                return
            if (now := Counter(cell.status for cell in cells)) != told:
                console.say(f"sweep {self.name}: {self.describe(cells)}")
            told = now
            if under_way:
                time.sleep(SOON if time.monotonic() - began < SOON_FOR else LATER)

    def _stand(self, cell: SweepCell) -> bool:
        """Set the status of a cell by its job; say whether that has ended."""
        cell.job = self.job_of[cell.fingerprint]
        job = self.queue.get(cell.job)
        if job is None or job.has_ended:
            return True
        cell.status = PENDING if job.is_pending else RUNNING
        cell.reason = f"job {cell.job}{self._why_pending(cell)}"
        return False

    def _conclude(self, cell: SweepCell) -> None:
        """Set the status of a cell whose job has ended."""
        job, left = self.queue.get(cell.job), result(self.launcher, cell.job)
        cell.status, cell.reason = "to run", f"job {cell.job} ended: {job.state if job else 'SLURM knows it no more'}"
        if isinstance(left, str):
            cell.reason = left
        elif left is not None and left.status is JobStatus.FAILED:
            error = left._return_value  # the public property would raise it
            if isinstance(error, UnderWayError):
                cell.status, cell.reason = ELSEWHERE, ""
                return
            cell.status, cell.reason = "failed", one_line(error)
        _, broken = queries.find(self.store, cell.fingerprint)
        if broken:
            locks.mark_dead_run(self.store, broken, cell.job)
        look_up(self.store, [cell], is_over=True)
        if cell.is_over:
            cell.reason = ""
            return
        cell.status = "killed" if cell.status == "killed" else "failed"
        cell.reason += f"; its output: {log(self.launcher, cell.job)}"
        console.warn(f"{cell.name} {cell.status}: {cell.reason}")

    def forget_ended(self, parent: Run) -> None:
        """Forget the jobs that have ended, as the sweep whose run is `parent` has told what they came to."""
        for mark, jobs in list(self.marks.items()):
            if all(job not in self.queue or self.queue[job].has_ended for job in jobs):
                remove_tag(parent.client, parent.id, TAG + mark)
                del self.marks[mark]

    def describe(self, cells: Sequence[SweepCell]) -> str:
        """Say how many of `cells` are done, running, failed, and pending for which reasons."""
        counts = Counter("done" if cell.is_over else cell.status + self._why_pending(cell) for cell in cells)
        return ", ".join(f"{number} {standing}" for standing, number in sorted(counts.items()))

    def _why_pending(self, cell: SweepCell) -> str:
        job = self.queue.get(cell.job)
        return f" ({job.reason})" if cell.status == PENDING and job and job.reason != "None" else ""
