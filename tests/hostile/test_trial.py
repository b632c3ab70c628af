"""What one trial step shows is one line before a run exists, and a run that cannot do all says what it leaves out."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import users_networks

from digitlab.data.datamodule import ImageData
from digitlab.data.sources import mnist5k
from digitlab.tracking.store import Store
from digitlab.training.trial import why_not_exported

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=2", "trainer=cpu")
TINY += ("data.batch_size=100", "model=mlp")  # 500 images for training: 5 batches
NO_KEYS = ("~model.blocks", "~model.hidden", "~model.dropout", "~model.init")
SEQUENTIAL = (
    "+scheduler={_target_: torch.optim.lr_scheduler.SequentialLR, _partial_: true, milestones: [2], schedulers: ["
    "{_target_: torch.optim.lr_scheduler.LinearLR, _partial_: true, total_iters: 2}, "
    "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, T_max: ???}]}"
)


@pytest.fixture(autouse=True)
def _own_code(monkeypatch):
    """Allow this folder's networks as targets, as a module in src/ would be."""
    packages = ("digitlab", "torch", "pytorch_lightning", "users_networks")
    monkeypatch.setattr("digitlab.config.build.PACKAGES", packages)


def own(network: str) -> list[str]:
    return [f"model._target_=users_networks.{network}", *NO_KEYS]


def optim(name: str) -> list[str]:
    return ["~optim", f"+optim={{_target_: torch.optim.{name}, _partial_: true}}"]


def callback(text: str) -> list[str]:
    return [f"+trainer.callbacks.x={{_target_: pytorch_lightning.callbacks.{text}}}"]


