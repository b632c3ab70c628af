"""Mistakes at the command line, the frozen surface of keys."""

import re

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from digitlab import CONF
from digitlab.config.check import check
from digitlab.config.leaves import flatten


def leaves(cfg) -> set[str]:
    return {key for key in flatten(check(cfg)) if not key.startswith("names.")}


@pytest.fixture
def nothing_recorded(harness):
    yield
    assert not harness.folder.exists()


CLAIMS = len(list((CONF / "claim").glob("*.yaml")))
BASE = ("data=mnist5k", "trainer=smoke", "model=mlp")


@pytest.mark.table
@pytest.mark.usefixtures("nothing_recorded")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["optim=adm"],
            "optim=adm: not found; allowed: adadelta, adagrad, adam, adamw, nadam, rmsprop, sgd, sgd_momentum; "
            "did you mean: adam",
        ),
        (["claim=simple_04"], f"claim=simple_04: not found; allowed: {CLAIMS} names"),
        (["model=cnn_pol"], "model=cnn_pol: not found; allowed: cnn_dense1000, "),
        (["optim.lr=abc"], "optim.lr=abc: must be a number above 0"),
        (["optim.lr=-1"], "optim.lr=-1: must be a number above 0"),
        (["optim.lr=inf"], "optim.lr=Infinity: must be a number above 0"),
        (["optim.lr=nan"], "optim.lr=NaN: must be a number above 0"),
        (["optim.lr=true"], "optim.lr=true: must be a number above 0"),
        (["optim.eps=-1"], "optim: Invalid epsilon value: -1"),
        (["seed=-3"], "seed=-3: must be a whole number from 0 to 4294967295"),
        (["seed=1.5"], "seed=1.5: must be a whole number"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be a whole number from 1"),
        (["data.batch_size=0"], "data.batch_size=0: must be a whole number from 1"),
        (["data.val_fraction=1.5"], "data.val_fraction=1.5: must be a number above 0 and below 1"),
        (["data.split=middle"], "data.split=middle: must be auto, first, last, random, stratified or test"),
        (["data.val_fraction=0.95"], "data: val_fraction=0.95: gives 4750 of 4500 images to validation"),
        (["evaluate_on=middle"], "evaluate_on=middle: must be best, last or none"),
        (["early_stopping.patience=0"], "early_stopping.patience=0: must be null or a whole number from 1"),
        (["model.dropout=0.3"], "model.dropout=0.3: must be true or false"),
        (["trainer.precision=fp8"], "trainer.precision=fp8: must be auto, 32-true, bf16-mixed, bf16-true or 16-mixed"),
        (["trainer.max_epoch=3"], "trainer.max_epoch: unknown key; allowed: accelerator, precision, max_epochs, "),
        (
            ["data.augment.colour=2"],
            "data.augment.colour: unknown key; allowed: shift, rotate, flip, crop, erase, fill",
        ),
        (["data.root="], "data.root=: must be a folder, or null for the repository's data/"),
        (["data.file="], "data.file=: must be the file of the images"),
        (
            ["monitr=val/acc"],
            "monitr: unknown key; allowed: seed, loss, evaluate_on, early_stopping, rerun, vs, sweep, report, "
            "tracking, model, optim, data, scheduler, trainer, averaging, metrics, monitor",
        ),
        (["+trainer.max_epoch=3"], "trainer: max_epoch: unknown key; allowed: accelerator, "),
        (["+optim.momentum=0.9"], "optim: momentum: unknown key; allowed: lr, betas, "),
        (["+data.shuffled=true"], "data: shuffled: unknown key; allowed: source, root, "),
        (["epochs=3"], "epochs: unknown key; allowed: seed, loss, "),
        (["+epochs=3"], "epochs: unknown key; allowed: model, optim, "),
        (["model=mlp,cnn_pool"], "model=mlp,cnn_pool: has several values; a run of each: -m model=mlp,cnn_pool"),
        (["optim.lr"], "optim.lr: must be KEY=VALUE; --help says every key"),
        (["help"], "help: must be KEY=VALUE; --help says every key"),
        (["+names.groups=3"], "names.groups: is written by digitlab, and not to be given"),
        (["tracking.uri="], "tracking.uri=: must be an address, or null for mlruns/mlflow.db"),
        (["trainer.gradient_clip_val=0"], "trainer.gradient_clip_val=0: must be null or a number above 0"),
        (["claim.data=mnist5k"], "claim.data: is of a claim; give claim=NAME"),
        (["claim=simple_004", "claim.decimals=3"], "claim.decimals=3: must be 4 or more, the digits of 0.9914"),
        (["claim=simple_004", "claim.statistic=best"], "claim.statistic=best: is of several runs; give claim.runs too"),
        (["model.blocks=[{channels: 8, kernel: 99}]"], "model: "),
        (["trainer=gpu"], "trainer.accelerator=gpu: no GPU found; allowed here: auto, cpu"),
        (["+early_stopping.patiense=3"], "early_stopping.patiense: unknown key; allowed: early_stopping.patience"),
        (["early_stopping=null"], "early_stopping=null: unknown key; allowed: early_stopping.patience"),
        (["+data.augment.zoom=1"], "data.augment.zoom: unknown key; allowed: data.augment.crop, data.augment.erase, "),
        (["+model.num_classes=7"], "model: num_classes: unknown key; allowed: blocks, hidden, output, dropout, init"),
        (["trainer.devices=0"], "trainer.devices=0: must be a whole number from 1 to 2147483647"),
        (
            ["trainer.accumulate_grad_batches=0"],
            "trainer.accumulate_grad_batches=0: must be null or a whole number from 1",
        ),
        (
            ["+trainer.strategy=ddp"],
            "trainer.strategy=ddp: cannot be set: trainer.devices says how many processes share ",
        ),
        (["data.seed=-1"], "data.seed=-1: must be a whole number from 0"),
        (["~model"], "model=null: must be a choice of conf/model or have a _target_"),
        (["data=base"], "data.source: has no default; give it as data.source=VALUE"),
        (["~optim"], "optim=null: must be a choice of conf/optim or have a _target_"),
        (["optim.betas=[0.9]"], "optim.betas=[0.9]: must be 2 numbers, such as [0.9, 0.999]"),
        (["optim.betas=0.9"], "optim.betas=0.9: must be 2 numbers, such as [0.9, 0.999]"),
        (["data.size=100000"], "data: size=100000: 5,000 images take 50,000 GB of memory then; this machine has "),
        (["optim._target_=torch.optim.Nope"], "optim._target_=torch.optim.Nope: torch.optim has no Nope"),
        (["scheduler=cosine", "scheduler.T_max=0"], "scheduler.T_max=0: must be a whole number from 1"),
        (["tracking.experiment=''"], "tracking.experiment=: must be a name"),
        (["tracking.uri=sqlite://foo.db"], "tracking: uri=sqlite://foo.db: must begin with one of sqlite:///, "),
        (["tracking.uri=sqlite:////tmp"], "tracking: uri=sqlite:////tmp: is a folder; name the file, as in"),
        (
            ["tracking.uri=http://me:secret@127.0.0.1:9"],
            "tracking: uri=http://***@127.0.0.1:9: the store does not answer",
        ),
        (["data=image_folder"], "data.root: has no default; give it as data.root=VALUE"),
        (["data=image_folder", "data.root=/nowhere"], "data: root=/nowhere: there is no such folder"),
        (["tracking.uri=ftp://host/x"], "tracking: uri=ftp://host/x: must begin with one of sqlite:///, "),
        (["tracking.uri=mlruns"], "tracking: uri=mlruns: must begin with one of sqlite:///, "),
        (
            ["tracking.uri=http://127.0.0.1:9"],
            "tracking: uri=http://127.0.0.1:9: the store does not answer (Connection refused)",
        ),
        (["data.fallback=true"], "data.fallback=true: must be false, null or a mapping with a _target_"),
        (["data.augment.flip=1.5"], "data.augment.flip=1.5: must be a number from 0 to 1"),
        (["data.augment.crop=2.5"], "data.augment.crop=2.5: must be a whole number of pixels from 0 to 28"),
        (["data.augment.fill=nearest"], "data: augment.fill=nearest: is for images that are moved; give augment.shift"),
        (["data.augment.shift=29"], "data.augment.shift=29: must be a number of pixels from 0 to 28"),
        (["+data.std=[0.3,0]"], "data.std=[0.3, 0]: must be null, a number above 0 or a list, "),
        (["+trainer.callbacks.mine=3"], "trainer.callbacks.mine=3: must be null or a mapping with a _target_"),
        (["claim=simple_004", "+claim.acuracy=0.99"], "claim.acuracy: unknown key; allowed: claim.accuracy, "),
        (["claim=simple_004", "claim.accuracy=99.14"], "claim.accuracy=99.14: must be null or a number from 0 to 1"),
        (["claim=simple_004", "claim.loss=low"], "claim.loss=low: must be null or a number from 0"),
        (["claim=simple_004", "claim.layers=[320,-1]"], "claim.layers.1=-1: must be a whole number from 1"),
        (
            ["claim=simple_004", "+claim.printed={val/ac: [1]}"],
            "claim.printed.val/ac: unknown key; allowed: train/loss, ",
        ),
        (["claim=simple_004", "+claim.counts={cnn_wid: 5}"], "claim.counts.cnn_wid: must name a choice of model: cnn_"),
        (
            ["claim=simple_004", "claim.statements=[{says: x, of: mlp, to: alexnet, low: 1, high: 2}]"],
            "claim.statements.0.to=alexnet: must name a choice of model: cnn_dense1000, ",
        ),
        (
            ["claim=simple_004", "claim.statements=[{says: x, of: mlp}]"],
            "claim.statements.0.to: has no default; give it as claim.statements.0.to=VALUE",
        ),
        (["claim=base/keras"], "claim=base/keras: is what files of claims build on, and claims nothing itself"),
        (["scheduler.T_max=5"], "scheduler.T_max: unknown key: there is no scheduler; give scheduler=NAME"),
        (["model.hidden={units: 3}"], "model.hidden={units: 3}: must be a list"),
        (
            ["seed='3'"],
            "seed='3': must be a whole number from 0 to 4294967295, and not text; of a variable ${oc.decode:",
        ),
        (["seed=${oc.env:NO_SUCH_VARIABLE}"], "seed: Environment variable 'NO_SUCH_VARIABLE' not found"),
        (["claim=simple_004"], "claim.data=mnist: must be mnist5k, the data of the run; to train all the same, "),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(harness, overrides, words, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    end = harness.main(*BASE, *overrides)
    assert isinstance(end, str)
    assert end.startswith(f"error: {words}"), end
    assert "\n" not in end


@pytest.mark.filterwarnings("always:.*is corrupt")
def test_a_corrupt_file_that_cannot_be_fetched_again_is_named(harness, tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"half of it")
    end = harness.main("data=mnist", f"data.root={tmp_path}")
    assert end.startswith(f"error: data: {raw}/train-images-idx3-ubyte.gz is corrupt and cannot be fetched again")
    assert not harness.folder.exists()


def test_the_first_line_of_a_mistake_is_all_there_is(harness):
    result = harness.cli("optim.lr=-1")
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: optim.lr=-1: must be a number above 0"]
    assert not list(harness.folder.iterdir())


def test_the_traceback_is_there_for_who_asks(harness):
    result = harness.cli("optim.lr=-1", HYDRA_FULL_ERROR="1")
    assert "Traceback" in result.stderr
    assert result.returncode == 1


def test_the_surface_of_keys_is_frozen(harness):
    assert leaves(harness.compose("scheduler=cosine")) == {
        "seed", "loss", "evaluate_on", "early_stopping.patience", "rerun", "vs", "tracking.uri", "tracking.experiment",
        "sweep.name", "sweep.seeds", "sweep.max_seeds", "sweep.budget", "sweep.fresh_seeds", "sweep.dry_run",
        "sweep.detach", "sweep.parent", "report.margin",
        "model._target_", "model.blocks", "model.hidden", "model.dropout", "model.init",
        "optim._target_", "optim._partial_", "optim.lr", "optim.betas", "optim.eps", "optim.fused",
        "data._target_", "data.root",
        "data.size", "data.color", "data.batch_size", "data.steps_per_execution", "data.split", "data.val_fraction",
        "data.test_fraction", "data.skip_first", "data.split_seed", "data.seed", "data.normalize",
        "data.augment.shift", "data.augment.rotate", "data.source._target_", "data.source._partial_",
        "data.source.dataset", "data.source.name", "data.fallback._target_", "data.fallback._partial_",
        "scheduler._target_", "scheduler._partial_", "scheduler.T_max",
        "trainer._target_", "trainer.accelerator", "trainer.precision", "trainer.max_epochs",
        "trainer.num_sanity_val_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary",
        "trainer.use_distributed_sampler", "trainer.callbacks.progress._target_",
    }  # fmt: skip


def test_defaults_are_the_published_ones(harness):
    cfg = harness.compose()
    assert (cfg.seed, cfg.data.batch_size, cfg.trainer.max_epochs) == (0, 128, 12)
    assert (cfg.trainer.precision, cfg.early_stopping.patience, cfg.evaluate_on) == ("32-true", None, "best")
    choices = HydraConfig.get().runtime.choices
    assert (choices.model, choices.optim, choices.data, choices.trainer) == ("cnn_pool", "adam", "mnist", "default")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("adam", {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7}),
        ("sgd", {"lr": 1e-2}),
        ("adadelta", {"lr": 1.0, "rho": 0.95, "eps": 1e-7}),
    ],
)
def test_optimizers_have_kerass_values(harness, name, keys):
    optim = OmegaConf.to_container(harness.compose(f"optim={name}").optim)
    assert {key: optim[key] for key in optim if key in keys} == keys
    assert optim.get("momentum", 0) == 0


def test_data_root_is_the_environments(harness, monkeypatch):
    monkeypatch.setenv("DIGITLAB_DATA", "/somewhere")
    assert harness.compose().data.root == "/somewhere"


def test_every_group_file_says_what_it_is(repository):
    for file in sorted((repository / "conf").rglob("*.yaml")):
        assert re.match(r"# \S.{10,}", file.read_text()), file
