"""Build what a configuration names, if it may be built."""

import inspect
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from digitlab import SOURCES
from digitlab.config.errors import UserError, user_errors
from digitlab.config.leaves import as_text

UNREAD = ("limit_predict_batches", "default_root_dir", "enable_autolog_hparams", "model_registry")
EPOCHS = "a run is whole epochs, each of them trained, validated and saved once"
# What Trainer takes and a run refuses, with the reason; tests/training/test_supported.py knows every argument there is.
REFUSED = {
    "trainer": dict.fromkeys(("min_epochs", "max_steps", "min_steps", "limit_train_batches", "limit_val_batches",
                              "limit_test_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
                              "reload_dataloaders_every_n_epochs"), f"{EPOCHS}; trainer.max_epochs says how many")
    | dict.fromkeys(("fast_dev_run", "barebones"), f"{EPOCHS}; trainer=smoke is a quick look")
    | dict.fromkeys(("strategy", "devices", "num_nodes", "sync_batchnorm"), "a run has one device")
    | dict.fromkeys(UNREAD, "nothing here reads it")
    | {
        "max_time": "how far a run gets would depend on the machine; trainer.max_epochs limits it",
        "accumulate_grad_batches": "every batch is an optimizer step; data.batch_size makes it larger",
        "gradient_clip_algorithm": "trainer.gradient_clip_val limits the norm",
        "benchmark": "cuDNN would choose other algorithms after an interruption, and so give other numbers",
        "enable_checkpointing": "every epoch is saved, so that a run that broke off goes on",
        "logger": "runs are recorded in MLflow; tracking.uri says where",
        "log_every_n_steps": "every step is logged",
        "plugins": "precision and checkpoints have theirs",
    },
}  # fmt: skip
# Where `_target_` may lead, besides to modules of SOURCES, where a user's own network lies.
PACKAGES = ("digitlab", "torch", "pytorch_lightning")
SOURCE_FUNCTIONS = tuple(
    f"digitlab.data.{name}" for name in ("sources.torchvision_mnist", "sources.mnist5k", "folders.image_folder")
)


def build(cfg: DictConfig, key: str, *args: Any, **kwargs: Any) -> Any:
    """Instantiate the node `key` with plain values; a UserError that names `key` says what its constructor refused."""
    node = OmegaConf.select(cfg, key)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}={as_text(node)}: must be a choice of conf/{key} or have a _target_")
    for inner, name, target in special_keys(OmegaConf.to_container(node, resolve=True), key):
        if name == "_target_":
            _check_object(inner, target, is_outermost=inner == key)
    _check_keywords(node, key, len(args), kwargs)
    kept = [str(name) for name in node if name not in kwargs]  # Hydra would merge, not replace
    node = OmegaConf.masked_copy(node, kept)
    with user_errors(key):
        if node.get("_partial_"):
            return _call(instantiate(node, _convert_="all"), args, **kwargs)
        return instantiate(node, *args, _convert_="all", **kwargs)


def _call(built: Any, args: tuple, **kwargs: Any) -> Any:
    """Call `built` where it is partial, and whatever is partial among its arguments, with the same `args`."""
    if isinstance(built, list):
        return [_call(each, args) for each in built]
    if not isinstance(built, partial):
        return built
    return built.func(*args, **{name: _call(value, args) for name, value in built.keywords.items()}, **kwargs)


def special_keys(node: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key that means something to Hydra, wherever it stands: the node it stands in, the key, its value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        if isinstance(name, str) and re.fullmatch(r"_\w+_", name):
            yield key, name, value
        else:
            yield from special_keys(value, f"{key}.{name}" if key else str(name))


def check_special(key: str, name: str, value: Any) -> None:
    """Raise UserError for a `_target_` that leads elsewhere than it may, and for Hydra's other special keys."""
    if name not in ("_target_", "_partial_"):
        raise UserError(f"{key}.{name}: unknown key; allowed of Hydra's: _target_, _partial_")
    if name == "_target_" and not _is_ours(value):
        allowed = f"{', '.join(f'{package}.' for package in PACKAGES)} or a module that lies in src/ or here"
        raise UserError(f"{key}.{name}={as_text(value)}: must begin with {allowed}")


def _is_ours(target: Any) -> bool:
    """Say whether a dotted name begins with a package that may be built from, or with a module of the user's own."""
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        return False
    package = target.partition(".")[0]
    files = (folder / file for folder in SOURCES for file in (f"{package}.py", f"{package}/__init__.py"))
    return package in PACKAGES or any(file.is_file() for file in files)


def _check_object(key: str, target: str, is_outermost: bool) -> None:
    """Raise UserError unless `target`, by whatever name, is a thing that runs are made of: the name alone can lie.

    digitlab.data.sources.os.system begins well too, and torch.load and torch.hub.load run what they are given.
    """
    import pytorch_lightning as pl  # where this is called they are loaded already, and the door must not wait for them
    from torch import nn, optim

    kinds = {
        "model": nn.Module,
        "optim": optim.Optimizer,
        "scheduler": optim.lr_scheduler.LRScheduler,
        "trainer": pl.Trainer,
        "trainer.callbacks": pl.Callback,
        "data": pl.LightningDataModule,
    }
    with user_errors(key):
        found = get_object(target)
    is_ours = _is_ours(f"{getattr(found, '__module__', None)}.x")
    wanted = kinds.get(key) or kinds.get(key.rpartition(".")[0]) if is_outermost else None
    allowed = (wanted,) if wanted else tuple(kinds.values())
    is_source = inspect.isfunction(found) and f"{found.__module__}.{found.__name__}" in SOURCE_FUNCTIONS
    is_built = inspect.isclass(found) and issubclass(found, allowed)
    if not (is_ours and (is_built or (is_source and not wanted))):
        names = f"a class of {', '.join(kind.__name__ for kind in allowed)}"
        raise UserError(
            f"{key}._target_={target}: must be {names}" + ("" if wanted else f" or {', '.join(SOURCE_FUNCTIONS)}")
        )


def _check_keywords(node: DictConfig, key: str, positional: int, given: Iterable[str]) -> None:
    """Raise UserError where `node` has a key that its target does not take, or that we give it ourselves."""
    refused = REFUSED.get(key, {})
    for name in refused.keys() & node.keys():
        raise UserError(f"{key}.{name}={as_text(node[name])}: cannot be set: {refused[name]}")
    with user_errors(key):
        parameters = list(inspect.signature(get_object(node._target_)).parameters.values())[positional:]
    ours = [name for name in given if name not in ("callbacks", "gradient_clip_val")]
    allowed = [parameter.name for parameter in parameters if parameter.name not in (*refused, *ours)]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in map(str, node) if name not in allowed and not name.startswith("_")]
    if unknown and (not takes_any or unknown[0] in ours):
        raise UserError(f"{key}: {unknown[0]}: unknown key; allowed: {', '.join(allowed)}")
