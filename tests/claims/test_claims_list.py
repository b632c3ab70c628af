"""`digitlab claims`: the list of them, and the folder of pages that it writes."""

import numpy as np
import pytest
from conftest import Harness, rest_at_night
from fake_store import FakeStore
from scipy import stats
from test_claims import FIVE, rows_of

from digitlab.config.check import check
from digitlab.config.leaves import flatten
from digitlab.config.names import groups
from digitlab.report.claims_list import PAGES


def recorded(store: FakeStore, claim: str, accuracies, *overrides: str, first: int = 0) -> dict[str, list[str]]:
    """Record runs with the whole configuration that a claim has; return the overrides of each one's cell."""
    cfg, told = check(store.harness.compose(f"claim={claim}", *overrides)), [f"claim={claim}", *overrides]
    params = {key: value for key, value in flatten(cfg).items() if not key.startswith(("names", "tracking"))}
    params |= groups(cfg) | {"parameters": "34826"}
    made_of = params.pop("model"), params.pop("optim")
    del params["seed"]
    loss = params.pop("loss")  # a result's name to the store
    more = {"epochs": cfg.trainer.max_epochs, "predictions": False}
    runs = {}
    for seed, accuracy in enumerate(accuracies, first):
        followed = {"data.seed": str(seed)} if "data.seed" not in " ".join(overrides) else {}
        run_id = store.record(*made_of, seed, accuracy, **(params | followed | more))
        store.harness.client.log_param(run_id, "loss", loss)
        runs[run_id] = [f"seed={seed}", *told]
    return runs


@pytest.mark.slow
def test_the_list_has_the_verdicts_of_the_report_and_claims_that_were_not_run(fake_store, capsys):
    runs = recorded(fake_store, "simple_004", FIVE)
    runs |= recorded(fake_store, "simple_004", (0.9, 0.91), "trainer.max_epochs=1")
    runs |= recorded(fake_store, "mlp_000", FIVE[:2])
    fake_store.sweep("claims", *runs, overrides=runs)
    harness = fake_store.harness
    capsys.readouterr()
    assert harness.main("claims", "list", "simple_004", "mlp_000", "keras_io_convnet", entry_point="digitlab") is None
    said = capsys.readouterr().out
    cells = {line.split("│")[1].strip(): [each.strip() for each in line.split("│")[2:-1]]
             for line in said.splitlines() if line.startswith("│")}  # fmt: skip
    assert cells["simple_004"][:3] == ["tutorial 004", "mnist", "0.9914"]
    assert cells["simple_004"][3].startswith(f"{np.mean(FIVE):.4f} ")
    assert cells["simple_004"][4:6] == ["5", "REPRODUCED"]
    assert cells["mlp_000"][4:6] == ["2", "TOO FEW"]
    assert fake_store.report() is None
    told = {row["claim"]: row["verdict"] for row in rows_of(fake_store.folder) if not row["changes"]}
    assert {name: cells[name][5] for name in told} == told
    assert [cells[name][-1] for name in ("simple_004", "mlp_000", "keras_io_convnet")] == [
        "here",
        "here",
        "docs/claims",
    ]
    assert f"{len(cells)} claims, 2 run here, {len(cells) - 2} in docs/claims alone." in " ".join(said.split())


def test_claims_are_named_by_what_their_files_say_of_them(harness, capsys):
    assert harness.main("claims", "list", "fashion-mnist", "--names", entry_point="digitlab") is None
    names = capsys.readouterr().out.strip().split(",")
    assert {"kashif_fashion", "hinge_fashion"} <= set(names)
    assert "keras_mnist_cnn" not in names
    assert harness.main("claims", "list", "src/conv.py", "--names", entry_point="digitlab") is None
    assert "nielsen_shallow" in capsys.readouterr().out.strip().split(",")  # its base names the document
    assert harness.main("claims", "list", "no such claim", entry_point="digitlab") == 2
    assert capsys.readouterr().err.startswith("error: claims list: no such claim: no claim has this in its name")


