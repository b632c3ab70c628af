"""Plan a sweep: which cells are done, which remain, how long they will take."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import fmean

from omegaconf import DictConfig

from digitlab.analysis.records import has_diverged
from digitlab.config.leaves import as_text
from digitlab.tracking import locks, queries
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store
from digitlab.training.record import best_accuracy
from digitlab.training.setup import identify, name_parts, name_run

PENDING, RUNNING = "pending", "running"  # as a job of a cluster
ELSEWHERE = "running elsewhere"  # by another process or host, which has the same sweep to do
Compose = Callable[[Sequence[str]], DictConfig]
Paces = dict[tuple[str, str], tuple[float, float]]  # by network and data the seconds of start and end, and of an epoch


@dataclass
class SweepCell:
    """One run of a sweep: its name and fingerprint, its status, its results."""

    name: str
    fingerprint: str
    overrides: list[str]
    model: str
    data: str
    epochs: int
    seed: int = 0
    lr: str = ""
    # to run, to resume, pending, running, running elsewhere, done, diverged; after the sweep also failed, killed
    status: str = "to run"
    reason: str = ""
    job: str = ""  # its id, where the cells are jobs of a cluster
    older: str | None = None  # with rerun=true the run that was done before, which does not count
    run_id: str | None = None
    val_acc: float | None = None
    test_acc: float | None = None
    seconds: float | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "diverged")

    @property
    def is_under_way(self) -> bool:
        return self.status in (PENDING, RUNNING, ELSEWHERE)


def plan_cell(composed: DictConfig, overrides: Sequence[str]) -> SweepCell:
    cfg, data, fingerprint = identify(composed)
    names = name_parts(cfg, data)
    name, epochs = name_run(cfg, names), cfg.trainer.max_epochs
    lr = as_text(cfg.optim.get("lr"))
    return SweepCell(name, fingerprint, list(overrides), names["model"], data.ready.name, epochs, cfg.seed, lr)


def plan(cells: Sequence[Sequence[str]], compose: Compose) -> list[SweepCell]:
    """Return the runs of the overrides `cells`, each run once."""
    return list({cell.fingerprint: cell for cell in (plan_cell(compose(cell), cell) for cell in cells)}.values())


def name_by_hash(cells: Sequence[SweepCell]) -> str:
    fingerprints = json.dumps(sorted(cell.fingerprint for cell in cells))
    return f"adhoc-{sha256(fingerprints.encode()).hexdigest()[:8]}"


def look_past(store: Store, cells: Sequence[SweepCell]) -> None:
    """Note the runs of `cells` that are done by now: with rerun=true each is made once more."""
    for cell in cells:
        done, _ = queries.find(store, cell.fingerprint)
        cell.older = done and done.info.run_id


def look_up(store: Store, cells: Sequence[SweepCell], is_over: bool = False, is_dry: bool = False) -> None:
    """Set the status of each cell by the store: what is to be done or, if the sweep `is_over`, the result."""
    for cell in cells:
        done, broken = queries.find(store, cell.fingerprint, cell.older)
        has_failed = is_over and (broken or cell.status == "failed")  # even if an older run is done
        if done and not has_failed:
            metrics = done.data.metrics
            loss = metrics["test/loss" if "test/loss" in metrics else "val/loss"]
            cell.status = "diverged" if has_diverged(loss) else "done"
            cell.run_id = done.info.run_id
            cell.test_acc, cell.seconds = metrics.get("test/acc"), queries.seconds(done)
            if not is_dry:
                cell.val_acc = best_accuracy(Run(store.client, done))
        elif broken:
            cell.run_id = broken.info.run_id
            status = broken.info.status if is_dry else locks.mark_dead_run(store, broken)
            is_elsewhere = status == "RUNNING" and not is_dry
            cell.status = ELSEWHERE if is_elsewhere else status.lower() if is_over else "to resume"
            if cell.status == "failed":
                cell.reason = broken.data.tags.get("error", cell.reason)
            elif cell.status == "killed":
                cell.reason = cell.reason or "interrupted"
        elif cell.status == ELSEWHERE:  # another host began it and thought better of it
            cell.status = "to run"


def announce(planned: Sequence[SweepCell], remaining: Sequence[SweepCell]) -> str:
    resumed = sum(cell.status == "to resume" for cell in remaining)
    under_way = Counter(cell.status for cell in remaining if cell.is_under_way)
    done, begun = len(planned) - len(remaining), resumed + under_way.total()
    more = "".join(f", {number} {status}" for status, number in under_way.items())
    return f"{len(planned)} cells: {done} done, {resumed} to resume, {len(remaining) - begun} to run{more}"


def estimate_seconds(store: Store, cells: Sequence[SweepCell], others: Sequence[SweepCell] = ()) -> float | None:
    """Return the seconds that `cells` will take, by earlier runs of each network and data.

    A network without any counts as the mean of those known on the same data, of `cells` and the sweep's `others`.
    None where nothing is known of some data.
    """
    return add_up(paces_of(store, (*cells, *others)), cells)


def paces_of(store: Store, cells: Iterable[SweepCell]) -> Paces:
    """Return the paces of the networks and data of `cells` of which a run is done."""
    kinds = {(cell.model, cell.data) for cell in cells}
    return {kind: pace for kind in kinds if (pace := queries.pace(store, *kind)) is not None}


def add_up(paces: Paces, cells: Iterable[SweepCell]) -> float | None:
    """Return the seconds that `cells` will take at these `paces`; see `estimate_seconds`."""
    total = 0.0
    for cell in cells:
        alike = [pace for (_, data), pace in paces.items() if data == cell.data]
        if not alike:
            return None
        own = paces.get((cell.model, cell.data))
        rest, epoch = own or (fmean(each) for each in zip(*alike, strict=True))
        total += rest + epoch * cell.epochs
    return total


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def rows(cells: Sequence[SweepCell]) -> list[list[str]]:
    """Return name, status, val/acc, test/acc, time and reason of each cell: failures first, then the best val/acc."""

    def show(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    ordered = sorted(cells, key=lambda cell: (cell.is_over, -(cell.val_acc or 0)))
    return [
        [cell.name, cell.status, show(cell.val_acc, ".4f"), show(cell.test_acc, ".4f"), show(cell.seconds, ".0f"),
         cell.reason]
        for cell in ordered
    ]  # fmt: skip
