"""Know the names that were published by those that the code has now."""

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


def _rename(name: str, modules: dict[str, str]) -> str:
    module, _, attribute = name.rpartition(".")
    return f"{modules.get(module, module)}.{attribute}" if module else name
