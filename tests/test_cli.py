"""The command and the function of Python: what they take, say and load, and that all ways name a run alike."""

import socket
import subprocess
import sys

import pytest
from fake_store import empty_tables
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import digitlab
from digitlab.config.errors import UserError
from digitlab.training import api
from digitlab.training.run import train
from digitlab.training.setup import identify, name_parts, name_run

TINY = ("model=mlp", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke", "model.hidden=[{units: 8}]")
NAME = "mlp-adam-s0-mnist5k-data.test_fraction=0.8-smoke-model.hidden=[{units: 8}]"


def command(harness, *arguments):
    return harness.main(*arguments, entry_point="digitlab")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_says_what_there_is(harness, capsys, arguments):
    assert command(harness, *arguments) is None
    said = capsys.readouterr().out
    for word in ("train", "sweep", "report", "store", "digitlab train model=mlp data=mnist5k"):
        assert f"\n  {word}" in said


@pytest.mark.parametrize("command_line", ["digitlab train", "digitlab sweep", "digitlab report", "python src/train.py"])
def test_help_is_of_the_command_that_was_given_and_lists_the_users_files(harness, capsys, tmp_path, command_line):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("_target_: torch.optim.SGD\n")
    program, _, name = command_line.partition(" ")
    asked = ["--help", f"--config-dir={tmp_path}"]
    end = command(harness, name, *asked) if program == "digitlab" else harness.main(*asked)
    assert not end
    said = capsys.readouterr().out
    assert f": {command_line} KEY=VALUE" in said
    if name != "report":
        assert "rmsprop sgd sgd_momentum mine\n" in said.replace("\n" + " " * 34, " ")


@pytest.mark.parametrize("arguments", [["train.py", "--help"], ["train.py", "--cfg", "job"], ["report.py", "-h"]])
def test_a_reader_that_stops_reading_is_no_error(harness, repository, arguments):
    script = f"{sys.executable} {repository}/src/{arguments[0]} {' '.join(arguments[1:])} | true"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=repository, timeout=60)
    assert told.stderr == ""


