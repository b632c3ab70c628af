"""Build what a configuration names: data, network, optimizer, scheduler, trainer."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.optim import Optimizer
from torchmetrics import Metric

from digitlab.config.build import NETWORKS, SIZES, build
from digitlab.config.check import check, check_claimed_data
from digitlab.config.environment import from_environment
from digitlab.config.errors import UserError, user_errors
from digitlab.config.fingerprint import IN_DIGEST, fingerprint
from digitlab.config.names import deviations, groups
from digitlab.config.recognize import named
from digitlab.config.retarget import retarget
from digitlab.config.settled import settle
from digitlab.data.datamodule import ImageData
from digitlab.data.splits import Splits
from digitlab.models.bfloat16 import compute_in_bfloat16
from digitlab.models.gray import take_gray
from digitlab.platform import machine
from digitlab.platform.secrets import hide
from digitlab.training import precision, trial
from digitlab.training.averaging import Average
from digitlab.training.callbacks import check_monitors, check_one_average, refuse_unsupported, sees_steps
from digitlab.training.checkpoint import DurableCheckpointIO, EpochCheckpoint, ReseedEveryEpoch
from digitlab.training.classifier import Classifier
from digitlab.training.distributed import ALONE, Place, Team
from digitlab.training.metrics import check_metric, named_metric
from digitlab.training.monitor import MODES
from digitlab.training.parameter_groups import check_keys, check_rates
from digitlab.training.parameter_groups import groups as groups_of
from digitlab.training.sharing import check_callbacks, check_devices, check_layers, check_loss
from digitlab.training.user_checkpoints import place_checkpoints


def identify(cfg: DictConfig) -> tuple[DictConfig, ImageData, str]:
    """Settle what `cfg` leaves open and load its data; return both, with the run's fingerprint."""
    cfg = named(check(cfg))
    retarget(cfg)
    with user_errors(f"trainer.accelerator={cfg.trainer.accelerator}"):
        cfg.trainer.accelerator = machine.accelerator(cfg.trainer.accelerator)
    cfg.trainer.precision = machine.precision(cfg.trainer.precision, cfg.trainer.accelerator)
    settle(cfg)
    data = build(cfg, "data")
    if not isinstance(data, ImageData):
        raise UserError(f"data._target_={cfg.data._target_}: must be digitlab.data.datamodule.ImageData or made of it")
    deciding = OmegaConf.masked_copy(cfg.data, ["_target_", *IN_DIGEST])
    with user_errors("data"):
        data.loaded = _load(OmegaConf.to_yaml(deciding))
        data.check()
    check_claimed_data(cfg, data.ready.name)
    return cfg, data, fingerprint(cfg, data.digest, data.classes)


@lru_cache(maxsize=2)
def _load(node: str) -> Splits:
    """Load the images that the YAML `node` describes; the runs of a sweep share them."""
    data = instantiate(OmegaConf.create(node), _convert_="all")
    data.setup()
    return data.loaded


@dataclass(frozen=True)
class Job:
    """One run as it was asked for: everything is built, nothing recorded."""

    cfg: DictConfig
    fingerprint: str
    names: Mapping[str, str]
    data: ImageData
    classifier: Classifier
    trainer: pl.Trainer
    team: Team
    from_environment: Mapping[str, str]  # what is not recorded: key -> how it was written

    @property
    def is_cell(self) -> bool:
        """Say whether the run belongs to a sweep, where many speak at once."""
        return bool(self.cfg.sweep.parent)

    @property
    def is_tested(self) -> bool:
        return self.cfg.evaluate_on != "none"

    @property
    def tested_weights(self) -> str:
        """Say which weights are kept, "best" or "last"; the best of a run that is not tested."""
        return self.cfg.evaluate_on if self.is_tested else "best"

    @property
    def tested_checkpoint(self) -> str:
        return f"{self.tested_weights}.ckpt"