def test_a_folder_of_pages_is_on_the_runs_of_every_store_it_was_written_from(tmp_path):
    folder, pages = tmp_path / "pages", []
    for name, accuracies, first in (("here", FIVE[:2], 0), ("there", FIVE[2:], 2)):
        store = FakeStore(Harness(tmp_path / name))
        recorded(store, "simple_004", accuracies, first=first)
        recorded(store, "simple_004", accuracies, "trainer.max_epochs=1", first=first)
        assert store.harness.main("claims", "write", str(folder), "simple_004", entry_point="digitlab") is None
        pages.append((folder / "simple_004.md").read_text())
    assert "TOO FEW" in pages[0]
    assert "REPRODUCED" in pages[1]
    assert [f"| {seed} | {accuracy:.4f} |" in pages[1] for seed, accuracy in enumerate(FIVE)] == [True] * 5
    (row,) = (line for line in (folder / "index.md").read_text().splitlines() if line.startswith("| [simple_004]"))
    assert f"| {np.mean(FIVE):.4f} ± {stats.t.ppf(0.975, 4) * stats.sem(FIVE):.4f} | 5 | REPRODUCED |" in row
    stored = (folder / "runs.jsonl").read_text()
    assert stored.count("\n") == 10
    assert stored.count('"changes": {"trainer.max_epochs": "1"}') == 5
    assert "| simple_004 | – | trainer.max_epochs=1 |" in pages[1]
    assert "here:" not in stored
    assert str(tmp_path) not in stored
    assert store.harness.main("claims", "write", str(folder), "simple_004", entry_point="digitlab") is None
    assert (folder / "runs.jsonl").read_text() == stored
    assert (folder / "simple_004.md").read_text() == pages[1]


def test_a_run_that_a_sweep_took_for_another_claim_counts_for_both(fake_store, tmp_path):
    """keras_io_convnet and simple_004 have one recipe, so each run of it is made once."""
    made = recorded(fake_store, "keras_io_convnet", FIVE)
    taken = {run_id: ["claim=simple_004", f"seed={seed}"] for seed, run_id in enumerate(made)}
    fake_store.sweep("claims", *made, overrides=taken)
    assert fake_store.harness.main("claims", "write", str(tmp_path), entry_point="digitlab") is None
    index = (tmp_path / "index.md").read_text()
    for claim in ("simple_004", "keras_io_convnet"):
        (row,) = (line for line in index.splitlines() if line.startswith(f"| [{claim}]"))
        assert f"| {np.mean(FIVE):.4f} ± {stats.t.ppf(0.975, 4) * stats.sem(FIVE):.4f} | 5 |" in row
    assert (tmp_path / "runs.jsonl").read_text().count("\n") == 10


@pytest.mark.parametrize(
    "case",
    rest_at_night([
        ("tf_softmax", "~trainer.max_steps", '"trainer.max_steps": "none"'),
        ("nielsen_shallow", "~data.shuffle", '"data.shuffle": "none"'),
        ("nielsen_shallow", "data.seed=5", '"data.seed": "5"'),
        ("speedrun", "data.split=test", '"data.split": "test"'),
    ]),
)  # fmt: skip
def test_what_a_recipe_says_and_a_run_did_not_do_is_a_change(fake_store, tmp_path, case):
    claim, override, change = case
    recorded(fake_store, claim, FIVE[:2])
    recorded(fake_store, claim, FIVE[2:], override)
    assert fake_store.harness.main("claims", "write", str(tmp_path), claim, entry_point="digitlab") is None
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [f'"changes": {{{change}}}' in line for line in lines].count(True) == 3
    assert ['"changes": {}' in line for line in lines].count(True) == 2


def test_a_report_judges_the_claims_that_are_known_and_names_the_others(fake_store, capsys):
    """The file of `mine` was in a folder that the sweep was given, and the report is not."""
    runs = recorded(fake_store, "simple_004", FIVE)
    for seed in range(2):
        runs[fake_store.record("mlp", "adam", seed, 0.9)] = [f"seed={seed}", "claim=mine"]
    fake_store.sweep("ms", *runs, overrides=runs)
    assert fake_store.report("report.sweep=ms") is None
    assert [row["claim"] for row in rows_of(fake_store.folder)] == ["simple_004"]
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Not judged: claim=mine: not found; allowed: ") == 1
    assert "by --config-dir=FOLDER" in (fake_store.folder / "report.md").read_text()


def test_pages_count_documents_give_intervals_and_name_training(fake_store, tmp_path):
    folder, changed = tmp_path / "pages", (0.985, 0.989, 0.986)
    for claim in ("kefth_mnist", "kefth_fashion", "homl3_mnist"):
        recorded(fake_store, claim, FIVE[:3])
    recorded(fake_store, "kefth_mnist", changed, "trainer.max_epochs=1")
    for run_id in recorded(fake_store, "tf_fashion", FIVE[:3]):
        fake_store.harness.client.log_metric(run_id, "train/acc", 0.91, step=3)
    assert fake_store.harness.main("claims", "write", str(folder), entry_point="digitlab") is None
    index = (folder / "index.md").read_text()
    assert "1 of 3 documents: recipe partly unstated." in index  # kefth's is one, of two claims
    assert "2 of 3 documents: contradicted by its own log, text or code." in index
    paired = stats.ttest_rel(changed, FIVE[:3])
    low, high = paired.confidence_interval()
    words = [f"{each:+.4f}".replace("-", "−") for each in (np.mean(changed) - np.mean(FIVE[:3]), low, high)]
    said = f"{words[0]} ({words[1]} to {words[2]}, n = 3)"
    assert f"- kefth_mnist with trainer.max_epochs=1: {said}, none shown." in index
    assert "0 of 1 change of a recipe show a difference" in index
    assert "| seed | training accuracy |" in (folder / "tf_fashion.md").read_text()
    assert "| seed | test accuracy |" in (folder / "kefth_mnist.md").read_text()


