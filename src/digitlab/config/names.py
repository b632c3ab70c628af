"""Name what a configuration chooses: its node `names`, which no result depends on."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from digitlab.config.fingerprint import IRRELEVANT
from digitlab.config.leaves import is_within
from digitlab.config.retarget import typed_keys

GROUPS = ("model", "optim", "data", "scheduler", "trainer")
BESIDE = ("seed", "data.root", "data.file", "data.fallback", "metrics")  # in a run's name already, or not worth a word
NAMED = ("model", "optim", "data", "trainer", *BESIDE)
PLAIN_TRAINERS = ("default", "cpu", "gpu")  # not worth a word in it


def groups(cfg: DictConfig) -> dict[str, str]:
    """Return what was chosen in each group: {"model": "cnn_pool", ...}."""
    return dict(cfg.names.groups)


def deviations(cfg: DictConfig) -> list[str]:
    """Return what changes a run's result beyond its model, optimizer, data and seed, for its name."""
    return list(cfg.names.deviations)


def record(cfg: DictConfig, hydra: Any) -> None:
    """Write into `cfg` the names of what was chosen, as Hydra's own node has them."""
    choices, changes = hydra.runtime.choices, []
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)
    chosen = {group: choices[group] for group in (*GROUPS, "claim", "counterpart") if choices.get(group)}
    typed = typed_keys(overrides)
    for group in GROUPS:  # one written anew has no choice, or that of a file whose target it has not
        if cfg.get(group) and (chosen.get(group, "none") == "none" or f"{group}._target_" in typed):
            chosen[group] = str(cfg[group].get("_target_")).rpartition(".")[2].lower()
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        value = value.replace("${", "$(").replace("}", ")") if "${" in value else value  # it would be followed again
        if key in ("claim", "counterpart") or (key == "trainer" and value not in PLAIN_TRAINERS):
            changes.append(value)
        elif key not in NAMED and not is_within(key, IRRELEVANT):
            changes.append(f"{key}={value}" if "=" in override else key)
    write(cfg, chosen, changes, typed)


def write(cfg: DictConfig, groups: dict[str, str], deviations: Iterable[str], typed: Iterable[str] = ()) -> None:
    """Give `cfg` the node that the others read: names, and the keys that were `typed`, for `retarget`."""
    with open_dict(cfg):
        cfg.names = {"groups": groups, "deviations": list(deviations), "typed": list(typed)}
