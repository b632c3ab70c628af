"""Check a composed configuration, build what it names, and give a run its fingerprint."""

import hashlib
import inspect
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from digitlab import REPOSITORY

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it says in ten lines what ends as one of ours

RESULTS = 2  # raise it with every change of the code that changes what a run of the same configuration gives

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"

GROUPS = ("model", "optim", "data", "scheduler", "trainer")
ROOT_KEYS = (*GROUPS, "seed", "loss", "evaluate_on", "early_stopping", "rerun", "sweep", "tracking", "claim")

# What cannot change a run's result.
IRRELEVANT = (
    "claim",
    "tracking",
    "rerun",
    "sweep",
    "data.block",
    "trainer.callbacks.progress",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
# What Trainer takes and a run here cannot be without: whole epochs, each trained, validated, saved and logged once.
REFUSED = {
    "trainer": ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch", "limit_train_batches",
                "limit_val_batches", "limit_test_batches", "overfit_batches", "fast_dev_run", "max_steps", "min_steps",
                "max_time", "enable_checkpointing", "gradient_clip_algorithm", "reload_dataloaders_every_n_epochs",
                "barebones", "strategy", "num_nodes"),
}  # fmt: skip
PLAIN_NODES = {
    "early_stopping": {"patience"},
    "tracking": {"uri", "experiment"},
    "sweep": {"name", "seeds", "dry_run", "parent"},
    "data.augment": {"shift", "rotate"},
}
# What decides which images are trained, validated and tested on: the digest of the splits stands for it.
IN_DIGEST = ("source", "root", "fallback", "split", "val_fraction", "test_fraction", "skip_first", "split_seed")
# What may differ between runs that are fair to compare: names, and what the digest of the data stands for.
NO_SETTINGS = ("model", "optim", "data", "scheduler", "trainer", "counterpart", "seed", "parameters")
NO_SETTING_NODES = (*IRRELEVANT, "data.root", "data.fallback", "data.source")
# Where `_target_` may lead, besides to modules that lie in src/ as a user's own network does.
PACKAGES = ("digitlab", "torch", "pytorch_lightning")
# What the command line may change of Hydra's own node. Its callbacks and loggers are built from `_target_`, `class` and
# `()` before any code of ours runs, so they are the business of the files in conf/ alone, which are reviewed like code.
HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.", "hydra.sweeper.params", "hydra.mode", "hydra.verbose")


class UserError(Exception):
    """A mistake of the user's, said in one line."""


class Range(NamedTuple):
    """The values that a key may have: those of `types` for which `holds` is true, described by `allowed`."""

    types: tuple[type, ...]
    holds: Callable[[Any], bool]
    allowed: str


def _choice(*names: str) -> Range:
    return Range((str,), lambda value: value in names, f"{', '.join(names[:-1])} or {names[-1]}")


