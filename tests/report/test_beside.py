"""`digitlab train ... vs=RUN`: what cannot be compared is refused before training, the verdict is said at the end."""

import pytest
from fake_store import FakeStore

TINY = ("model=mlp", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke", "model.hidden=[{units: 8}]")


@pytest.mark.slow
@pytest.mark.lean
def test_the_verdict_is_printed_at_the_end(harness, capsys):
    for arguments in ((), ("seed=1",), ("optim=rmsprop", "vs=best"), ("optim=rmsprop", "seed=1", "vs=mlp-adam-s1")):
        name = ["vs=" + run.info.run_name for run in harness.runs() if run.data.params["seed"] == "1"]
        capsys.readouterr()
        arguments = [name[0] if each == "vs=mlp-adam-s1" else each for each in arguments]
        assert harness.main("train", *TINY, *arguments, entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert "A = mlp/adam: 2 runs, test accuracy 0." in said
    assert "B = mlp/rmsprop: 2 runs, test accuracy 0." in said
    assert said.splitlines()[-1].startswith(("B is ", "Tie: B - A is "))
    runs = harness.runs()
    assert not any("vs" in run.data.params or "vs" in run.info.run_name.split("-") for run in runs)
    assert len({run.data.tags["fingerprint"] for run in runs}) == 4
    # The same command again finds the run done, and says the same.
    assert harness.main("train", *TINY, *arguments, entry_point="digitlab") is None
    again = capsys.readouterr().out
    assert "is done already" in again
    assert again.splitlines()[-1] == said.splitlines()[-1]
    for changed, refused in (
        ("data.split_seed=3", "was tested on other images: mnist5k, and this run is on mnist5k, with digests "),
        ("evaluate_on=none", "compares test accuracies, and evaluate_on=none tests nothing"),
        ("vs=params.seed = '0'", "must be runs of one kind, such as "),
    ):
        vs = changed if changed.startswith("vs=") else "vs=best"
        end = harness.main("train", *TINY, vs, *{changed} - {vs}, entry_point="digitlab")
        assert end.startswith(f"error: {vs}: {refused}")
    assert len(harness.runs()) == 4


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nothing", "nothing: no such run; a run is named by "),
        ("0012", "0012: no such run; a run is named by "),
        ("1e10", "1e10: no such run; "),
        ("mlp", "mlp: no such run; alike are: "),
        ("best:model=x", "best:model=x: no run that is done and tested has model=x; there are: mlp"),
        (
            "best:model=mlp,optim=x",
            "best:model=mlp,optim=x: no run that is done and tested has optim=x; there are: adam",
        ),
        ("models:/digits@champion", "models:/digits@champion: no such model; "),
        ("unfinished-adam-s0", "unfinished-adam-s0: is not done (FINISHED)"),
        ("untested-adam-s0", "untested-adam-s0: has not been tested"),
        ("params.model = 'x'", "filter=params.model = 'x': finds no run that is done"),
    ],
)
def test_a_wrong_run_is_refused_before_training(harness, reference, words):
    fake = FakeStore(harness)
    fake.record("mlp", "adam", 0, 0.9)
    fake.record("unfinished", "adam", 0, 0.9, done=False)
    fake.record("untested", "adam", 0, 0.9, tested=False)
    end = harness.main("train", *TINY, f"vs={reference}", entry_point="digitlab")
    assert end.startswith(f"error: vs={reference}: {words}")
    assert "\n" not in end
    assert len(harness.runs()) == 3


def test_it_is_for_one_run_of_the_command_line(harness, monkeypatch):
    import digitlab
    from digitlab.config.errors import UserError

    monkeypatch.setenv("MLFLOW_TRACKING_URI", harness.uri)
    end = harness.main("train", "-m", *TINY, "seed=0,1", "vs=best", entry_point="digitlab")
    assert end == "error: vs=best: is for one run; digitlab compare best SWEEP compares those of a sweep with it"
    with pytest.raises(UserError, match=r"^vs=best: is for the command line"):
        digitlab.train(*TINY, vs="best")
    assert harness.main(*TINY, "vs=best").startswith("error: vs=best: uri=sqlite")
    assert not harness.folder.exists()
