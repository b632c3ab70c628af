"""Hydra's way into digitlab.sweep: expand the cells of a multirun and hand them over."""

from collections.abc import Sequence
from functools import cache

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


class ResumingSweeper(BasicSweeper):
    """Run the product of the choices, as Hydra's own sweeper does, but only what is not done yet."""

    def sweep(self, arguments: list[str]) -> None:
        from digitlab.sweep import sweep  # torch loads only for a sweep, not whenever Hydra looks for plugins

        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        (cells,) = self.split_arguments(overrides, max_batch_size=None)

        @cache
        def compose_all_but_seed(cell: tuple[str, ...]) -> DictConfig:
            return loader.load_sweep_config(self.config, list(cell))

        def compose(cell: Sequence[str]) -> DictConfig:
            """Compose once for all seeds: it takes longer than all the rest of looking a cell up."""
            seed = [override for override in cell if override.startswith("seed=")]
            cfg = compose_all_but_seed(tuple(override for override in cell if override not in seed))
            return OmegaConf.merge(cfg, OmegaConf.from_dotlist(seed))

        sweep(
            cells,
            compose=compose,
            launch=self.launcher.launch,
            one_by_one=isinstance(self.launcher, BasicLauncher),
        )
