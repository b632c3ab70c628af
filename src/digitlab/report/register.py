"""Register a run's model under a name, and promote it: an alias goes to no model that is shown to be worse."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from digitlab import CONF
from digitlab.analysis.cells import ALPHA
from digitlab.analysis.records import Predict, Result
from digitlab.analysis.statistics import mcnemar
from digitlab.documents.model_card import model_card
from digitlab.platform import console
from digitlab.platform.secrets import redact
from digitlab.report.sides import with_seeds
from digitlab.report.versus import MARGIN, Verdict, judge, points, predict_from
from digitlab.tracking import queries, references, registry
from digitlab.tracking.store import Store

DONE, REFUSED = 0, 1  # exit codes


def register(store: Store, reference: str, name: str, alias: str | None, force: bool) -> int:
    """Register the model of the run that `reference` means, with a model card; return 1 where its promotion is refused.

    Raises ValueError where there is no such run, or it has no model.
    """
    run = references.resolve(store, reference)
    if not queries.is_done(run):
        raise ValueError(f"{reference}: is not done ({run.info.status})")
    model = queries.model_uri(store, run.info.run_id)
    if not model:
        why = run.data.tags.get("without_model", "it was not tested, or the model was deleted")
        raise ValueError(f"{reference}: has no logged model: {why}")
    registry.check_names(name, alias)
    predict, side = predict_from(store), with_seeds(store, run)
    champion = registry.run_of(store, name, alias) if alias else None
    if champion and champion != run.info.run_id:
        verdict = compare(store, champion, side, predict)
        console.say(verdict.sentence)
        if verdict.is_worse and not force:
            console.say(
                f"not registered: {name}@{alias} stays with run {champion}; --force takes this one all the same"
            )
            return REFUSED
    card = describe(run, side[0], predict, f"models:/{name}@{alias}" if alias else model, store)
    version = registry.add(store, name, model, run.info.run_id, card)
    if alias:
        store.client.set_registered_model_alias(name, alias, version)
    console.say(f"registered as models:/{name}/{version}" + (f", which is models:/{name}@{alias}" if alias else ""))
    return DONE


def compare(store: Store, champion: str, side: list[Result], predict: Predict) -> Verdict:
    """Say whether the first run of `side` is worse than the champion: as a network, or its settings over seeds."""
    there = with_seeds(store, store.client.get_run(champion))
    one, other = predict(there[0]), predict(side[0])
    try:
        settings = judge(there, side, predict, MARGIN)
    except ValueError as error:
        return Verdict(f"Cannot tell whether it is worse than the model before it: {error}", None)
    if not one or not other:
        return Verdict(f"Of A, the model before it, and B, this one: {settings.sentence}", settings.is_worse)
    p_value, gained = mcnemar(one.correct, other.correct), side[0].accuracy - there[0].accuracy
    is_shown = p_value < ALPHA
    told = ("better than" if gained > 0 else "worse than") if is_shown else "not shown to differ (cannot tell) from"
    sentence = (
        f"On the same {len(one.labels):,} test images it is {told} the model before it, by {points(gained)} points "
        f"(right where that is wrong on {np.sum(other.correct & ~one.correct)}, wrong where that is right on "
        f"{np.sum(one.correct & ~other.correct)}; McNemar's test: p = {p_value:.2g})."
    )
    if settings.is_worse:
        return Verdict(f"{sentence} Of its settings over seeds, A before, B now: {settings.sentence}", True)
    return Verdict(sentence, gained < 0 if is_shown else None)


def describe(run: Any, result: Result, predict: Predict, address: str, store: Store) -> str:
    """Return the model card of a run."""
    found = predict(result)
    if not found:
        raise ValueError(f"{run.info.run_name}: has no predictions.npz, so there is nothing to write on its model card")
    facts = {
        "network": f"{result.model}, {result.parameters or 0:,} parameters",
        "training": f"{result.optim}, seed {result.seed}",
        "data": f"{result.data}, digest {result.settings['data digest']}",
        "license of the data": _license(result.data),
        "input": "images as they are stored, uint8 (N, H, W) or (N, H, W, 3); the preprocessing is inside",
        "run": f"{run.info.run_name}, {run.info.run_id}",
        "code": f"commit {result.settings['code commit']}",
    }
    load = f'import mlflow\n\nmlflow.set_tracking_uri("{redact(store.uri)}")\n'
    load += f'model = mlflow.pyfunc.load_model("{address}")'
    return model_card(f"{run.info.run_name}", facts, found, f"{load}\nprobabilities = model.predict(images)")


def _license(data: str) -> str:
    """Return what the comment of the data's file in conf/ says of the license."""
    file = CONF / "data" / f"{data}.yaml"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    found: Mapping = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# License: "))
    return found.get("License", "not recorded; ask whoever made the data")
