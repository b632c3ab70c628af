"""Recognize which of conf's files a configuration was composed of that does not say so: one composed by hand."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from digitlab import CONF
from digitlab.config.fingerprint import IRRELEVANT, differences
from digitlab.config.leaves import canonical, is_within
from digitlab.config.names import BESIDE, GROUPS, PLAIN_TRAINERS, write


def named(cfg: DictConfig) -> DictConfig:
    """Return the checked `cfg` with the names of what it chooses, where it has none as the command line gives them.

    A group's name is that of the file it is closest to, of those with the same `_target_`; where there is none, that of
    the target. A value that differs from the files' is a deviation, as one that was typed is.
    """
    if "names" in cfg:
        return cfg
    nodes = {group: cfg[group] for group in GROUPS if cfg.get(group)}
    files = {group: _closest(group, node) for group, node in nodes.items()}
    groups = {"scheduler": "none"} | {
        group: file.stem if file else nodes[group]._target_.rpartition(".")[2].lower() for group, file in files.items()
    }
    claimed = _claimed(cfg)
    claim = next((file for file in _files("claim") if claimed and _claimed(said_by(file)) == claimed), None)
    said = said_by(CONF / "train.yaml")
    base: Any = OmegaConf.merge(
        {key: said[key] for key in ("loss", "evaluate_on", "early_stopping")} | {"seed": cfg.seed},
        {group: said_by(file) if file else nodes[group] for group, file in files.items()},
        said_by(claim) if claim else {},
    )
    named_already = (*BESIDE, *IRRELEVANT)
    changes = [f"{key}={value}" for key, value in differences(cfg, base).items() if not is_within(key, named_already)]
    if groups["trainer"] not in PLAIN_TRAINERS:
        changes.insert(0, groups["trainer"])
    if groups["scheduler"] != "none" and {"override /scheduler": groups["scheduler"]} not in _defaults(claim):
        changes.insert(0, f"scheduler={groups['scheduler']}")
    if claim:
        groups["claim"] = claim.stem
        changes.insert(0, claim.stem)
    write(cfg, groups, changes)
    return cfg


def _claimed(cfg: DictConfig) -> dict[str, Any]:
    """Return what a claim says beyond defaults, less the data that it is of: that is given to try it on others."""
    from digitlab.config.claimed import Claim

    fields = Claim.model_fields
    said = (cfg.get("claim") or {}).items()
    return {key: value for key, value in said if key != "data" and value != fields[str(key)].default}


def _closest(group: str, node: DictConfig) -> Path | None:
    """Return the group's file with the fewest values that differ from those of `node`."""
    found = set(_values(OmegaConf.to_container(node)))
    like = [file for file in _files(group) if said_by(file).get("_target_") == node.get("_target_")]
    return min(like, key=lambda file: len(found ^ set(_values(OmegaConf.to_container(said_by(file))))), default=None)


def _values(node: Any, key: str = "") -> list[tuple[str, str]]:
    """Return every key and value, those in lists too."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        return [(key, str(canonical(node)))]
    return [each for name, child in children for each in _values(child, f"{key}.{name}")]


def _files(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


@cache
def said_by(file: Path) -> DictConfig:
    """Return what a file says, and the files beside it that it builds on."""
    content: Any = OmegaConf.load(file)
    content.pop("defaults", None)
    bases = [each for each in _defaults(file) if isinstance(each, str) and each != "_self_"]
    merged: Any = OmegaConf.merge(*(said_by(file.parent / f"{base}.yaml") for base in bases), content)
    return merged


def _defaults(file: Path | None) -> list[Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file else {}
    return content.get("defaults", [])
