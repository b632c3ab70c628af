"""Every use of submitit's private parts; tests/sweep/test_submitit_internals.py fails when they change.

submitit and its launcher write and submit jobs. Waiting is ours: submitit asks sacct how its jobs stand, and waits for
ever where a cluster keeps no accounts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

TARGET = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


def submit(launcher: Any, cells: Sequence[Sequence[str]], number: int, mark: str) -> list[str]:
    """Submit the overrides `cells` as jobs, of which several are one array, and return the ids of the jobs.

    `launcher` is of the class TARGET; `number` is that of the first cell in its sweep; `mark` stands in the comment of
    each job.
    """
    before = launcher.params
    launcher.params = before | {"comment": " ".join(filter(None, (before.get("comment"), mark)))}
    try:
        with _without_waiting():
            return [job.job_id for job in launcher.launch(cells, number)]
    finally:
        launcher.params = before


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Let the launcher, which returns the first result of each job, return the jobs."""
    from submitit import SlurmJob  # here, for it is in an extra

    results = SlurmJob.results
    SlurmJob.results = lambda self: [self]
    try:
        yield
    finally:
        SlurmJob.results = results


def result(launcher: Any, job: str) -> JobReturn | str | None:
    """Return what a job left: what Hydra says of its cell, or the last line of a traceback; None for nothing."""
    from submitit.core.utils import pickle_load

    file = _paths(launcher, job).result_pickle
    if not file.exists():
        return None
    outcome, value = pickle_load(file)
    return value if outcome == "success" else value.strip().splitlines()[-1]


def log(launcher: Any, job: str) -> Path:
    """Return the file of what a job prints."""
    return _paths(launcher, job).stdout


def _paths(launcher: Any, job: str) -> Any:
    from submitit.core.utils import JobPaths

    return JobPaths(launcher.params["submitit_folder"], job_id=job, task_id=0)
