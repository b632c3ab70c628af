"""The cells of a sweep: which are done, which remain; run those, and say how every one came out."""

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from digitlab import console
from digitlab.comparison import has_diverged
from digitlab.config import UserError, one_line, user_errors
from digitlab.run import Run
from digitlab.signals import exit_on_signals
from digitlab.tracking import Store
from digitlab.training import best_accuracy, identify, name_parts, name_run

Compose = Callable[[Sequence[str]], DictConfig]
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]


@dataclass
class Cell:
    """One run that a sweep asks for: what it is called and known by, how it stands, what it came to."""

    name: str
    fingerprint: str
    overrides: list[str]
    model: str
    data: str
    epochs: int
    status: str = "to run"  # to run, to resume, done, diverged; once the sweep is over, failed or killed too
    reason: str = ""
    run_id: str | None = None
    val_acc: float | None = None
    test_acc: float | None = None
    seconds: float | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "diverged")


@exit_on_signals()
def sweep(cells: Sequence[Sequence[str]], compose: Compose, launch: Launch, one_by_one: bool) -> None:
    """Run those of `cells` that are not done, as children of one parent run, and print how all of them stand.

    A cell is the overrides of one run. `compose` makes its configuration of them, HydraConfig included; `launch` runs
    cells, the first under the number given: all at once, or `one_by_one`. Raises UserError for a cell that cannot be,
    before anything runs, and for cells that failed, after all have run.
    """
    console.prepare()
    planned = list({cell.fingerprint: cell for cell in (_plan(compose(cell), cell) for cell in cells)}.values())
    settings = compose(cells[0])
    name = settings.sweep.name or _name_by_hash(planned)
    with user_errors("tracking"):
        store = Store(settings.tracking.uri, settings.tracking.experiment)
        is_new = settings.sweep.dry_run and not store.exists()
        if not is_new:
            store.open()
            if not settings.rerun:
                _look_up(store, planned, is_dry=settings.sweep.dry_run)
    remaining = [cell for cell in planned if not cell.is_over]
    left = _duration(None if is_new else _estimate(store, remaining))
    console.say(f"sweep {name}: {_announce(planned, remaining)}, {left}")
    if settings.sweep.dry_run:
        return
    began = time.monotonic()
    with store.failures(), store.owner(f"sweep-{name}"), store.parent(name) as parent:
        try:
            _record(parent, planned)
            _run(store, remaining, launch, parent.id, one_by_one)
        finally:
            _look_up(store, remaining, is_over=True)
            _record(parent, planned)
            console.show_cells(_rows(planned))
            console.say(f"sweep {name}: {sum(cell.is_over for cell in planned)} of {len(planned)} cells are done, "
                        f"{time.monotonic() - began:.0f} s")  # fmt: skip
        failed = [cell for cell in planned if not cell.is_over]
        if failed:
            raise UserError(f"{len(failed)} of {len(planned)} cells failed; the same command tries them again")


def _plan(composed: DictConfig, overrides: Sequence[str]) -> Cell:
    cfg, data, fingerprint = identify(composed)
    names = name_parts(cfg, data)
    return Cell(name_run(names), fingerprint, list(overrides), names["model"], data.name, cfg.trainer.max_epochs)


def _name_by_hash(cells: Sequence[Cell]) -> str:
    fingerprints = json.dumps(sorted(cell.fingerprint for cell in cells))
    return f"adhoc-{sha256(fingerprints.encode()).hexdigest()[:8]}"