NUMBER, WHOLE = (int, float), (int,)
SEED = Range(WHOLE, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")
COUNT = Range(WHOLE, lambda value: value >= 1, "a whole number from 1")
SHARE = Range(NUMBER, lambda value: 0 < value < 1, "a number above 0 and below 1")
SWITCH = Range((bool,), lambda value: True, "true or false")

RANGES = {
    "seed": SEED,
    "loss": _choice("cross_entropy", "clipped_cross_entropy"),
    "evaluate_on": _choice("best", "last"),
    "rerun": SWITCH,
    "sweep.seeds": COUNT,
    "sweep.dry_run": SWITCH,
    "early_stopping.patience": Range(
        (int, type(None)), lambda value: value is None or value >= 1, f"null or {COUNT[2]}"
    ),
    "optim.lr": Range(NUMBER, lambda value: 0 < value < inf, "a number above 0"),
    "model.dropout": SWITCH,
    "model.init": _choice("keras", "torch"),
    "trainer.max_epochs": COUNT,
    "trainer.accelerator": _choice("auto", "cpu", "gpu"),
    "trainer.precision": _choice("auto", "32-true", "bf16-mixed"),
    "data.batch_size": COUNT,
    "data.block": Range((int, type(None)), lambda value: value is None or value >= 1, f"null or {COUNT[2]}"),
    "data.split": _choice("auto", "last", "stratified", "test"),
    "data.val_fraction": SHARE,
    "data.test_fraction": SHARE,
    "data.skip_first": Range(WHOLE, lambda value: value >= 0, "a whole number from 0"),
    "data.split_seed": SEED,
    "data.normalize": SWITCH,
    "data.seed": SEED,
    "tracking.experiment": Range((str,), lambda value: bool(value.strip()), "a name"),
    "scheduler.T_max": COUNT,
    "scheduler.total_steps": COUNT,
    "data.augment.shift": Range(NUMBER, lambda value: 0 <= value <= 28, "a number of pixels from 0 to 28"),
    "data.augment.rotate": Range(NUMBER, lambda value: 0 <= value <= 180, "a number of degrees from 0 to 180"),
}


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for an argument of the command line that reaches into Hydra further than it may."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        is_hydras = "hydra" in re.split(r"\W", key) and "=" in argument and not key.startswith("-")
        if is_hydras and (not key.startswith(HYDRA_KEYS) or "_target_" in argument):
            raise UserError(f"{key}: not to be changed from here; allowed of Hydra's: {', '.join(HYDRA_KEYS)}")


def check(cfg: DictConfig) -> DictConfig:
    """Return a resolved copy of `cfg` that can be written to; raise UserError for an unknown key or a bad value."""
    for key in cfg:
        if key not in ROOT_KEYS:
            raise UserError(f"{key}: unknown key; allowed: {', '.join(ROOT_KEYS)}")
    content = OmegaConf.to_container(cfg, resolve=True)
    for key, name, value in _special_keys(content):
        _check_special(key, name, value)
    cfg = OmegaConf.create(content)
    missing = [key for key in OmegaConf.missing_keys(cfg) if not key.startswith("scheduler.")]
    if missing:
        raise UserError(f"{missing[0]}: has no default; give it as {missing[0]}=VALUE")
    for key, names in PLAIN_NODES.items():
        node = OmegaConf.select(cfg, key)
        unknown = set(node) - names if isinstance(node, DictConfig) else {None}
        if unknown:
            named = f"{key}={_show(node)}" if None in unknown else f"{key}.{min(unknown)}"
            raise UserError(f"{named}: unknown key; allowed: {', '.join(f'{key}.{name}' for name in sorted(names))}")
    leaves = {key: value for key, value in _leaves(cfg).items() if value != "???"}
    for key in RANGES:
        if key in leaves:
            check_value(key, leaves[key])
    return cfg


def check_value(key: str, value: Any) -> None:
    """Raise UserError where `value` is none that `key` may have."""
    types, holds, allowed = RANGES[key]
    if not (type(value) in types and holds(value)):
        raise UserError(f"{key}={_show(value)}: must be {allowed}")


def build(cfg: DictConfig, key: str, *args: Any, **kwargs: Any) -> Any:
    """Instantiate the node `key` with plain values; a UserError that names `key` says what its constructor refused."""
    node = OmegaConf.select(cfg, key)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}={_show(node)}: must be a choice of conf/{key} or have a _target_")
    for inner, name, target in _special_keys(OmegaConf.to_container(node, resolve=True), key):
        if name == "_target_":
            _check_object(inner, target)
    _check_keywords(node, key, len(args), kwargs)
    node = OmegaConf.masked_copy(node, [name for name in node if name not in kwargs])  # Hydra would merge, not replace
    with user_errors(key):
        if node.get("_partial_"):
            return instantiate(node, _convert_="all")(*args, **kwargs)
        return instantiate(node, *args, _convert_="all", **kwargs)


