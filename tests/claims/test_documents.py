"""The claim files against the documents: facts.yaml was read from these by hand, independently of the claim files."""

from pathlib import Path
from statistics import median

import pytest
import yaml
from omegaconf import OmegaConf

from digitlab.claims.recipes import recipes_of
from digitlab.config.compose import configuration

CONF = Path(__file__).parents[2] / "conf"
FACTS = yaml.safe_load(Path(__file__).with_name("facts.yaml").read_text())
FIELD = yaml.safe_load(Path(__file__).with_name("field.yaml").read_text())
# What the field's mistakes are without the mistake.
CHANGES = {
    "bourke_v1_logits": {"model.output.activation": "none"},
    "pt_quickstart_shuffled": {"data.shuffle": "true"},
    "nielsen_ch1_last": {"evaluate_on": "last"},
    "kefth_fashion_own_mean": {"data.mean": "0.286", "data.std": "0.353"},
}
DOCUMENTS = {claim: document for document, facts in FACTS.items() for claim in facts["claims"]}
COLUMNS = ("seconds", "train/loss", "train/acc", "val/loss", "val/acc")  # of a log
# By hand from the documents: network, split, its share, images left out, batch, epochs, patience, optimizer, normalized
RECIPES = {
    "mlp_000": ("mlp", "last", 0.2, 0, 128, 12, None, "Adam", True),
    "cnn_pool_000": ("cnn_pool", "last", 0.2, 0, 128, 12, 3, "Adam", True),
    "cnn_pool_000_first_epoch": ("cnn_pool", "last", 0.2, 0, 128, 1, None, "Adam", True),
    "double_3x3_001": ("cnn_double_3x3", "test", 0.1, 5000, 500, 20, None, "Adam", True),
    "single_5x5_001": ("cnn_single_5x5", "test", 0.1, 5000, 500, 20, None, "Adam", True),
    "dense1000_sgd_002": ("cnn_dense1000", "test", 0.1, 0, 128, 10, None, "SGD", True),
    "dense1000_adam_002": ("cnn_dense1000", "test", 0.1, 0, 128, 10, None, "Adam", True),
    "dense1000_raw_002": ("cnn_dense1000", "test", 0.1, 0, 128, 10, None, "SGD", False),
    "double_3x3_003": ("cnn_double_3x3", "test", 0.1, 0, 128, 10, None, "Adadelta", True),
    "simple_004": ("cnn_simple", "last", 0.1, 0, 128, 15, None, "Adam", True),
}


def test_every_claim_has_its_file_and_the_sweep_has_every_claim():
    ours = {"speedrun"}
    assert {file.stem for file in (CONF / "claim").glob("*.yaml")} - ours == set(DOCUMENTS) | set(FIELD)
    for sweep, claims in {"claims": DOCUMENTS, "field": FIELD}.items():
        swept = OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml").hydra.sweeper.params.claim
        assert sorted(swept.replace(" ", "").split(",")) == sorted(claims)
    changed = []
    for sweep, claims in {"counterparts": DOCUMENTS, "field_counterparts": FIELD}.items():
        swept = OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml").hydra.sweeper.params.counterpart
        for name in swept.replace(" ", "").split(","):
            changed.append(name)
            (claim,) = (choice for each in OmegaConf.load(CONF / "counterpart" / f"{name}.yaml").defaults
                        if each != "_self_" for choice in each.values())  # fmt: skip
            assert claim in claims
            assert name.startswith(f"{claim}_")
    assert sorted(changed) == sorted(file.stem for file in (CONF / "counterpart").glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "counterpart").glob("*.yaml")))
def test_a_counterpart_is_its_claim_with_something_changed(harness, name):
    with configuration():
        recipe = next(iter(recipes_of([{"fingerprint": "x", "overrides": [f"counterpart={name}"]}]).values()))
    assert recipe.counterpart == name
    assert name.startswith(f"{recipe.claim}_")
    assert dict(recipe.changes) | CHANGES.get(name, {}) == dict(recipe.changes)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_numbers_are_those_of_the_document(harness, name):
    claim = harness.compose(f"claim={name}").claim
    document = FACTS[DOCUMENTS[name]]
    facts = document["claims"][name]
    assert claim.document == DOCUMENTS[name]
    assert claim.accuracy == round(facts["accuracy"], 4)  # a share of 10,000 images has no more digits
    assert claim.loss == (pytest.approx(facts["loss"], rel=5e-5, abs=5e-5) if "loss" in facts else None)
    log = dict(zip(COLUMNS, map(list, zip(*facts["log"], strict=True)), strict=True)) if "log" in facts else {}
    assert claim.seconds == (median(log.pop("seconds")) if log else None)
    assert claim.printed == log
    networks = document.get("networks", {})
    network = networks.get(RECIPES[name][0], {})
    assert claim.parameters == network.get("total")
    assert claim.layers == ([] if "total" in network else network.get("layers", []))
    assert claim.counts == {each: networks[each]["total"] for each in claim.counts}


@pytest.mark.parametrize("document", FACTS)
def test_every_printed_network_and_ratio_is_checked_by_a_claim(document):
    facts = FACTS[document]
    claims = {name: OmegaConf.load(CONF / "claim" / f"{name}.yaml").claim for name in facts["claims"]}
    trained = {RECIPES[name][0] for name in claims}
    counted = {network for claim in claims.values() for network in claim.get("counts", ())}
    assert set(facts.get("networks", ())) <= trained | counted
    statements = [statement for claim in claims.values() for statement in claim.get("statements", ())]
    assert len(statements) == len(facts.get("ratios", ()))
    for statement, ratio in zip(statements, facts.get("ratios", ()), strict=True):
        assert (statement.of, statement.to) == (ratio["of"], ratio["to"])
        assert statement.low <= ratio["says"] <= statement.high


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_recipes_are_those_of_the_document(harness, name):
    cfg = harness.compose(f"claim={name}")
    data = cfg.data
    network, *rest = RECIPES[name]
    model = harness.compose(f"model={network}").model
    assert (cfg.model._target_, cfg.model.blocks, cfg.model.hidden) == (model._target_, model.blocks, model.hidden)
    found = (data.split, data.val_fraction, data.skip_first, data.batch_size, cfg.trainer.max_epochs,
             cfg.early_stopping.patience, cfg.optim._target_.rpartition(".")[2], data.normalize)  # fmt: skip
    assert found == tuple(rest)
    assert (cfg.loss, cfg.evaluate_on, data.fallback) == ("clipped_cross_entropy", "last", False)