def _look_up(store: Store, cells: Sequence[Cell], is_over: bool = False, is_dry: bool = False) -> None:
    """See in the store how each cell stands: what there is to do, or, when the sweep is over, what came of it."""
    for cell in cells:
        done, broken = store.find(cell.fingerprint)
        has_failed = is_over and (broken or cell.status == "failed")  # an older run may be done
        if done and not has_failed:
            cell.status = "diverged" if has_diverged(done.data.metrics["test/loss"]) else "done"
            cell.run_id = done.info.run_id
            cell.test_acc, cell.seconds = done.data.metrics["test/acc"], store.seconds(done)
            if not is_dry:
                cell.val_acc = best_accuracy(Run(store.client, done))
        elif broken:
            cell.run_id = broken.info.run_id
            status = broken.info.status if is_dry else store.bury(broken)
            cell.status = status.lower() if is_over else "to resume"
            if cell.status == "failed":
                cell.reason = broken.data.tags.get("error", cell.reason)
            elif cell.status == "killed":
                cell.reason = cell.reason or "interrupted"


def _run(store: Store, cells: Sequence[Cell], launch: Launch, parent: str, one_by_one: bool) -> None:
    if not one_by_one:
        _launch(store, cells, launch, parent, 0)
        return
    for number, cell in enumerate(cells):
        left = _duration(_estimate(store, cells[number:]))
        console.say(f"\ncell {number + 1} of {len(cells)}: {cell.name}, {left} left")
        _launch(store, [cell], launch, parent, number)


def _launch(store: Store, cells: Sequence[Cell], launch: Launch, parent: str, number: int) -> None:
    """Run `cells`, all of them whatever becomes of some, and note which failed and why."""
    while cells:
        try:
            results = launch([[*cell.overrides, f"sweep.parent={parent}"] for cell in cells], number)
        except Exception as error:  # when a process dies, joblib ends those beside it too and runs no more cells
            console.warn(one_line(error))
            cells = _not_begun(store, cells, error)
            continue
        for cell, result in zip(cells, results, strict=True):
            if result.status is JobStatus.FAILED:
                error = result._return_value  # its public name would raise it
                cell.status, cell.reason = "failed", one_line(error)
                if not isinstance(error, UserError | OSError):  # whose line says it all
                    traceback.print_exception(error)
                console.warn(f"{cell.name} failed: {cell.reason}")
        return


def _not_begun(store: Store, cells: Sequence[Cell], error: Exception) -> list[Cell]:
    """Return those of `cells` that had not begun when the launcher broke down by `error`; UserError if that is all."""
    not_begun = []
    for cell in cells:
        done, broken = store.find(cell.fingerprint)
        if broken and broken.info.status == "RUNNING" and store.bury(broken) == "KILLED":
            cell.reason = f"its process died, or one beside it ({type(error).__name__})"
        elif not done:
            not_begun.append(cell)
    if len(not_begun) == len(cells):
        raise UserError(f"no cell can be run: {one_line(error)}")
    return not_begun


def _record(parent: Run, cells: Sequence[Cell]) -> None:
    parent.log_text(json.dumps([asdict(cell) for cell in cells], indent=1), "sweep.json")


def _announce(planned: Sequence[Cell], remaining: Sequence[Cell]) -> str:
    resumed = sum(cell.status == "to resume" for cell in remaining)
    done = len(planned) - len(remaining)
    return f"{len(planned)} cells: {done} done, {resumed} to resume, {len(remaining) - resumed} to run"


def _estimate(store: Store, cells: Sequence[Cell]) -> float | None:
    """Return the seconds that `cells` will take by the store's own history of like ones; None where it has none."""
    paces = {like: store.pace(*like) for like in {(cell.model, cell.data) for cell in cells}}
    if None in paces.values():
        return None
    return sum(paces[cell.model, cell.data] * cell.epochs for cell in cells)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def _rows(cells: Sequence[Cell]) -> list[list[str]]:
    """Return name, status, val/acc, test/acc, time and reason of each cell: failures first, then the best."""

    def show(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    ordered = sorted(cells, key=lambda cell: (cell.is_over, -(cell.test_acc or 0)))
    return [
        [cell.name, cell.status, show(cell.val_acc, ".4f"), show(cell.test_acc, ".4f"), show(cell.seconds, ".0f"),
         cell.reason]
        for cell in ordered
    ]  # fmt: skip
