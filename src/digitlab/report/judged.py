"""Judge published claims by the runs of a store that followed their recipes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from digitlab.analysis.records import Predictions, Result, mark_collapsed
from digitlab.claims.followed import Followed
from digitlab.claims.recipes import read_claim
from digitlab.claims.schema import Claim, Recipe
from digitlab.claims.verdict import Outcome, judge, names_one_class
from digitlab.report.runs import complete
from digitlab.tracking.store import Store

Predict = Callable[[str], Predictions | None]  # by run id
Read = Callable[[str], Claim]  # by name


def judged(store: Store, recipes: Mapping[str, Recipe], results: Sequence[Result], predict: Predict) -> list[Outcome]:
    """Return what came of each of the `recipes`, by fingerprint, on each data set, all judged together."""
    order = list(dict.fromkeys(recipes.values()))
    found = sorted(followed(store, recipes, results, predict), key=lambda each: order.index(each.recipe))
    return outcomes(found)


def followed(
    store: Store, recipes: Mapping[str, Recipe], results: Sequence[Result], predict: Predict, read: Read = read_claim
) -> Iterator[Followed]:
    """Yield the tested runs that followed one of the `recipes`, complete and marked."""
    for result in _mark(complete(store, results), predict):
        if result.fingerprint in recipes and result.is_tested:
            recipe = recipes[result.fingerprint]
            may_diverge = read(recipe.claim).diverges and not recipe.changes
            yield Followed(recipe, result, may_diverge and names_one_class(result, predict(result.run_id)))


def outcomes(found: Iterable[Followed], read: Read = read_claim) -> list[Outcome]:
    """Return what came of each recipe on each data set, in the order of `found`, and judge them all together.

    Of runs of one seed the first one counts.
    """
    by_recipe: dict[tuple[Recipe, str], list[Followed]] = {}
    for each in found:
        by_recipe.setdefault((each.recipe, each.result.data), []).append(each)
    made = []
    for (recipe, _), runs in by_recipe.items():
        first: dict[int, Followed] = {}
        for each in sorted(runs, key=lambda each: each.result.began):
            first.setdefault(each.result.seed, each)
        by_seed = [each for _, each in sorted(first.items())]
        one_class = {each.result.run_id for each in by_seed if each.names_one_class}
        claim, results = read(recipe.claim), [each.result for each in by_seed]
        runs = [_as_claimed(each, claim) for each in results]
        made.append(Outcome(claim, runs, recipe.counterpart, dict(recipe.changes), one_class))
    judge(made)
    return made


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
