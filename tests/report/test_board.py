"""`digitlab board`: whose entries are best, and which are tied, on made-up runs of known results."""

import numpy as np
import pytest
from conftest import Harness
from fake_store import FakeStore
from scipy import stats
from statsmodels.stats.multitest import multipletests

from digitlab.platform import console

BEST, TIED, WORSE = (0.98, 0.986, 0.983), (0.979, 0.987, 0.98), (0.9, 0.91, 0.9)


@pytest.fixture
def board(tmp_path, monkeypatch, capsys):
    """A store of made-up runs of several people, and the rows of its board."""
    monkeypatch.setattr(console.console, "_width", 200)
    return People(FakeStore(Harness(tmp_path / "fake_store")), capsys)


class People:
    def __init__(self, fake_store: FakeStore, capsys):
        self.fake_store, self.client, self.capsys = fake_store, fake_store.harness.client, capsys

    def enter(self, person, model, optim, accuracies, tags=(), **params) -> list[str]:
        ids = [self.fake_store.record(model, optim, seed, each, **params) for seed, each in enumerate(accuracies)]
        for run_id in ids:
            for key, value in (("mlflow.user", person), *tags):
                self.client.set_tag(run_id, key, value)
        return ids

    def remake(self, model, optim, accuracies, **params) -> None:
        """Record runs as the board makes them of an entry."""
        entered, own = self.fake_store.experiment, self.client.get_experiment_by_name("digitlab-board")
        place = (self.fake_store.harness.folder / "again").as_uri()
        self.fake_store.experiment = (
            own.experiment_id if own else self.client.create_experiment("digitlab-board", place)
        )
        for seed, each in enumerate(accuracies, 100):
            self.fake_store.record(model, optim, seed, each, **params)
        self.fake_store.experiment = entered

    def read(self) -> tuple[list[list[str]], str]:
        """Return the rows of all tables, and what is said beside."""
        self.capsys.readouterr()
        assert self.fake_store.harness.main("board", entry_point="digitlab") is None
        lines = self.capsys.readouterr().out.splitlines()
        rows = [[text.strip() for text in line.strip("│").split("│")] for line in lines if line.startswith("│")]
        return rows, " ".join(line for line in lines if line[:1] not in "│┏┃┡└├")


def test_entries_are_ranked_with_their_ties(board):
    board.enter("anna", "cnn", "adam", BEST)
    board.enter("ben", "cnn", "sgd", TIED)
    board.enter("<b>clara</b>", "mlp", "adam", WORSE)
    rows, said = board.read()
    assert [row[:3] for row in rows] == [
        ["★", "anna", "cnn/adam"], ["≈", "ben", "cnn/sgd"], ["", "<b>clara</b>", "mlp/adam"]
    ]  # fmt: skip
    half = stats.t.interval(0.95, 2, 0, stats.sem(BEST))[1]
    assert rows[0][3:5] == [f"{np.mean(BEST):.4f} ± {half:.4f}", "3"]
    assert "3 entries, by 3 people." in said


def test_single_runs_are_no_best_and_the_board_says_so(board):
    board.enter("anna", "cnn", "adam", (0.95,))
    board.enter("ben", "cnn", "sgd", (0.9, 0.91))
    rows, said = board.read()
    assert [row[:2] for row in rows] == [["≈", "anna"], ["★", "ben"]]
    assert "best of those with several runs" in said
    assert "1 other is higher, of one run; " in said
    assert "One seed only in anna/cnn/adam" in said


def test_who_asks_for_what_is_done_shares_the_entry(board):
    ids = board.enter("anna", "cnn", "adam", BEST)
    parent = board.fake_store.sweep("bens", *ids)
    board.client.set_tag(parent, "mlflow.user", "ben")
    rows, said = board.read()
    assert [row[1:3] for row in rows] == [["anna, ben", "cnn/adam"]]
    assert "1 entry, by 2 people." in said