def test_pages_are_written_whole_or_not_at_all_and_in_utf_8(fake_store, tmp_path, monkeypatch):
    """What a full disk lets be written of runs.jsonl must not take the place of the runs that were there."""
    recorded(fake_store, "simple_004", FIVE[:2])
    arguments = ("claims", "write", str(tmp_path), "simple_004")
    assert fake_store.harness.main(*arguments, entry_point="digitlab") is None
    before = (tmp_path / "runs.jsonl").read_bytes()
    recorded(fake_store, "simple_004", FIVE[2:], first=2)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert fake_store.harness.main(*arguments, entry_point="digitlab") == 2
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_whose_runs_cannot_be_read_is_left_as_it_is(harness, tmp_path, capsys):
    (tmp_path / "runs.jsonl").write_text("no json")
    assert harness.main("claims", "write", str(tmp_path), "simple_004", entry_point="digitlab") == 2
    assert f"{tmp_path}: runs.jsonl: line 1 is no run of a claim" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["runs.jsonl"]


def test_the_index_says_what_changes_mean_and_what_was_not_run(fake_store, tmp_path):
    """speedrun is our own, so it is in no index; the folds of mlm_mnist follow the seed, so its spread is no seed's."""
    recorded(fake_store, "simple_004", FIVE)
    recorded(fake_store, "simple_004", [each - 0.01 for each in FIVE], "counterpart=simple_004_torch")
    recorded(fake_store, "mlm_mnist", (0.5, 0.99))
    recorded(fake_store, "speedrun", FIVE)
    assert fake_store.harness.main("claims", "write", str(tmp_path), entry_point="digitlab") is None
    index, page = ((tmp_path / f"index.{kind}").read_text() for kind in ("md", "html"))
    assert "- simple_004 with PyTorch's initial weights, epsilon and loss: −0.0100 (" in index
    assert "1 of 1 change of a recipe shows a difference in accuracy" in index
    assert "filled otherwise by −0.0100 (simple_004_torch): 1 of 1 is shown to be a difference." in index
    assert (
        f"{max(FIVE) - min(FIVE):.4f} above the lowest in the median, and up to {max(FIVE) - min(FIVE):.4f}." in index
    )
    assert "speedrun" not in index
    assert not (tmp_path / "speedrun.md").exists()
    (not_changed,) = (line for line in index.splitlines() if line.startswith("- counterparts: "))
    assert "nielsen_ch1_last" in not_changed
    assert "simple_004_torch" not in not_changed
    assert 'href="simple_004.html"' in page
    assert ".md" not in page
    assert "REPRODUCED" in (tmp_path / "simple_004.html").read_text()


def test_an_index_without_a_verdict_has_no_heading_without_text(fake_store, tmp_path):
    recorded(fake_store, "simple_004", FIVE, "trainer.max_epochs=1")
    assert fake_store.harness.main("claims", "write", str(tmp_path), "simple_004", entry_point="digitlab") is None
    headings = [line for line in (tmp_path / "index.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## What changes of a recipe do", "## Not run yet"]


def test_the_list_of_a_fresh_clone_has_the_numbers_of_its_pages(harness, capsys):
    assert harness.main("claims", "list", "tmf_final", "lisa_mlp", entry_point="digitlab") is None
    said = capsys.readouterr().out
    (run, not_run) = ([each.strip() for each in line.split("│")] for name in ("tmf_final", "lisa_mlp")
                      for line in said.splitlines() if line.startswith(f"│ {name} "))  # fmt: skip
    (row,) = (line for line in (PAGES / "index.md").read_text().splitlines() if line.startswith("| [tmf_final]"))
    assert run[5:7] == [each.strip() for each in row.split("|")[5:7]]
    assert run[9] == "docs/claims"
    assert not_run[5:10] == ["–"] * 5
    assert "0 run here, 1 in docs/claims alone" in " ".join(said.split())
    assert not harness.folder.exists()
