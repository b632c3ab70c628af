"""A sweep of published claims that gives more seeds to those of which it cannot be told yet whether they hold."""

import json
from collections.abc import Mapping, Sequence
from functools import partial

from digitlab.analysis.cells import ALPHA
from digitlab.claims.recipes import recipes_of
from digitlab.claims.verdict import MIN_RUNS, Outcome, may_be_settled
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.platform.text import count
from digitlab.report.judged import judged
from digitlab.report.runs import read_predictions, read_results
from digitlab.sweep.plan import Compose
from digitlab.sweep.seeds import Arm, Seeds, identified, shared_name
from digitlab.tracking import queries
from digitlab.tracking.store import Store


class Settling(Seeds):
    """Claims, whose looks say which verdicts more seeds may settle.

    `cells` are the overrides of each claim, without a seed; `compose` makes a configuration of overrides. Raises
    UserError for a cell that no verdict is given on.
    """

    word, leaves = "claims", "not settled"

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose):
        super().__init__(_arms(cells, compose), compose(cells[0]), compose)
        if self.max_seeds < MIN_RUNS:
            raise UserError(f"sweep.max_seeds={self.max_seeds}: a verdict on a claim needs {MIN_RUNS} runs at least")
        self.numbers = [n for n in self.numbers if n >= MIN_RUNS]
        self.looks: dict[int, dict[str, str]] = {}  # the verdict on each claim

    def announce(self, store: Store | None) -> str:
        return self.describe(f"{count(len(self.arms), 'claim')}, judged")

    def records(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        settled = {arm.name: arm.out for arm in self.arms if arm.out}
        content = {"max_seeds": self.max_seeds, "looks": self.looks, "settled": settled, "end": self.end}
        return {"claims.json": json.dumps(content, indent=1)}, {"claims.looks": ", ".join(map(str, self.looks))}

    def look(self, store: Store, n: int) -> None:
        found = {outcome.claim.name: outcome for outcome in self._outcomes(store)}
        self.looks[n] = {name: outcome.verdict.word for name, outcome in found.items()}
        for arm in self.left:
            if unfinished := next((cell for cell in arm.runs if not cell.is_over), None):
                arm.out = f"{unfinished.name} is not done: {unfinished.reason}"
            elif not may_be_settled(found[arm.name].verdict, ALPHA / len(self.numbers)):
                arm.out = f"{found[arm.name].verdict.word} after {n} seeds"
        console.say(f"claims, after {n} seeds: {len(self.left)} of {len(self.arms)} may be settled by more")
        if not self.left:
            self.end = "no claim is left that more seeds would settle"

    def _outcomes(self, store: Store) -> list[Outcome]:
        runs = [cell for arm in self.arms for cell in arm.runs if cell.is_over and cell.run_id]
        recipes = recipes_of([{"fingerprint": cell.fingerprint, "overrides": cell.overrides} for cell in runs])
        results = list(read_results(queries.fetch(store, [str(cell.run_id) for cell in runs])))
        return judged(store, recipes, results, partial(read_predictions, store))


def _arms(cells: Sequence[Sequence[str]], compose: Compose) -> list[Arm]:
    """Return each claim once; raise UserError for a cell that is no claim's own recipe."""
    arms: dict[str, Arm] = {}
    for overrides, _, _, identity in identified(cells, compose):
        (recipe,) = recipes_of([{"fingerprint": identity, "overrides": overrides}]).values() or [None]
        if recipe is None or recipe.changes:
            what = "a cell without a claim" if recipe is None else f"{recipe.claim} with another recipe"
            raise UserError(f"sweep.seeds=auto: {what} has no verdict to settle; give it a number of seeds")
        arms.setdefault(identity, Arm(recipe.claim, overrides))
    if twice := shared_name(arms.values()):
        raise UserError(f"sweep.seeds=auto: {twice} on several data sets; sweep each alone")
    return list(arms.values())