@pytest.mark.table
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (own("Tuple"), "model: its output is a tuple; must be logits, floats of shape (100, 10)"),
        (own("TooFewOutputs"), "model: its output for 2 images has the shape (2, 5); must be logits"),
        (own("Flat"), "model: its output for 100 images has the shape (1000,); must be logits"),
        (own("Classes"), "model: its output is of torch.int64; must be logits, floats"),
        (own("Double"), "model: fails at a batch of 100 images in training: RuntimeError: mat1 and mat2 must have "),
        (own("NoParameters"), "model: has no parameters, so there is nothing to train"),
        (own("Frozen"), "model: cannot be trained: element 0 of tensors does not require grad"),
        (own("Detached"), "model: cannot be trained: element 0 of tensors does not require grad"),
        (own("NotANumber"), "model: its loss is nan at the first step"),
        (own("DropsAll"), "model: layers.2: a dropout of 1 lets nothing through"),
        ([*own("OneSize"), "data.batch_size=128"], "model: its output for 116 images has the shape (2, 10)"),
        (own("OneSize"), "model: its output for 92 images has the shape (2, 10)"),  # 1,500 in batches of 128
        ([*own("AtMost499"), "data.batch_size=499"], "model: fails at a batch of 500 images in training: RuntimeError"),
        (own("FailsInEvaluation"), "model: fails at a batch of 128 images in evaluation: KeyError: 'never tried'"),
        ([*own("BatchNormed"), "data.batch_size=1"], "model: fails at a batch of 1 image in training: ValueError: "),
        (own("SparseGradients"), "optim: Adam does not support sparse gradients"),
        (optim("SparseAdam"), "optim: SparseAdam does not support dense gradients"),
        (optim("LBFGS"), "optim: LBFGS.step() missing 1 required positional argument: 'closure'"),
        (["optim._target_=torch.nn.Identity"], "optim._target_=torch.nn.Identity: must be a class of Optimizer"),
        (["model._target_=torch.optim.Adam"], "model._target_=torch.optim.Adam: must be a class of Module"),
        (["model._target_=pytorch_lightning.Trainer"], "model._target_=pytorch_lightning.Trainer: must be a class of "),
        (["+scheduler._target_=torch.optim.Adam"], "scheduler._target_=torch.optim.Adam: must be a class of LRSched"),
        (["trainer._target_=torch.nn.Identity"], "trainer._target_=torch.nn.Identity: must be a class of Trainer"),
        (["data._target_=torch.nn.Identity"], "data._target_=torch.nn.Identity: must be a class of LightningData"),
        (["data={_target_: pytorch_lightning.LightningDataModule}"], "data._target_=pytorch_lightning.LightningDataMo"),
        (["data.source._target_=torch.nn.Identity"], "data"),
        (
            ["+trainer.callbacks.x._target_=torch.nn.Identity"],
            "trainer.callbacks.x._target_=torch.nn.Identity: must be a class of Callback",
        ),
        (["scheduler=one_cycle", "scheduler.total_steps=9"], "scheduler: of 10 steps in 2 epochs: Tried to step"),
        (["scheduler=plateau", "monitor=val/acc", "+scheduler.mode=max"], "scheduler.mode=max: allowed: min, for of "),
        (["scheduler=inverse_time", "scheduler.gamma=-0.3"], "scheduler: gamma=-0.3: must be a number from 0"),
        (
            ["loss={_target_: torch.nn.CrossEntropyLoss, reduction: sum}", "trainer.accumulate_grad_batches=2"],
            "loss: of a batch it is not the mean of its images' losses, so a step cannot be made of parts; allowed wit",
        ),
        (callback("EarlyStopping, monitor: val/f1"), "trainer.callbacks.x.monitor=val/f1: is not logged; allowed: tr"),
        (callback("ModelCheckpoint, monitor: lr"), "trainer.callbacks.x.monitor=lr: is not logged"),
        (["model.hidden=[{units: 8, dropout: 1}]"], "model: dropout=1: must be a number from 0 and below 1"),
        (["model.hidden=[{units: 8, dropout: nan}]"], "model: dropout=nan: must be a number from 0 and below 1"),
        (["model.hidden=[{units: true}]"], "model: units=True: must be a whole number from 1"),
        (["model.blocks=[{channels: 0}]"], "model: channels=0: must be a whole number from 1"),
        (["model.blocks=[{channels: 2, kernel: 0}]"], "model: kernel=0: must be a whole number from 1"),
        (["model.blocks=[{channels: 2, kernel: 29}]"], "model: Calculated padded input size per channel: (28 x 28)"),
        (["model.blocks=[{channels: 2, pool: 27}]"], "model: Given input size: (2x26x26)"),
        (["+trainer.gradient_clip_val=abc"], "trainer.gradient_clip_val=abc: must be null or a number above 0"),
    ],
)  # fmt: skip
def test_what_a_trial_shows_is_one_line_before_a_run_exists(harness, overrides, words):
    end = harness.main(*TINY, *overrides)
    assert isinstance(end, str)
    assert end.startswith(f"error: {words}"), end
    assert "\n" not in end
    assert len(end) <= 350
    assert not harness.folder.exists()


@pytest.mark.slow
@pytest.mark.lean
def test_a_trial_changes_no_number(harness, monkeypatch):
    overrides = (*TINY, "model.hidden=[{units: 8, dropout: 0.3}]", "scheduler=one_cycle", "trainer.max_epochs=1")
    harness.train(*overrides)
    for name in ("try_network", "try_step", "try_scheduler", "try_checkpoint"):
        monkeypatch.setattr(f"digitlab.training.trial.{name}", lambda *_: None)
    harness.train(*overrides, "rerun=true")
    tried, untried = (harness.history(run, "train/loss_step") for run in harness.runs())
    assert len(tried) == 5
    assert tried == untried