COMMANDS = (
    "train, sweep, report, compare, bisect, explain, rerun, register, predict, evaluate, export, serve, board, claims, "
    "ui, store"
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], f"trian: unknown command; allowed: {COMMANDS}; did you mean: digitlab train"),
        (
            ["store", "chekc"],
            "chekc: unknown command; allowed: relocate, gc, check, restore, sync, copy; did you mean: digitlab store",
        ),
        (["model=cnn_pool"], "no command; did you mean: digitlab train model=cnn_pool"),
        (["-m", "seed=1,2"], "no command; did you mean: digitlab train -m seed=1,2"),
        (
            ["--config-dir", "my conf", "optim=x"],
            "no command; did you mean: digitlab train --config-dir 'my conf' optim=x",
        ),
        (["report.sweep=grid"], "no command; did you mean: digitlab report report.sweep=grid"),
        (["store", "clean"], "clean: unknown command; allowed: relocate, gc"),
        (["store", "gc", "--dry"], "No such option '--dry'"),
        (
            ["sweep"],
            "sweep: which one? digitlab sweep NAME; there are: claims, counterparts, field, field_counterparts, grid, ",
        ),
        (["sweep", "sweep.seeds=2"], "sweep: which one?"),
        (["sweep", "gird"], "sweep=gird: not found; allowed: claims, counterparts, field, field_counterparts, grid, "),
        (["train", "optim.lr=-1"], "optim.lr=-1: must be a number above 0"),
        (["train", "hydra.run.dir=x"], "hydra.run.dir: not to be changed from here"),
        (["report", "reprot.sweep=x"], "reprot"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(harness, capsys, arguments, words):
    end = command(harness, *arguments)
    said = end if isinstance(end, str) else capsys.readouterr().err.removesuffix("\n")
    assert said.startswith(f"error: {words}")
    assert "\n" not in said
    assert not harness.folder.exists()


@pytest.mark.parametrize("arguments", [["compare", "a"], ["bisect", "a", "b", "--seeds", "1"], ["register", "a"]])
def test_a_gate_that_is_asked_wrongly_does_not_answer(harness, capsys, arguments):
    assert command(harness, *arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_ui_of_no_store_or_experiment_is_a_mistake(harness, capsys, monkeypatch):
    monkeypatch.setattr("os.execve", lambda *started: pytest.fail(f"{started} was started"))
    assert str(command(harness, "ui")).startswith(f"error: ui: uri={harness.uri}: there is no such file")
    assert not harness.folder.exists()


def test_the_ui_does_not_say_that_it_is_where_something_else_listens(harness, capsys, monkeypatch):
    monkeypatch.setattr("os.execve", lambda *started: pytest.fail(f"{started} was started"))
    harness.folder.mkdir()
    (harness.folder / "mlflow.db").write_bytes(empty_tables())
    harness.client.create_experiment("digitlab")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert str(command(harness, "ui", "--port", str(port))).startswith(
            f"error: --port={port}: something else listens"
        )
    assert "Runs:" not in capsys.readouterr().out


def test_the_ui_is_that_of_the_store_and_names_the_experiment(harness, capsys, monkeypatch):
    harness.folder.mkdir()
    (harness.folder / "mlflow.db").write_bytes(empty_tables())
    for name in ("first", "digitlab"):
        number = harness.client.create_experiment(name)
    assert number == "2"
    started = []
    monkeypatch.setattr("os.execve", lambda program, words, environment: started.append((words, environment)))
    assert command(harness, "ui", "--port", "5077") is None
    assert "Runs: http://127.0.0.1:5077/#/experiments/2?workflowType=machine_learning" in capsys.readouterr().out
    (((_, *words), environment),) = started
    assert words[:3] == ["-m", "mlflow", "ui"]
    assert {"5077", "127.0.0.1"} < set(words)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == harness.uri  # which may hold a password, so it is no word
    assert str(command(harness, "ui", "--experiment", "theirs")).startswith("error: ui: experiment=theirs: not found")


def test_hydras_grammar_reaches_it_untouched(harness, capsys, tmp_path):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "slow.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n")
    for arguments in (["--config-dir", str(tmp_path), "optim=slow", "-c", "job"],
                      ["-cjob", f"--config-dir={tmp_path}", "optim=slow", "++optim.lr=0.5"]):  # fmt: skip
        assert command(harness, "train", *arguments, "-p", "optim") is None
        printed = OmegaConf.create(capsys.readouterr().out)
        assert printed == {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}


@pytest.mark.parametrize("arguments", [["sweep", "smoke"], ["sweep", "sweep=smoke"]])
def test_a_sweep_is_named_alone_or_by_its_key(harness, capsys, arguments):
    assert command(harness, *arguments, "model=mlp", "optim=adam", "sweep.dry_run=true") is None
    assert "sweep smoke: 1 cells: " in capsys.readouterr().out
    assert not harness.folder.exists()


@pytest.mark.lean
def test_every_way_names_a_run_alike_and_finds_it(harness, capsys, repository, monkeypatch):
    assert command(harness, "train", *TINY) is None
    (run,) = harness.runs()
    assert run.info.run_name == NAME
    assert run.data.tags["command"] == f"digitlab train {' '.join(TINY[:-1])} 'model.hidden=[{{units: 8}}]'"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", harness.uri)
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        by_hand = compose("train", list(TINY))
    capsys.readouterr()
    best = train(by_hand)
    assert f"is done already (run {run.info.run_id})" in capsys.readouterr().out
    keys = {"data.test_fraction": 0.8, "trainer": "smoke", "model.hidden": [{"units": 8}]}
    found = digitlab.train("model=mlp", data="mnist5k", **keys)
    assert (found.id, found.name, found.fingerprint) == (run.info.run_id, NAME, run.data.tags["fingerprint"])
    assert (
        found.best_val_acc == best == max(each.value for each in harness.client.get_metric_history(found.id, "val/acc"))
    )
    assert found.metrics == run.data.metrics
    assert run.info.artifact_uri.endswith(found.artifacts)
    assert found.store == harness.uri
    capsys.readouterr()
    assert command(harness, "train", "-m", *TINY, "seed=0", "sweep.dry_run=true") is None
    assert "1 cells: 1 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=mnist5k"],
        ["data=mnist5k", "model=cnn_wide", "seed=3", "model.dropout=false"],
        ["data=mnist5k", "optim=sgd_momentum", "scheduler=cosine", "trainer=smoke", "data.batch_size=64"],
        ["data=mnist5k", "trainer=cpu", "loss=clipped_cross_entropy"],
        ["data=mnist5k", "early_stopping.patience=3"],
        ["data=mnist5k", "+trainer.gradient_clip_val=1", "tracking.experiment=other", "rerun=true"],
        ["claim=cnn_pool_000_first_epoch", "data=mnist5k", "claim.data=mnist5k", "data.fallback=null", "seed=3"],
        ["claim=speedrun", "data=mnist5k", "claim.data=mnist5k"],
    ],
)
def test_what_is_composed_by_hand_has_the_command_lines_names_and_fingerprint(harness, repository, overrides):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        by_hand = compose("train", overrides)
    identities = []
    for cfg in (by_hand, harness.compose(*overrides)):
        cfg, data, fingerprint = identify(cfg)
        names = name_parts(cfg, data)
        identities.append((fingerprint, names, name_run(cfg, names)))
    assert identities[0] == identities[1]


