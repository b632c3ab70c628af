"""A sweep of published claims that gives more seeds to those of which it cannot be told yet whether they hold.

A look is a function of what is stored of the seeds up to it, so the same command comes to the same looks again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from digitlab.analysis import race
from digitlab.analysis.cells import ALPHA
from digitlab.claims.recipes import recipes_of
from digitlab.claims.verdict import MIN_RUNS, Outcome, may_be_settled
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.platform.text import count
from digitlab.report.judged import judged
from digitlab.report.runs import read_predictions, read_results
from digitlab.sweep.plan import Compose, SweepCell, name_by_hash
from digitlab.sweep.rounds import Arm, Budget, Rounds
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training.setup import identify


class Settling(Rounds):
    """The rounds of a sweep of claims, and what its looks came to.

    `cells` are the overrides of each claim, without a seed; `compose` makes a configuration of overrides. Raises
    UserError for a cell that no verdict is given on.
    """

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose):
        self.compose, self.arms = compose, _arms(cells, compose)
        sweep = compose(cells[0]).sweep
        self.max_seeds = sweep.get("max_seeds") or race.MAX_SEEDS
        if self.max_seeds < MIN_RUNS:
            raise UserError(f"sweep.max_seeds={self.max_seeds}: a verdict on a claim needs {MIN_RUNS} runs at least")
        self.budget = Budget(sweep.get("budget"))
        self.seeds = [n for n in race.looks(self.max_seeds) if n >= MIN_RUNS]
        self.looks: dict[int, dict[str, str]] = {}  # after so many seeds, the verdict on each claim
        self.end = ""  # why it is over; empty while it is not

    @property
    def name(self) -> str:
        return name_by_hash([arm.runs[0] for arm in self.arms]).replace("adhoc", "claims")

    @property
    def left(self) -> list[Arm]:
        return [arm for arm in self.arms if not arm.out]

    def rounds(self, store: Store) -> Iterator[list[SweepCell]]:
        """Yield the runs that each look needs, for claims that are not settled; with a budget one seed at a time."""
        for n in self.seeds:
            for seeds in self.budget.parts(range(len(self.left[0].runs), n)):
                added = [arm.plan(self.compose, seed) for seed in seeds for arm in self.left]
                yield added
                if self.budget.is_spent(added):
                    self.end = self.budget.end
                    return
            self._look(store, n)
            if not self.left:
                self.end = "no claim is left that more seeds would settle"
                return
        self.end = f"sweep.max_seeds={self.max_seeds} is reached"

    def may_start(self, store: Store, cells: Sequence[SweepCell]) -> bool:
        return self.budget.allows(store, cells)

    def announce(self, store: Store | None) -> str:
        looks = ", ".join(map(str, self.seeds))
        runs = f"at most {len(self.arms) * self.max_seeds} runs"
        limit = f"; sweep.budget={self.budget.text}" if self.budget.text else ""
        return f"{count(len(self.arms), 'claim')}, judged after {looks} seeds; {runs}{limit}"

    def records(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        settled = {arm.name: arm.out for arm in self.arms if arm.out}
        content = {"max_seeds": self.max_seeds, "looks": self.looks, "settled": settled, "end": self.end}
        return {"claims.json": json.dumps(content, indent=1)}, {"claims.looks": ", ".join(map(str, self.looks))}

    @property
    def outcome(self) -> str:
        left = ", ".join(arm.name for arm in self.left) or "none"
        return f"claims: {f'over, {self.end}' if self.end else 'not over'}; not settled: {left}"

    def _look(self, store: Store, n: int) -> None:
        """Judge every claim by its runs so far, and say which are settled."""
        found = {outcome.claim.name: outcome for outcome in self._outcomes(store)}
        self.looks[n] = {name: outcome.verdict.word for name, outcome in found.items()}
        for arm in self.left:
            if unfinished := next((cell for cell in arm.runs if not cell.is_over), None):
                arm.out = f"{unfinished.name} is not done: {unfinished.reason}"
            elif not may_be_settled(found[arm.name].verdict, ALPHA / len(self.seeds)):
                arm.out = f"{found[arm.name].verdict.word} after {n} seeds"
        console.say(f"claims, after {n} seeds: {len(self.left)} of {len(self.arms)} may be settled by more")

    def _outcomes(self, store: Store) -> list[Outcome]:
        runs = [cell for arm in self.arms for cell in arm.runs if cell.is_over and cell.run_id]
        recipes = recipes_of([{"fingerprint": cell.fingerprint, "overrides": cell.overrides} for cell in runs])
        results = list(read_results(queries.fetch(store, [str(cell.run_id) for cell in runs])))
        return judged(store, recipes, results, lambda run_id: read_predictions(store, run_id))


def _arms(cells: Sequence[Sequence[str]], compose: Compose) -> list[Arm]:
    """Return each claim once; raise UserError for a cell that is no claim's own recipe."""
    arms: dict[str, Arm] = {}
    for overrides in cells:
        cfg, _, identity = identify(compose([*overrides, "seed=0"]))
        if cfg.rerun:
            raise UserError("rerun=true: sweep.seeds=auto counts on what is done; give one of them")
        (recipe,) = recipes_of([{"fingerprint": identity, "overrides": overrides}]).values() or [None]
        if recipe is None or recipe.changes:
            what = "a cell without a claim" if recipe is None else f"{recipe.claim} with another recipe"
            raise UserError(f"sweep.seeds=auto: {what} has no verdict to settle; give it a number of seeds")
        arms.setdefault(identity, Arm(recipe.claim, overrides))
    names = [arm.name for arm in arms.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"sweep.seeds=auto: {twice} on several data sets; sweep each alone")
    return list(arms.values())