def test_other_settings_or_code_are_another_entry_and_other_images_another_table(board):
    board.enter("anna", "cnn", "adam", BEST)
    board.enter("anna", "cnn", "adam", TIED, **{"data.batch_size": "64"})
    board.enter("ben", "cnn", "adam", WORSE, tags=[("code.own", "f00")])
    board.enter("ben", "cnn", "adam", WORSE, data="kmnist")
    board.enter("ben", "mlp", "adam", WORSE, digest="07he2")
    rows, said = board.read()
    entries = {row[2]: row[1] for row in rows}
    assert entries == {
        "cnn/adam": "ben",  # of kmnist
        "cnn/adam code of your own=none data.batch_size=100": "anna",
        "cnn/adam code of your own=none data.batch_size=64": "anna",
        "cnn/adam code of your own=f00 data.batch_size=100": "ben",
        "mlp/adam": "ben",
    }
    for title in ("kmnist", "mnist5k, test set 1", "mnist5k, test set 2"):
        assert title in said


def test_a_seed_counts_once_and_what_is_not_done_or_deleted_not_at_all(board):
    board.enter("anna", "cnn", "adam", BEST)
    board.client.set_tag(board.fake_store.record("cnn", "adam", 0, 0.999), "mlflow.user", "anna")
    board.fake_store.record("cnn", "sgd", 0, 0.999, done=False)
    board.client.delete_run(board.enter("ben", "cnn", "sgd", BEST[:1])[0])
    rows, _ = board.read()
    assert [row[1:5] for row in rows] == [["anna", "cnn/adam", "0.9830 ± 0.0075", "3"]]


def test_a_diverged_entry_is_no_best(board):
    board.enter("anna", "cnn", "adam", (0.99, 0.99), loss=float("nan"))
    board.enter("ben", "mlp", "adam", WORSE)
    rows, _ = board.read()
    assert [row[:2] for row in rows] == [["★", "ben"], ["", "anna"]]
    assert "2 of 2 diverged" in rows[1][3]


def test_runs_made_again_that_failed_are_counted_and_in_no_mean(board):
    board.enter("anna", "cnn", "adam", BEST)
    board.enter("ben", "mlp", "adam", (0.99, 0.98))
    board.enter("clara", "mlp", "sgd", (0.97,), predictions=False)
    board.remake("cnn", "adam", (0.982, 0.984))
    board.remake("cnn", "adam", (0.5,), loss=float("nan"))
    board.remake("mlp", "adam", (0.5, 0.5), loss=float("nan"))
    board.remake("mlp", "sgd", (0.97, 0.971), predictions=False)
    board.remake("mlp", "sgd", (0.5,), same=True)  # a single class for all images
    rows, _ = board.read()
    made = {row[1]: row[-1] for row in rows}
    assert made == {
        "anna": f"1 of 3 failed; 0.9830 ± {stats.sem((0.982, 0.984)) * stats.t.ppf(0.975, 1):.4f} (n = 2)",
        "ben": "2 of 2 failed",
        "clara": f"1 of 3 failed; 0.9705 ± {stats.sem((0.97, 0.971)) * stats.t.ppf(0.975, 1):.4f} (n = 2)",
    }


def test_lower_is_said_with_a_correction_for_all_entries_made_again(board):
    again = (0.973, 0.979, 0.976)
    p = stats.ttest_ind(BEST, again).pvalue
    assert multipletests([p], method="holm")[1] < 0.05 < min(multipletests([p, 1], method="holm")[1])
    board.enter("anna", "cnn", "adam", BEST)
    board.enter("ben", "mlp", "adam", BEST)
    board.remake("cnn", "adam", again)
    assert {row[1]: row[-1].endswith(", lower") for row in board.read()[0]} == {"anna": True, "ben": False}
    board.remake("mlp", "adam", BEST)
    assert not any("lower" in row[-1] for row in board.read()[0])


def test_of_an_empty_store_nothing_is_made_up(board):
    rows, said = board.read()
    assert not rows
    assert "Nobody has entered anything yet" in said


def test_again_needs_a_page(board, capsys):
    assert board.fake_store.harness.main("board", "--again", "3", entry_point="digitlab") == 2
    assert "give --serve too" in capsys.readouterr().err