def test_a_stale_hydra_of_another_program_names_nothing(harness, repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        by_hand = compose("train", ["model=mlp", "data=mnist5k"])
    harness.compose("model=cnn_simple", "optim=sgd", "data.batch_size=7")  # sets Hydra up for another run
    cfg, data, _ = identify(by_hand)
    assert name_run(cfg, name_parts(cfg, data)) == "mlp-adam-s0-mnist5k"


def test_a_value_that_points_elsewhere_is_in_the_name_as_it_was_written(harness):
    cfg, data, _ = identify(
        harness.compose("data=mnist5k", "data.skip_first=${seed}", "model.dropout=${..data.normalize}")
    )
    assert (
        name_run(cfg, name_parts(cfg, data))
        == "cnn_pool-adam-s0-mnist5k-data.skip_first=$(seed)-model.dropout=$(..data.normalize)"
    )


@pytest.mark.parametrize(
    ("overrides", "keys", "words"),
    [
        (["optim=adm"], {}, "optim=adm: not found; allowed: adadelta, "),
        (["optim.lr"], {}, "Error parsing override 'optim.lr'"),
        (["model=mlp,cnn_pool"], {}, "Ambiguous value for argument 'model=mlp,cnn_pool'"),
        (["sweep=grid"], {}, "sweep=grid: is many runs, and this trains one"),
        ([], {"seed": -1}, "seed=-1: must be a whole number"),
        ([], {"seed": "1"}, "seed='1': must be a whole number"),
        ([], {"config_dir": "/nowhere"}, "config_dir=/nowhere: there is no such folder"),
        (["data.skip_first=${nothing}"], {}, "nothing: is missing, and data.skip_first takes its value"),
        (["hydra.run.dir=x"], {}, "hydra.run.dir: not to be changed from here"),
    ],
)
def test_a_mistake_from_python_is_a_user_error_of_one_line(harness, monkeypatch, overrides, keys, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", harness.uri)
    with pytest.raises(UserError) as error:
        digitlab.train("data=mnist5k", *overrides, **keys)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    "value",
    [1, 0.5, 1e-7, True, None, "mlp", "a b", "true", "1", "a,b", 'say "x"', "", [1, "a"], {"a": [None, {"b": "c d"}]}],
)
def test_a_keyword_reaches_the_configuration_as_it_is(value):
    from digitlab.config.compose import configuration

    with configuration():
        cfg = api.compose(f"+optim.x={api._as_typed(value)}")
    found = OmegaConf.to_container(cfg).get("optim")["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"torch", "mlflow", "hydra", "omegaconf", "matplotlib"}),
        (["store", "--help"], {"torch", "mlflow", "hydra", "omegaconf", "matplotlib"}),
        (["train", "--cfg", "job"], {"torch", "mlflow", "matplotlib"}),
        (["train", "optim=adm"], {"torch", "mlflow", "matplotlib"}),
        (["train", "optim.lr=-1"], {"torch", "mlflow", "matplotlib"}),
    ],
)
def test_what_answers_at_once_loads_nothing_large(repository, arguments, absent):
    code = (
        "import atexit, sys\n"
        f"sys.path.insert(0, {str(repository / 'src')!r}); sys.argv = ['digitlab', *{arguments}]\n"
        f"atexit.register(lambda: print('LOADED', {absent} & set(sys.modules)))\n"
        "from digitlab.__main__ import main; main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED set()" in process.stdout