def set_up(cfg: DictConfig) -> Job:
    """Build what `cfg` describes; raise UserError for whatever is wrong with it."""
    withheld = from_environment(cfg)
    cfg, data, identity = identify(cfg)
    if any(
        key in withheld and data.ready.name in str(OmegaConf.select(cfg, key)) for key in ("data.root", "data.file")
    ):
        hide(data.ready.name)  # made of the path
    place = Place.find(cfg)
    classifier, trainer = assemble(cfg, data, place)
    team = Team(place, identity, trainer.strategy.root_device)
    return Job(cfg, identity, name_parts(cfg, data), data, classifier, trainer, team, withheld)


def name_parts(cfg: DictConfig, data: ImageData) -> dict[str, str]:
    """Return what was chosen in each group, the data by the name of what was found, and the seed."""
    return groups(cfg) | {"data": data.ready.name, "seed": str(cfg.seed)}


def name_run(cfg: DictConfig, names: Mapping[str, str]) -> str:
    """Return a run's name: model, optimizer, seed if there is one, data unless it is mnist, and what was changed."""
    parts = [names["model"], names["optim"], *([f"s{names['seed']}"] if "seed" in names else [])]
    if names["data"] != "mnist":
        parts.append(names["data"])
    return "-".join(parts + deviations(cfg))


