"""Compose configurations of the files in conf/, as the command line does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from digitlab import CONF, REPOSITORY
from digitlab.config import environment, hydra_internals  # noqa: F401  every composition goes through them
from digitlab.config.names import record

# The files in conf/ write ${repository:mlruns} for a path beside data/ and reports/.
OmegaConf.register_new_resolver("repository", lambda path: str(REPOSITORY / path), replace=True)


@contextmanager
def configuration() -> Iterator[None]:
    """Let `compose` be called within this context; where Hydra runs the program it may be called as it is."""
    instance = GlobalHydra.instance()
    before = instance.hydra
    instance.clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def compose(*overrides: str) -> DictConfig:
    """Return what the command line makes of `overrides`, with the names of what they choose."""
    return without_hydra(hydra.compose("train", list(overrides), return_hydra_config=True))


def choices_of(folder: Path) -> str:
    """Return the override that adds the files of a folder to the choices, whatever the folder is called."""
    return f"hydra.searchpath=[{QuotedString(f'file://{folder}', Quote.single).with_quotes()}]"


def without_hydra(composed: DictConfig) -> DictConfig:
    """Return `composed` without Hydra's own node, of which the names of what was chosen are kept."""
    cfg = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    record(cfg, composed.hydra)
    return cfg
