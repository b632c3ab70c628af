"""Claims through the front door: what the files say, what a sweep of them reports."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf"
CLAIMS = sorted(file.stem for file in (CONF / "claim").glob("*.yaml"))
SEEDS = CONF.parents[1] / "shared" / "seeds"


def test_every_claim_has_its_file_and_the_sweep_has_every_claim():
    assert len(CLAIMS) == 10
    swept = OmegaConf.load(CONF / "sweep" / "claims.yaml").hydra.sweeper.params.claim
    assert sorted(swept.replace(" ", "").split(",")) == CLAIMS
    changed = OmegaConf.load(CONF / "sweep" / "counterparts.yaml").hydra.sweeper.params.counterpart
    assert sorted(changed.replace(" ", "").split(",")) == sorted(f.stem for f in (CONF / "counterpart").glob("*.yaml"))


@pytest.mark.parametrize("name", CLAIMS)
def test_printed_numbers_stand_in_the_document(lab, name):
    claim = lab.compose(f"claim={name}").claim
    documents = list(SEEDS.glob(f"{claim.document}_*"))
    if not documents:
        pytest.skip("the documents are not on this machine")
    text = documents[0].read_text()
    for values in claim.printed.values():
        assert all(f"{value:.4f}" in text for value in values)
    for value in (claim.accuracy, claim.loss):
        assert value is None or any(form in text for form in (f"{value:g}", f"{value * 100:g}%", f"{value:.3f}"[:-1]))


RECIPES = {  # by hand from the documents: split, images left out, batch, epochs, patience, optimizer, normalized
    "mlp_000": ("last", 0.2, 0, 128, 12, None, "Adam", True),
    "cnn_pool_000": ("last", 0.2, 0, 128, 12, 3, "Adam", True),
    "cnn_pool_000_first_epoch": ("last", 0.2, 0, 128, 1, None, "Adam", True),
    "double_3x3_001": ("test", 0.1, 5000, 500, 20, None, "Adam", True),
    "single_5x5_001": ("test", 0.1, 5000, 500, 20, None, "Adam", True),
    "dense1000_sgd_002": ("test", 0.1, 0, 128, 10, None, "SGD", True),
    "dense1000_adam_002": ("test", 0.1, 0, 128, 10, None, "Adam", True),
    "dense1000_raw_002": ("test", 0.1, 0, 128, 10, None, "SGD", False),
    "double_3x3_003": ("test", 0.1, 0, 128, 10, None, "Adadelta", True),
    "simple_004": ("last", 0.1, 0, 128, 15, None, "Adam", True),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_recipes_are_the_documents(lab, name):
    cfg = lab.compose(f"claim={name}")
    data = cfg.data
    found = (data.split, data.val_fraction, data.skip_first, data.batch_size, cfg.trainer.max_epochs,
             cfg.early_stopping.patience, cfg.optim._target_.rpartition(".")[2], data.normalize)  # fmt: skip
    assert found == RECIPES[name]
    assert (cfg.loss, cfg.evaluate_on, data.fallback) == ("clipped_cross_entropy", "last", False)


def test_a_claims_deltas_win_over_the_groups(lab):
    assert lab.compose("trainer=smoke", "claim=simple_004").trainer.max_epochs == 15
    assert lab.compose("claim=simple_004", "trainer.max_epochs=2").trainer.max_epochs == 2


def test_a_sweep_of_claims_reports_verdicts(lab, tmp_path, capsys):
    small = ["sweep.seeds=1", "data=mnist5k", "trainer.max_epochs=1"]
    assert lab.main("sweep=claims", "claim=mlp_000,simple_004", *small) is None
    assert lab.main("sweep=counterparts", "counterpart=simple_004_torch", *small) is None
    capsys.readouterr()
    assert lab.main("report.sweep=claims", f"report.dir={tmp_path}/report", door="report") is None
    assert "2 claims: 2 NOT COMPARABLE" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.md").read_text()
    assert "claimed of mnist, run on mnist5k" in page
    assert "34,826 parameters printed or implied, 34,826 counted: the same" in page
    with (tmp_path / "report" / "report.csv").open() as file:
        rows = {(row["claim"], row["counterpart"]): row for row in csv.DictReader(file)}
    assert set(rows) == {("mlp_000", ""), ("simple_004", ""), ("simple_004", "simple_004_torch")}
    tested = {run.info.run_name: run.data.metrics["test/acc"] for run in lab.runs() if "test/acc" in run.data.metrics}
    (name,) = (each for each in tested if "simple_004_torch" in each)
    assert float(rows["simple_004", "simple_004_torch"]["mean_acc"]) == pytest.approx(tested[name])
