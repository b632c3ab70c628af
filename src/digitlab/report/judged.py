"""Judge published claims by the runs of a store that followed their recipes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from digitlab.analysis.records import Predictions, Result, mark_collapsed
from digitlab.claims.recipes import read_claim
from digitlab.claims.schema import Claim, Recipe
from digitlab.claims.verdict import Outcome, judge
from digitlab.report.runs import complete
from digitlab.tracking.store import Store

Predict = Callable[[str], Predictions | None]  # by run id


def judged(store: Store, recipes: Mapping[str, Recipe], results: Sequence[Result], predict: Predict) -> list[Outcome]:
    """Return what came of each of the `recipes`, by fingerprint, on each data set, with the verdicts on all together.

    Of runs of one seed the last one counts.
    """
    found: dict[tuple[Recipe, str], dict[int, Result]] = {}
    for result in sorted(_mark(complete(store, results), predict), key=lambda each: each.ended):
        if result.fingerprint in recipes and result.is_tested:
            found.setdefault((recipes[result.fingerprint], result.data), {})[result.seed] = result
    order = list(dict.fromkeys(recipes.values()))
    outcomes = []
    for (recipe, _), runs in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        claim, ids = read_claim(recipe.claim), [run.run_id for run in runs.values()]
        predictions = {each: predict(each) for each in ids} if claim.diverges and not recipe.changes else {}
        by_seed = [_as_claimed(run, claim) for _, run in sorted(runs.items())]
        outcomes.append(Outcome(claim, by_seed, recipe.counterpart, dict(recipe.changes), predictions))
    judge(outcomes)
    return outcomes


def _as_claimed(run: Result, claim: Claim) -> Result:
    """Return a run with the accuracy that `claim` speaks of, in place of that of the test where it is of training."""
    if claim.images == "test":
        return run
    return replace(run, accuracy=run.train_accuracy, test_images=run.train_images)


def _mark(results: Sequence[Result], predict: Predict) -> Iterator[Result]:
    """Yield the results, those marked that are no better than naming one class of their data set."""
    for data in dict.fromkeys(result.data for result in results):
        alike = [result for result in results if result.data == data]
        yield from mark_collapsed(alike, lambda result: predict(result.run_id))