def _special_keys(node: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key that means something to Hydra, wherever it stands: the node it stands in, the key, its value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        if isinstance(name, str) and re.fullmatch(r"_\w+_", name):
            yield key, name, value
        else:
            yield from _special_keys(value, f"{key}.{name}" if key else str(name))


def _check_special(key: str, name: str, value: Any) -> None:
    """Raise UserError for a `_target_` that leads elsewhere than it may, and for Hydra's other special keys."""
    if name not in ("_target_", "_partial_"):
        raise UserError(f"{key}.{name}: unknown key; allowed of Hydra's: _target_, _partial_")
    if name == "_target_" and not _is_ours(value):
        packages = ", ".join(f"{package}." for package in PACKAGES)
        raise UserError(f"{key}.{name}={_show(value)}: must begin with {packages} or a module that lies in src/")


def _is_ours(target: Any) -> bool:
    """Say whether a dotted name begins with a package that may be built from, or with a module that lies in src/."""
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        return False
    package = target.partition(".")[0]
    source = REPOSITORY / "src" / package
    return package in PACKAGES or source.with_suffix(".py").is_file() or (source / "__init__.py").is_file()


def _check_object(key: str, target: str) -> None:
    """Raise UserError unless `target`, by whatever name, is a thing that runs are made of: the name alone can lie.

    digitlab.sources.os.system begins well too, and torch.load and torch.hub.load run what they are given.
    """
    import pytorch_lightning as pl  # where this is called they are loaded already, and the door must not wait for them
    from torch import nn, optim

    kinds = (nn.Module, optim.Optimizer, optim.lr_scheduler.LRScheduler)
    kinds += (pl.Trainer, pl.Callback, pl.LightningDataModule)
    with user_errors(key):
        found = get_object(target)
    is_ours = _is_ours(f"{getattr(found, '__module__', None)}.x")
    is_source = inspect.isfunction(found) and found.__module__ == "digitlab.sources" and found.__name__[0] != "_"
    if not (is_ours and (is_source or (inspect.isclass(found) and issubclass(found, kinds)))):
        allowed = f"{', '.join(kind.__name__ for kind in kinds)} or a function of digitlab.sources"
        raise UserError(f"{key}._target_={target}: must be a class of {allowed}")


def _check_keywords(node: DictConfig, key: str, positional: int, given: Container[str]) -> None:
    """Raise UserError where `node` has a key that its target does not take, or that we give it ourselves."""
    with user_errors(key):
        parameters = list(inspect.signature(get_object(node._target_)).parameters.values())[positional:]
    refused = [*REFUSED.get(key, ()), *(name for name in given if name not in ("callbacks", "gradient_clip_val"))]
    allowed = [parameter.name for parameter in parameters if parameter.name not in refused]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in node if name not in allowed and not name.startswith("_")]
    if unknown and (not takes_any or unknown[0] in refused):
        raise UserError(f"{key}: {unknown[0]}: unknown key; allowed: {', '.join(allowed)}")


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn what constructors raise for bad values into a UserError that names `key`."""
    try:
        yield
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, InstantiationException) else error
        raise UserError(f"{key}: {one_line(cause)}") from error


def groups(cfg: DictConfig) -> dict[str, str]:
    """Return what was chosen in each group: {"model": "cnn_pool", ...}; outside Hydra, the names of the targets."""
    if HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
        return {group: choices[group] for group in (*GROUPS, "claim", "counterpart") if choices.get(group)}
    return {group: cfg[group]._target_.rpartition(".")[2].lower() for group in GROUPS if cfg.get(group)}


def deviations() -> list[str]:
    """Return the overrides that change a run's result beyond its model, optimizer, data and seed, for its name."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = ("model", "optim", "data", "trainer", "seed", "data.root", "data.fallback")
    changes = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        value = override.partition("=")[2]
        if key in ("claim", "counterpart") or (key == "trainer" and value not in ("default", "cpu", "gpu")):
            changes.append(value)
        elif key not in named and not any(key == each or key.startswith(f"{each}.") for each in IRRELEVANT):
            changes.append(override.lstrip("+~"))
    return changes


