"""Check what a composed configuration says."""

import logging
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from digitlab.config.build import check_special, special_keys
from digitlab.config.errors import UserError
from digitlab.config.leaves import as_text, leaves_of
from digitlab.config.names import GROUPS

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it says in ten lines what ends as one of ours


ROOT_KEYS = (*GROUPS, "seed", "loss", "evaluate_on", "early_stopping", "rerun", "sweep", "tracking", "claim", "names")
PLAIN_NODES = {
    "early_stopping": {"patience"},
    "tracking": {"uri", "experiment"},
    "sweep": {"name", "seeds", "dry_run", "parent"},
    "data.augment": {"shift", "rotate"},
}


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
    "data.steps_per_execution": Range(
        (int, type(None)), lambda value: value is None or value >= 1, f"null or {COUNT[2]}"
    ),
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


def check(cfg: DictConfig) -> DictConfig:
    """Return a resolved copy of `cfg` that can be written to; raise UserError for an unknown key or a bad value."""
    for key in cfg:
        if key not in ROOT_KEYS:
            raise UserError(f"{key}: unknown key; allowed: {', '.join(ROOT_KEYS)}")
    content = OmegaConf.to_container(cfg, resolve=True)
    for key, name, value in special_keys(content):
        check_special(key, name, value)
    cfg = OmegaConf.create(content)
    missing = [key for key in OmegaConf.missing_keys(cfg) if not key.startswith("scheduler.")]
    if missing:
        raise UserError(f"{missing[0]}: has no default; give it as {missing[0]}=VALUE")
    for key, names in PLAIN_NODES.items():
        node = OmegaConf.select(cfg, key)
        unknown = set(node) - names if isinstance(node, DictConfig) else {None}
        if unknown:
            named = f"{key}={as_text(node)}" if None in unknown else f"{key}.{min(unknown)}"
            raise UserError(f"{named}: unknown key; allowed: {', '.join(f'{key}.{name}' for name in sorted(names))}")
    leaves = {key: value for key, value in leaves_of(cfg).items() if value != "???"}
    for key in RANGES:
        if key in leaves:
            check_value(key, leaves[key])
    return cfg


def check_value(key: str, value: Any) -> None:
    """Raise UserError where `value` is none that `key` may have."""
    types, holds, allowed = RANGES[key]
    if not (type(value) in types and holds(value)):
        raise UserError(f"{key}={as_text(value)}: must be {allowed}")
