"""Build what a configuration names, if it may be built."""

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from digitlab import SOURCES
from digitlab.config.errors import UserError, user_errors
from digitlab.config.leaves import as_text

# What Trainer takes and a run here cannot be without: whole epochs, each trained, validated, saved and logged once.
REFUSED = {
    "trainer": ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch", "limit_train_batches",
                "limit_val_batches", "limit_test_batches", "overfit_batches", "fast_dev_run", "max_steps", "min_steps",
                "max_time", "enable_checkpointing", "gradient_clip_algorithm", "reload_dataloaders_every_n_epochs",
                "barebones", "strategy", "num_nodes"),
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
            _check_object(inner, target)
    _check_keywords(node, key, len(args), kwargs)
    kept = [str(name) for name in node if name not in kwargs]  # Hydra would merge, not replace
    node = OmegaConf.masked_copy(node, kept)
    with user_errors(key):
        if node.get("_partial_"):
            return instantiate(node, _convert_="all")(*args, **kwargs)
        return instantiate(node, *args, _convert_="all", **kwargs)


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


def _check_object(key: str, target: str) -> None:
    """Raise UserError unless `target`, by whatever name, is a thing that runs are made of: the name alone can lie.

    digitlab.data.sources.os.system begins well too, and torch.load and torch.hub.load run what they are given.
    """
    import pytorch_lightning as pl  # where this is called they are loaded already, and the door must not wait for them
    from torch import nn, optim

    kinds = (nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler)
    kinds += (pl.Trainer, pl.Callback, pl.LightningDataModule)
    with user_errors(key):
        found = get_object(target)
    is_ours = _is_ours(f"{getattr(found, '__module__', None)}.x")
    is_source = inspect.isfunction(found) and f"{found.__module__}.{found.__name__}" in SOURCE_FUNCTIONS
    if not (is_ours and (is_source or (inspect.isclass(found) and issubclass(found, kinds)))):
        allowed = f"{', '.join(kind.__name__ for kind in kinds)} or {', '.join(SOURCE_FUNCTIONS)}"
        raise UserError(f"{key}._target_={target}: must be a class of {allowed}")


def _check_keywords(node: DictConfig, key: str, positional: int, given: Iterable[str]) -> None:
    """Raise UserError where `node` has a key that its target does not take, or that we give it ourselves."""
    with user_errors(key):
        parameters = list(inspect.signature(get_object(node._target_)).parameters.values())[positional:]
    refused = [*REFUSED.get(key, ()), *(name for name in given if name not in ("callbacks", "gradient_clip_val"))]
    allowed = [parameter.name for parameter in parameters if parameter.name not in refused]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in map(str, node) if name not in allowed and not name.startswith("_")]
    if unknown and (not takes_any or unknown[0] in refused):
        raise UserError(f"{key}: {unknown[0]}: unknown key; allowed: {', '.join(allowed)}")
