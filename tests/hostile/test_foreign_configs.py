"""Files of configuration from elsewhere choose networks and cells, and run nothing of Hydra's."""

import pickle

import pytest

from digitlab.config.errors import UserError

TINY = ("data=mnist5k", "model=mlp", "trainer=cpu", "trainer.max_epochs=1")
LOGGING = "version: 1\nhandlers: {{x: {{class: logging.FileHandler, filename: '{canary}'}}}}\nroot: {{handlers: [x]}}\n"
JOBLIB = "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n"
# name -> file, its content, what chooses it; {canary} is a path that nothing may make
FILES = {
    "callbacks in a global file": (
        "optim/mine.yaml",
        "# @package _global_\nhydra: {{callbacks: {{evil: {{_target_: os.mkdir, path: '{canary}'}}}}}}\n",
        "optim=mine",
    ),
    "the package is hydra": (
        "optim/mine.yaml",
        "# @package hydra.callbacks.evil\n_target_: os.mkdir\npath: '{canary}'\n",
        "optim=mine",
    ),
    "a package in the defaults list": (
        "sweep/mine.yaml",
        "# @package _global_\ndefaults:\n  - /evil@hydra.callbacks.evil: mine\n",
        "sweep=mine",
    ),
    "logging": (
        "optim/mine.yaml",
        "# @package hydra.job_logging\n" + LOGGING,
        "optim=mine",
    ),
    "another class as launcher": (
        "sweep/mine.yaml",
        JOBLIB + "hydra: {{launcher: {{_target_: os.mkdir, path: '{canary}'}}}}\n",
        "sweep=mine",
    ),
    "a launcher's shell": (
        "sweep/mine.yaml",
        JOBLIB + "hydra: {{launcher: {{setup: ['touch {canary}']}}}}\n",
        "sweep=mine",
    ),
    "a launcher of its own": (
        "hydra/launcher/mine.yaml",
        "_target_: os.mkdir\npath: '{canary}'\n",
        "hydra/launcher=mine",
    ),
    "another sweeper": (
        "hydra/sweeper/mine.yaml",
        "_target_: os.mkdir\npath: '{canary}'\n",
        "+optim=adam",
    ),
    "the environment of the job": (
        "optim/mine.yaml",
        "# @package _global_\nhydra: {{job: {{env_set: {{LD_PRELOAD: '{canary}'}}}}}}\n",
        "optim=mine",
    ),
    "where it runs": (
        "optim/mine.yaml",
        "# @package _global_\nhydra: {{run: {{dir: '{canary}'}}, output_subdir: x}}\n",
        "optim=mine",
    ),
    "by way of the cells": (
        "sweep/mine.yaml",
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 0,1\n"
        "      +hydra.callbacks.evil: \"{{_target_: os.mkdir, path: '{canary}'}}\"\n",
        "sweep=mine",
    ),
}


@pytest.fixture
def canary(tmp_path):
    """A file that no configuration may make."""
    file = tmp_path / "canary"
    yield file
    assert not file.exists()


@pytest.fixture
def folder(tmp_path, canary):
    """A folder of somebody else's configuration, which others of its kinds are in too."""
    for file, text in (
        ("hydra/job_logging/mine.yaml", LOGGING),
        ("evil/mine.yaml", "_target_: os.mkdir\npath: '{canary}'\n"),
    ):
        (tmp_path / "conf" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / file).write_text(text.format(canary=canary))
    return tmp_path / "conf"


@pytest.mark.table
@pytest.mark.parametrize("entry_point", ["train", "report"])
@pytest.mark.parametrize("name", FILES)
def test_a_foreign_file_does_not_reach_into_hydra(harness, folder, canary, name, entry_point):
    file, text, choice = FILES[name]
    if entry_point == "report" and name != "logging":
        pytest.skip("one of them shows that it is closed there too")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text.format(canary=canary))
    chosen = ("+optim=mine",) if entry_point == "report" else (*TINY, choice)
    end = harness.main(f"--config-dir={folder}", *chosen, entry_point=entry_point)
    if name == "another sweeper":
        assert isinstance(end, str)  # its name is not one of the command line's
    elif name == "a launcher of its own":
        assert end.startswith("error: hydra/launcher=mine: not found; allowed: basic, ")
    else:
        assert end.startswith("error: ")  # where Hydra itself does not take it, its own
        assert "not to be changed " in end or "hydra" in end
    assert "\n" not in end
    assert not harness.folder.exists()


def test_a_file_outside_the_folders_of_configuration_is_no_choice(harness, folder, canary, repository):
    (folder / "optim").mkdir()
    (folder / "optim" / "mine.yaml").write_text(FILES["the package is hydra"][1].format(canary=canary))
    up = "../" * len(repository.parts)
    end = harness.main(*TINY, f"optim='{up}{folder}/optim/mine'")
    assert isinstance(end, str)
    assert not harness.folder.exists()


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--experimental-r", "--exp"])
def test_a_pickled_job_is_not_run_again(harness, tmp_path, canary, flag):
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(Payload(canary)))
    for arguments in ([f"{flag}={tmp_path / 'job.pickle'}"], [flag, str(tmp_path / "job.pickle")]):
        assert harness.main(*arguments).startswith("error: --experimental-rerun: not to be used here")


@pytest.mark.parametrize("flag", ["--config-path", "-cp", "--config-name", "-cn"])
def test_the_configuration_is_conf_whoever_adds_to_it(harness, folder, flag):
    assert ": not to be used here: " in harness.main(flag, str(folder), *TINY)
    assert not harness.folder.exists()


@pytest.mark.slow
def test_a_foreign_file_may_name_cells_and_the_numbers_of_a_launcher(harness, folder, capsys):
    (folder / "sweep").mkdir()
    (folder / "sweep" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\nsweep: {name: mine, dry_run: true}\n"
        "hydra:\n  mode: MULTIRUN\n  launcher: {n_jobs: 2}\n  sweeper: {params: {seed: '0,1', model: mlp}}\n"
    )
    for typed in ((), ("hydra.launcher.n_jobs=1",)):
        end = harness.main(f"--config-dir={folder}", "sweep=mine", "data=mnist5k", "trainer=cpu", *typed)
        assert end is None
        assert "sweep mine: 2 cells: 0 done, 0 to resume, 2 to run" in capsys.readouterr().out


def test_python_is_closed_too(folder, canary, tmp_path):
    import digitlab

    (folder / "optim").mkdir()
    (folder / "optim" / "mine.yaml").write_text(FILES["the package is hydra"][1].format(canary=canary))
    with pytest.raises(UserError, match="not to be changed by a file"):
        digitlab.train(*TINY, "optim=mine", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", config_dir=folder)


class Payload:
    """What a pickle can carry: unpickling it makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.canary),)