def is_setting(key: str) -> bool:
    """Say whether `key` is a choice that runs may be compared by, and must agree in where they are not."""
    inside = any(key == node or key.startswith(f"{node}.") for node in NO_SETTING_NODES)
    return key not in NO_SETTINGS and not inside


def differences(cfg: DictConfig, base: DictConfig) -> dict[str, str]:
    """Return, as text, every leaf that `cfg` does not have as `base` has it; one that it lacks as "none"."""
    found, known = _leaves(cfg), _leaves(base)
    changed = {
        key: _show(value) for key, value in found.items() if key not in known or _same(value) != _same(known[key])
    }
    return changed | {key: "none" for key in known if key not in found}


def fingerprint(cfg: DictConfig, digest: str) -> str:
    """Hash what in the resolved `cfg` can change a run's result, the data standing as the `digest` of its splits."""
    skipped = (*IRRELEVANT, *(f"data.{name}" for name in IN_DIGEST))
    relevant = {
        key: _same(value)
        for key, value in _leaves(cfg).items()
        if not any(key == each or key.startswith(f"{each}.") for each in skipped)
    }
    code = {value: _source(value) for key, value in relevant.items() if key.endswith("._target_") and _source(value)}
    content = json.dumps(relevant | {"digest": digest, "results": RESULTS, "code": code}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _source(target: str) -> str:
    """Hash the file of a target that is neither ours, which RESULTS stands for, nor of a released package."""
    try:
        file = inspect.getsourcefile(inspect.getmodule(get_object(target)))
    except Exception:  # which `build` will say
        return ""
    if file is None or target.startswith("digitlab.") or "site-packages" in file:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def flatten(cfg: DictConfig) -> dict[str, str]:
    """Return every leaf of `cfg` as text under its dotted key."""
    return {key: _show(value) for key, value in _leaves(cfg).items()}


def quoted(argument: str, key: str) -> str:
    """Quote the value of `key` in `key=value` unless it is: it is text of another grammar, which Hydra's trips over."""
    name, separator, value = argument.partition("=")
    if name != key or not separator or value[:1] in ("'", '"') or value == "null":
        return argument
    return f"{name}={json.dumps(value, ensure_ascii=False)}"


def job_errors(cfg: DictConfig) -> AbstractContextManager:
    """In a single run a mistake ends the program in one line; in a sweep it is the cell's, for the sweep to report."""
    return nullcontext() if cfg.sweep.parent else one_line_errors()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for a mistake of the user's or a failing disk; HYDRA_FULL_ERROR=1 shows it all."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own many lines and exits
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (UserError, OSError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if WANTS_TRACEBACK:
            raise
        sys.exit(f"error: {one_line(error)}")
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _leaves(cfg: DictConfig) -> dict[str, Any]:
    """Return every value of `cfg` under its dotted key; a list is one value."""
    leaves: dict[str, Any] = {}

    def visit(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                visit(value, f"{key}.{name}" if key else str(name))
        else:
            leaves[key] = node

    visit(OmegaConf.to_container(cfg, resolve=True), "")
    return leaves


def _same(value: Any) -> Any:
    """Write 1.0 as 1: who types either means the same."""
    if isinstance(value, list):
        return [_same(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _show(value: Any) -> str:
    """Write a value as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def one_line(error: BaseException) -> str:
    """Say what an error says, in one line."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        extra = "; joblib is in the extra parallel" if group == "hydra/launcher" else ""
        return f"{group}={name}: not found; allowed: {', '.join(error.options)}{extra}"
    cause = error.__cause__
    if (
        isinstance(cause, OmegaConfBaseException)
        and isinstance(cause.parent_node, DictConfig)
        and "struct" in str(cause)
    ):
        allowed = [str(key) for key in cause.parent_node if key != "hydra" and not str(key).startswith("_")]
        more = " (with + before it, also what the target takes)" if "_target_" in cause.parent_node else ""
        return f"{cause.full_key}: unknown key; allowed: {', '.join(allowed)}{more}"
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line) or type(error).__name__