def assemble(cfg: DictConfig, data: ImageData, place: Place = ALONE) -> tuple[Classifier, pl.Trainer]:
    """Build network, optimizer, scheduler and trainer; whatever is wrong with them shows before a run exists."""
    is_shared = place.size > 1
    if is_shared:
        check_devices(cfg)
        data.share = (place.rank, place.size)
    network = _network(cfg, data)
    callbacks = _callbacks(cfg)
    if any(sees_steps(callback) for callback in callbacks.values()):
        data.steps_per_execution = 1
    devices = machine.devices(cfg.trainer.accelerator, place.local if is_shared else None)
    fixed = {"devices": devices, "num_nodes": 1, "logger": False}
    # To Lightning a run is one process, whatever cluster it would find itself in.
    fixed |= precision.settings(cfg.trainer.precision, "cuda" if cfg.trainer.accelerator == "gpu" else "cpu")
    fixed["plugins"] += [DurableCheckpointIO(), LightningEnvironment()]
    fixed["gradient_clip_val"] = None  # the classifier's work: Lightning clips only where it takes the steps itself
    fixed["log_every_n_steps"] = 1  # what callbacks log; points are buffered
    fixed["accumulate_grad_batches"] = 1  # that too: in manual optimization Lightning does not
    data.batches_per_step = cfg.trainer.get("accumulate_grad_batches") or 1
    fixed["max_steps"] = -1  # the classifier's work too: Lightning would end the last epoch without validation
    trainer = build(cfg, "trainer", callbacks=list(callbacks.values()), **fixed)

    trial.try_network(network, data, trainer)
    steps = total_steps(cfg, data)  # of an epoch as the network lets it be
    epochs = trainer.fit_loop.max_epochs = -(-steps // data.steps_per_epoch)
    classifier = _classifier(cfg, data, network)
    check_monitors(callbacks, classifier.logged)
    if classifier.average:
        check_one_average(callbacks)
        classifier.average.check(epochs)
    if is_shared:
        check_callbacks(callbacks)
        check_layers(network)
    if is_shared or data.batches_per_step > 1:
        key = "devices" if is_shared else "accumulate_grad_batches"
        check_loss(classifier.loss, data.num_classes, f"trainer.{key}=1")
    trial.try_step(classifier, data, trainer)
    trial.try_scheduler(classifier, epochs, steps)
    trial.try_checkpoint(classifier, callbacks)
    return _classifier(cfg, data, _network(cfg, data)), trainer


def total_steps(cfg: DictConfig, data: ImageData) -> int:
    """Return how many optimizer steps a run takes unless it stops early."""
    return min(cfg.trainer.max_epochs * data.steps_per_epoch, cfg.trainer.get("max_steps") or sys.maxsize)


def _network(cfg: DictConfig, data: ImageData) -> nn.Module:
    pl.seed_everything(cfg.seed, verbose=False)
    channels, *size = data.input_shape
    told = {"num_classes": data.num_classes, "input_shape": data.input_shape}
    is_foreign = cfg.model._target_.startswith(NETWORKS)
    if is_foreign and len(set(size)) == 1:
        told |= {name: size if name == "input_size" else size[0] for name in SIZES if name not in cfg.model}
    network = build(cfg, "model", **told)
    if is_foreign and channels == 1:
        take_gray(network)
    if cfg.trainer.precision == "bf16-true":
        compute_in_bfloat16(network)
    return network


def _classifier(cfg: DictConfig, data: ImageData, network: nn.Module) -> Classifier:
    optimizer = _optimizer(cfg, network)
    scheduler = None
    if cfg.get("scheduler"):
        for key in OmegaConf.missing_keys(cfg):
            OmegaConf.update(cfg, key, total_steps(cfg, data))
        scheduler = build(cfg, "scheduler", optimizer)
        with user_errors("scheduler"):
            check_rates(optimizer, (cfg.optim.get("bias") or {}).get("lr"))
    ends = {
        "accumulate": data.batches_per_step,
        "clip": cfg.trainer.get("gradient_clip_val"),
        "max_steps": cfg.trainer.get("max_steps"),
    }
    loss = cfg.loss if isinstance(cfg.loss, str) else build(cfg, "loss")
    metrics = _metrics(cfg, data.num_classes)
    average = Average(**cfg.averaging) if "averaging" in cfg else None
    kept = {"monitor": _monitor(cfg), "metrics": metrics, "average": average}
    classifier = Classifier(network, optimizer, scheduler, loss, **ends, **kept)
    classifier.returns_results = False
    classifier.example_input_array = torch.zeros(2, *data.input_shape)
    return classifier


def _optimizer(cfg: DictConfig, network: nn.Module) -> Optimizer:
    told = cfg.copy()
    bias = {key: value for key, value in (told.optim.pop("bias", None) or {}).items() if value is not None}
    with user_errors("optim"):
        groups = groups_of(network, bias)
    optimizer = build(told, "optim", groups)
    with user_errors("optim"):
        check_keys(optimizer, bias)
    return optimizer


def _metrics(cfg: DictConfig, num_classes: int) -> dict[str, Metric]:
    """Build what is measured beside loss and accuracy, by name; a class goes by its own."""
    found: dict[str, Metric] = {}
    for number, each in enumerate(cfg.get("metrics", ())):
        key, is_named = f"metrics.{number}", isinstance(each, str)
        name = each if is_named else str(each._target_).rpartition(".")[2]
        metric = None if is_named else build(cfg, key, num_classes=num_classes)
        with user_errors(f"{key}={name}"):
            if name in (*found, "loss", "acc"):
                raise ValueError("is measured already")
            found[name] = metric or named_metric(name, num_classes)
            check_metric(found[name], num_classes)
    return found


def _callbacks(cfg: DictConfig) -> dict[str, Callback]:
    """Build the callbacks, those that `cfg` names by their key; UserError for one that cannot work here."""
    callbacks: dict[str, Callback] = {"seed": ReseedEveryEpoch(cfg.seed)}
    for name, node in cfg.trainer.callbacks.items():
        if node is not None:
            key = f"trainer.callbacks.{name}"
            callbacks[key] = callback = build(cfg, key)
            with user_errors(key):
                refuse_unsupported(callback)
                if isinstance(callback, ModelCheckpoint):
                    place_checkpoints(callback, node.get("dirpath") or str(name))
    if cfg.early_stopping.patience:
        patience = cfg.early_stopping.patience
        monitor = _monitor(cfg)
        callbacks["early_stopping"] = EarlyStopping(monitor, 0, patience, mode=MODES[monitor], check_finite=False)
    return callbacks | {"evaluate_on": EpochCheckpoint(_monitor(cfg))}


def _monitor(cfg: DictConfig) -> str:
    return cfg.get("monitor", "val/loss")
