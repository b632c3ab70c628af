"""Tune without the test images: choose a learning rate by validation, then test it with other seeds."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from digitlab.analysis.records import choose_rate, chosen_val_loss
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.report.runs import by_epoch
from digitlab.sweep.plan import Compose, SweepCell, plan
from digitlab.sweep.rounds import Rounds
from digitlab.tracking import queries
from digitlab.tracking.store import Store

UNTESTED = "evaluate_on=none"
CHOSEN = ("optim.lr", "seed")  # keys of the overrides in which the runs of one choice may differ


class Tuning(Rounds):
    """First runs that are not tested; then each chosen learning rate, tested with `count` seeds that no run had."""

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose, count: int):
        for cell in cells:
            cfg = compose(cell)
            if cfg.evaluate_on == "none":
                raise UserError(f"{UNTESTED}: what sweep.fresh_seeds chooses is tested; allowed: best, last")
            if cfg.get("monitor") == "val/acc":
                raise UserError("monitor=val/acc: sweep.fresh_seeds chooses rates by val/loss; allowed: val/loss")
        super().__init__([[*cell, UNTESTED] for cell in cells], compose)
        self.compose, self.count = compose, count

    def rounds(self, store: Store) -> Iterator[list[SweepCell]]:
        yield self.first
        if all(cell.is_over for cell in self.first):
            yield plan(self._chosen(store), self.compose)

    def announce(self, store: Store | None) -> str:
        several, many = len(self._choices()), self.count > 1
        return (
            f"none of them is tested; then the learning rate of {several} choice{'s' * (several > 1)}, "
            f"with {self.count} other seed{'s' * many} each, is"
        )

    def _choices(self) -> dict[tuple[str, ...], list[SweepCell]]:
        """Return the runs of each choice to be made, by the overrides that they have in common."""
        found = defaultdict(list)
        for cell in self.first:
            found[tuple(_but(cell.overrides, *CHOSEN))].append(cell)
        return dict(found)

    def _chosen(self, store: Store) -> list[list[str]]:
        """Return the overrides of the runs to be tested: each chosen learning rate with fresh seeds.

        A rate is chosen as weights are: by the lowest mean val/loss, of the epoch whose weights will be tested.
        """
        losses = queries.histories(store, [cell.run_id for cell in self.first if cell.run_id], "val/loss")
        fresh = max(cell.seed for cell in self.first) + 1
        found = []
        for common, tried in self._choices().items():
            evaluate_on = self.compose(_but(tried[0].overrides)).evaluate_on
            by_rate: dict[str, list[float]] = defaultdict(list)
            for cell in tried:
                curve = by_epoch(losses.get(cell.run_id or "", {}))
                by_rate[cell.lr].append(chosen_val_loss(curve, evaluate_on))
            chosen, means = choose_rate(by_rate)
            name = " ".join(_but(common, "sweep")) or tried[0].name
            if means[chosen] == inf:
                console.warn(f"{name}: every learning rate diverged with some seed, so none is tested")
                continue
            console.say(f"{name}: optim.lr={chosen} of {len(means)} tried has the lowest val/loss, {means[chosen]:.4f}")
            of_rate = next(_but(cell.overrides, "seed") for cell in tried if cell.lr == chosen)
            found += [[*of_rate, f"seed={seed}"] for seed in range(fresh, fresh + self.count)]
        return found


def _but(overrides: Iterable[str], *keys: str) -> list[str]:
    """Return the overrides other than those of `keys` and the one that leaves the test out."""
    return [each for each in overrides if each != UNTESTED and each.lstrip("+").partition("=")[0] not in keys]
