"""Every value of a configuration under its dotted key."""

import json
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from digitlab.platform.text import printable


def flatten(cfg: DictConfig) -> dict[str, str]:
    """Return every leaf of `cfg` as text under its dotted key."""
    return {key: as_text(value) for key, value in leaves_of(cfg).items()}


def leaves_of(cfg: DictConfig) -> dict[str, Any]:
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


def canonical(value: Any) -> Any:
    """Write 1.0 as 1: who types either means the same."""
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_text(value: Any) -> str:
    """Write a value as it would be typed, fit for a screen."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    return printable(value) if isinstance(value, str) else json.dumps(value)


def is_within(key: str, nodes: Iterable[str]) -> bool:
    """Say whether a dotted key is one of `nodes` or lies in one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
