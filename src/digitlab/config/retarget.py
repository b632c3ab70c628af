"""Leave out what a file gave to its target where the command line names another one."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from digitlab.config.build import takes
from digitlab.config.leaves import is_within

OURS = ("data", "trainer")  # whose keys are those of a run
OF_ALL = ("optim.lr",)  # what every target takes


def retarget(cfg: DictConfig) -> None:
    """Take from each node of `cfg` whose `_target_` was typed the keys of its file, where this target lacks any.

    One that takes them all, as a class made of the file's does, keeps them; `dropout` of another network may be another
    thing. What was typed stays, as a mistake where the target lacks it.
    """
    typed = cfg.names.get("typed", ())
    for key in typed:
        above, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, above) if name == "_target_" and above not in OURS else None
        if isinstance(node, DictConfig):
            keys = {str(inner): f"{above}.{inner}" for inner in node if not str(inner).startswith("_")}
            of_file = {inner: whole for inner, whole in keys.items() if not any(is_within(t, [whole]) for t in typed)}
            with suppress(Exception):  # what is wrong with a target is said where it is built
                lacking = [inner for inner in of_file if not takes(node._target_, inner)]
                for inner, whole in of_file.items() if lacking else ():
                    if inner in lacking or whole not in OF_ALL:
                        del node[inner]


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the key of each value that overrides in Hydra's grammar give."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [key for each in parsed for key in _leaves(each.key_or_group, each.value())]


def _leaves(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key
