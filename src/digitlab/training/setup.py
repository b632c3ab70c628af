"""Build what a configuration names: data, network, optimizer, scheduler, trainer."""

from functools import lru_cache

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from digitlab.config.build import build
from digitlab.config.errors import user_errors
from digitlab.config.fingerprint import IN_DIGEST, fingerprint
from digitlab.config.names import deviations, groups
from digitlab.config.schema import check
from digitlab.data.datamodule import ImageData
from digitlab.platform import machine
from digitlab.training.checkpoint import (
    DurableCheckpointIO,
    EpochCheckpoint,
    ReseedEveryEpoch,
)
from digitlab.training.classifier import Classifier


def identify(cfg: DictConfig) -> tuple[DictConfig, ImageData, str]:
    """Settle what `cfg` leaves open and load its data; return both, with the fingerprint that the run is known by."""
    cfg = check(cfg)
    with user_errors(f"trainer.accelerator={cfg.trainer.accelerator}"):
        cfg.trainer.accelerator = machine.accelerator(cfg.trainer.accelerator)
    cfg.trainer.precision = machine.precision(cfg.trainer.precision, cfg.trainer.accelerator)
    data: ImageData = build(cfg, "data")
    deciding = OmegaConf.masked_copy(cfg.data, ["_target_", *IN_DIGEST])
    with user_errors("data"):
        data.share(_load(OmegaConf.to_yaml(deciding)))
    return cfg, data, fingerprint(cfg, data.digest)


@lru_cache(maxsize=2)
def _load(node: str) -> ImageData:
    """Load the images that the YAML `node` describes; the runs of a sweep share them."""
    data = instantiate(OmegaConf.create(node), _convert_="all")
    data.setup()
    return data


def name_parts(cfg: DictConfig, data: ImageData) -> dict[str, str]:
    """Return what was chosen in each group, the data by the name of what was found, and the seed."""
    return groups(cfg) | {"data": data.name, "seed": str(cfg.seed)}


def name_run(names: dict[str, str]) -> str:
    """Return a run's name: model, optimizer, seed, data unless it is mnist, and what else was changed."""
    parts = [names["model"], names["optim"], f"s{names['seed']}"]
    if names["data"] != "mnist":
        parts.append(names["data"])
    return "-".join(parts + deviations())


def assemble(cfg: DictConfig, data: ImageData) -> tuple[Classifier, pl.Trainer]:
    """Build network, optimizer, scheduler and trainer; whatever is wrong with them shows before a run exists."""
    pl.seed_everything(cfg.seed, verbose=False)
    network = build(cfg, "model", num_classes=data.num_classes, input_shape=data.input_shape)
    optimizer = build(cfg, "optim", network.parameters())
    scheduler = None
    if cfg.get("scheduler"):
        for key in OmegaConf.missing_keys(cfg):
            OmegaConf.update(cfg, key, cfg.trainer.max_epochs * data.steps_per_epoch)
        scheduler = build(cfg, "scheduler", optimizer)
    classifier = Classifier(network, optimizer, scheduler, cfg.loss, clip=cfg.trainer.get("gradient_clip_val"))
    classifier.example_input_array = torch.zeros(2, *data.input_shape)

    theirs = [name for name, node in cfg.trainer.callbacks.items() if node is not None]
    callbacks = [ReseedEveryEpoch(cfg.seed), *(build(cfg, f"trainer.callbacks.{name}") for name in theirs)]
    if cfg.early_stopping.patience:
        callbacks.append(EarlyStopping("val/loss", patience=cfg.early_stopping.patience, check_finite=False))
    callbacks.append(EpochCheckpoint())
    fixed = {"devices": 1, "logger": False, "plugins": [DurableCheckpointIO()]}
    fixed["gradient_clip_val"] = None  # the classifier's work: Lightning clips only where it takes the steps itself
    return classifier, build(cfg, "trainer", callbacks=callbacks, **fixed)
