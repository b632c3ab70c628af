"""Know the names that were published by those that the code has now."""

from collections.abc import Callable
from typing import Any

MOVED = {  # module of 0.1 -> where its classes and functions are now
    "digitlab.networks": "digitlab.models.networks",
    "digitlab.layers": "digitlab.models.layers",
    "digitlab.data": "digitlab.data.datamodule",
    "digitlab.sources": "digitlab.data.sources",
    "digitlab.progress": "digitlab.training.progress",
}
PUBLISHED = {now: before for before, now in MOVED.items()}


def current(name: str) -> str:
    """Return where what 0.1 called `name` is now; any other name as it is."""
    return _rename(name, MOVED)


def as_published(name: str) -> str:
    """Return what 0.1 called what is now called `name`; any other name as it is."""
    return _rename(name, PUBLISHED)


def rename_targets(node: Any, rename: Callable[[str], str]) -> Any:
    """Return `node` with every `_target_` in it renamed, the last part of a dotted key too."""
    if isinstance(node, list):
        return [rename_targets(each, rename) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: rename(value)
        if isinstance(value, str) and str(key).rpartition(".")[2] == "_target_"
        else rename_targets(value, rename)
        for key, value in node.items()
    }


def _rename(name: str, modules: dict[str, str]) -> str:
    module, _, attribute = name.rpartition(".")
    return f"{modules.get(module, module)}.{attribute}" if module else name