@pytest.mark.slow
@pytest.mark.lean
def test_the_last_image_joins_the_batch_before_where_a_layer_needs_two(harness, capsys):
    users_networks.SIZES.clear()
    harness.train(*TINY, *own("BatchNormed"), "data.batch_size=83", "trainer.max_epochs=1")  # 500 = 6 * 83 + 2
    assert users_networks.SIZES[-7:] == [83] * 6 + [2]
    assert "joins the batch" not in capsys.readouterr().out
    users_networks.SIZES.clear()
    harness.train(*TINY, *own("BatchNormed"), "data.batch_size=499", "trainer.max_epochs=2")
    assert users_networks.SIZES[-2:] == [500, 500]
    assert "the last image of each epoch joins the batch before it: 499 + 1 images" in capsys.readouterr().out
    users_networks.SIZES.clear()
    three = ("scheduler=one_cycle", "++trainer.max_steps=3", "trainer.max_epochs=4")
    harness.train(*TINY, *own("BatchNormed"), "data.batch_size=499", *three)  # an epoch is one step then, and not two
    assert users_networks.SIZES[-3:] == [500, 500, 500]
    assert len(harness.history(harness.runs()[0], "train/loss_step")) == 3


@pytest.mark.lean
def test_a_parameter_that_no_gradient_reaches_is_named(harness, capsys):
    harness.train(*TINY, *own("PartlyUnused"), "trainer.max_epochs=1")
    assert "warning: model: no gradient reaches spare.weight and 1 more" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("network", ["LooksAtValues", "LooksAtValuesOnceTrained"])
def test_a_network_that_cannot_be_exported_is_trained_without_a_logged_model(harness, network, capsys):
    harness.train(*TINY, *own(network), "trainer.max_epochs=1")
    (run,) = harness.runs()
    said = capsys.readouterr().out
    assert (run.info.status, run.data.tags["done"]) == ("FINISHED", "true")
    assert run.data.tags["without_model"].startswith("torch.export cannot export it (")
    assert said.count("warning: no model is logged, all else is: torch.export cannot export it (") == 1
    assert not harness.client.search_logged_models([run.info.experiment_id])
    assert "figures" in {each.path for each in harness.client.list_artifacts(run.info.run_id)}
    before_training = said.index("no model is logged") < said.index("epoch 1/1")
    assert before_training == (network == "LooksAtValues")


def test_only_a_model_of_any_number_of_images_counts_as_exported():
    data = ImageData(mnist5k)
    data.setup()
    for way in ("view", "zeros", "expand", "int"):
        reason = why_not_exported(users_networks.Batched(10, (1, 28, 28), way), data)
        assert reason.startswith("torch.export fixed how many images it takes, and 1 is refused: forward must say "), (
            way
        )
    assert why_not_exported(users_networks.Batched(10, (1, 28, 28), "shape"), data) == ""


@pytest.mark.lean
def test_a_plateau_is_watched_each_epoch(harness):
    plateau = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0, threshold: 9.0}"
    harness.train(*TINY, f"+scheduler={plateau}", "trainer.max_epochs=3")
    rates = [value for _, value in harness.history(harness.runs()[0], "lr")]
    assert rates == pytest.approx([1e-4, 1e-5, 1e-6])


@pytest.mark.lean
def test_a_scheduler_may_be_made_of_schedulers(harness):
    harness.train(*TINY, SEQUENTIAL)
    (_, first), (_, last) = harness.history(harness.runs()[0], "lr")
    assert first == pytest.approx(1e-3 * (1 + math.cos(math.pi * 3 / 10)) / 2)
    assert last == pytest.approx(1e-3 * (1 + math.cos(math.pi * 8 / 10)) / 2)


class OldServer(BaseHTTPRequestHandler):
    """As much of an MLflow server as is asked of it first."""

    version = "2.16.2"

    def do_GET(self):
        content = {"experiment": {"experiment_id": "7", "name": "digitlab", "lifecycle_stage": "active"}}
        body = (self.version if self.path == "/version" else json.dumps(content)).encode()
        self.send_response(404 if self.path == "/version" and not self.version else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def old_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), OldServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_of_mlflow_2_is_refused_before_anything_is_made(old_server, monkeypatch):
    with pytest.raises(ValueError, match=r"server is of MLflow 2\.16\.2, and must be of 3 or newer"):
        Store(old_server, "digitlab").open()
    for version in ("3.0.0", "3.17.2rc1", "", "<html>a proxy</html>"):  # who does not say which is taken for new
        monkeypatch.setattr(OldServer, "version", version)
        Store(old_server, "digitlab").open()
