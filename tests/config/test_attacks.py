"""Configurations and checkpoints are data: hostile ones end in one line, and what they wanted to run never runs."""

import ast
import os
import pickle
import re
import warnings

import pytest
import torch

from digitlab.config import build
from digitlab.config.check import check
from digitlab.config.errors import UserError
from digitlab.training.checkpoint import EpochCheckpoint

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=3", "trainer=cpu",
        "model=mlp")  # fmt: skip


@pytest.fixture
def canary(tmp_path):
    """A file that no attack may make."""
    file = tmp_path / "canary"
    yield file
    assert not file.exists()


# {} is the canary's path.
HOSTILE = [
    "{_target_: os.system, command: 'touch {}'}",
    "{_target_: posix.system, command: 'touch {}'}",
    "{_target_: os.open, path: '{}', flags: 66}",
    "{_target_: os.mkdir, path: '{}'}",
    "{_target_: logging.os.system, command: 'touch {}'}",
    "{_target_: logging.FileHandler, filename: '{}'}",
    "{_target_: subprocess.Popen, args: [touch, '{}']}",
    "{_target_: subprocess.check_output, args: [touch, '{}']}",
    '{_target_: builtins.eval, _args_: [\'open("{}", "w")\']}',
    '{_target_: builtins.exec, _args_: [\'open("{}", "w")\']}',
    "{_target_: builtins.open, file: '{}', mode: w}",
    "{_target_: io.open, file: '{}', mode: w}",
    "{_target_: pathlib.Path.touch, _args_: ['{}']}",
    "{_target_: shutil.copy, src: /etc/hostname, dst: '{}'}",
    "{_target_: functools.partial, _args_: [os.system, 'touch {}']}",
    "{_target_: operator.methodcaller, _args_: [system, 'touch {}']}",
    "{_target_: importlib.import_module, name: antigravity}",
    "{_target_: runpy.run_path, path_name: '{}.py'}",
    "{_target_: hydra.utils.get_method, path: os.system}",
    "{_target_: hydra.utils.instantiate, config: {_target_: os.mkdir, path: '{}'}}",
    "{_target_: pickle.loads, _args_: ['{}']}",
    "{_target_: numpy.load, file: '{}', allow_pickle: true}",
    "{_target_: mlflow.pyfunc.load_model, model_uri: '{}'}",
    "{_target_: torch.load, f: '{}.pkl', weights_only: false}",
    "{_target_: torch.save, obj: x, f: '{}'}",
    "{_target_: torch.os.system, command: 'touch {}'}",
    "{_target_: torch.os.mkdir, path: '{}'}",
    "{_target_: torch.hub.load, repo_or_dir: '{}', model: x, source: local}",
    "{_target_: torch.hub.download_url_to_file, url: 'file:///etc/hostname', dst: '{}'}",
    "{_target_: torch.utils.cpp_extension.load, name: x, sources: ['{}.cpp']}",
    '{_target_: torch.utils.benchmark.Timer, stmt: \'open("{}", "w")\'}',
    "{_target_: torch.package.PackageImporter, file_or_buffer: '{}.pt'}",
    "{_target_: torch.multiprocessing.spawn, fn: os.system, args: ['touch {}']}",
    "{_target_: torch.nn.Module.__init__.__globals__.get, _args_: [os]}",
    "{_target_: pytorch_lightning.LightningModule.load_from_checkpoint, checkpoint_path: '{}.pkl'}",
    "{_target_: pytorch_lightning.loggers.CSVLogger, save_dir: '{}'}",
    "{_target_: digitlab.data.sources.os.mkdir, path: '{}'}",
    "{_target_: digitlab.data.download.urlopen, url: 'file:///etc/hostname'}",
    "{_target_: digitlab.data.download._download, url: 'file:///etc/hostname', file: '{}'}",
    "{_target_: digitlab.tracking.store.Store, uri: 'sqlite:///{}', experiment: x}",
    "{_target_: digitlab.training.run.instantiate, config: {_target_: os.mkdir, path: '{}'}}",
    "{_target_: train.sys.modules.get, _args_: [os]}",
    "{_target_: 'torch.nn.${oc.env:HOME}'}",
    "{_target_: [os.system], command: 'touch {}'}",
    "{_target_: torch.nn.Identity, _args_: [{_target_: os.mkdir, path: '{}'}]}",
    "{_target_: torch.nn.Identity, x: [{y: {_target_: os.mkdir, path: '{}'}}]}",
    "{_target_: torch.nn.Identity, x: {_target_: torch.os.mkdir, path: '{}'}}",
    "{_target_: torch.nn.Identity, _recursive_: false}",
    "{_target_: torch.nn.Identity, _convert_: none}",
]


@pytest.mark.table
@pytest.mark.parametrize("node", HOSTILE)
def test_a_hostile_target_is_refused_in_one_line(harness, canary, node):
    (canary.parent / "canary.py").write_text(f"open({str(canary)!r}, 'w')")
    (canary.parent / "canary.pkl").write_bytes(pickle.dumps(Payload(canary)))
    node = node.replace("{}", str(canary))
    end = harness.main(*TINY, f"+trainer.callbacks.evil={node}")
    assert isinstance(end, str)
    assert end.startswith("error: trainer.callbacks.evil")
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.mark.parametrize("key", ["model", "optim", "data", "data.source", "trainer", "scheduler"])
def test_no_node_is_open_to_an_alias(harness, canary, key):
    begin = ("scheduler=cosine", f"{key}._target_=digitlab.models.networks.copy.os.mkdir", f"+{key}.path={canary}")
    assert harness.main(*TINY, *begin).startswith(f"error: {key}")
    assert not harness.folder.exists()


def test_a_network_of_the_users_own_lies_in_src(harness, tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "ownnet.py").write_text(
        "import os\nfrom digitlab.models.networks import ConvNet\nclass Own(ConvNet): pass"
    )
    monkeypatch.syspath_prepend(tmp_path / "src")
    cfg = harness.compose("model._target_=ownnet.Own")
    with pytest.raises(UserError, match="or a module that lies in src/"):
        check(cfg)
    monkeypatch.setattr(build, "SOURCES", (tmp_path / "src",))
    assert type(build.build(check(cfg), "model")).__name__ == "Own"
    with pytest.raises(UserError, match=r"must be a class of Module$"):
        build.build(check(harness.compose("model._target_=ownnet.os.mkdir")), "model")


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.evil={_target_: os.mkdir, path: '{}'}",
        "+hydra.callbacks={evil: {_target_: os.mkdir, path: '{}'}}",
        "++hydra.callbacks.evil={_target_: logging.FileHandler, filename: '{}'}",
        "+hydra/callbacks=evil",
        "hydra/job_logging=default",
        "hydra.job_logging={version: 1, root: {}, handlers: {x: {class: logging.FileHandler, filename: '{}'}}}",
        "+hydra.hydra_logging.handlers.x={class: logging.FileHandler, filename: '{}'}",
        "hydra.run.dir={}",
        "hydra.output_subdir={}",
        "hydra.searchpath=[file://{}]",
        "hydra.sweeper._target_=os.mkdir",
        "+hydra.launcher.evil={_target_: os.mkdir, path: '{}'}",
        "+model@hydra.callbacks.evil=mlp",
        "+hydra.job.env_set.LD_PRELOAD='{}'",
    ],
)
def test_hydras_own_node_is_closed_to_the_command_line(harness, canary, override):
    end = harness.main(*TINY, override.replace("{}", str(canary)))
    assert ": not to be changed from here; allowed of Hydra's: hydra/launcher, " in end
    assert not harness.folder.exists()


def test_no_file_of_the_configuration_reaches_into_hydras_callbacks_or_loggers(repository):
    for file in (repository / "conf").rglob("*.yaml"):
        text = file.read_text().replace("override hydra/job_logging: none", "")
        text = text.replace("override hydra/hydra_logging: none", "")
        assert "_logging" not in text, file
        assert "callbacks" not in text or file.parent.name == "trainer", file


class Payload:
    """What a pickle can carry: unpickling it makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "torch"])
def test_a_pickle_in_place_of_a_checkpoint_is_not_run_and_the_one_before_continues(
    harness, canary, capsys, monkeypatch, form
):
    save = EpochCheckpoint.on_train_epoch_end

    def stop(self, trainer, module):
        save(self, trainer, module)
        if trainer.current_epoch == 1:  # two epochs are done
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            harness.train(*TINY)
    (run,) = harness.runs()
    last = harness.folder / "artifacts" / run.info.run_id / "artifacts" / "checkpoints" / "last.ckpt"
    if form == "plain":
        last.write_bytes(pickle.dumps(Payload(canary)))
    else:
        torch.save({"state_dict": Payload(canary), "callbacks": {}}, last)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        harness.train(*TINY)
    said = "".join(capsys.readouterr())
    assert "does not read back: not used" in said
    assert re.search("after epoch [12] of 3", said)  # from previous.ckpt, or a best.ckpt that is newer
    assert harness.runs()[0].data.tags["done"] == "true"


def test_a_payload_would_make_the_canary_if_it_were_let(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_nothing_is_loaded_that_could_run(repository):
    """Every call that reads what torch wrote says weights_only=True, and no file of pickles is read."""
    loading = 0
    for file in (repository / "src").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name, given = ast.unparse(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
            if name == "torch.load" or "ckpt_path" in given:
                loading += 1
                assert given.get("weights_only") == "True", f"{file}:{call.lineno}"
            assert name.rpartition(".")[2] not in ("load_from_checkpoint", "loads_pickle", "unsafe_load"), file
            assert given.get("allow_pickle", "False") == "False", f"{file}:{call.lineno}"
        if file.name == "ray_cell.py":  # a sweep and its own workers speak in pickles, as Ray does; no file holds them
            continue
        assert not {"pickle", "cloudpickle", "joblib", "dill"} & {
            alias.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }, file
    assert loading == 4
