"""Hydra's way into digitlab.sweep: expand the cells of a multirun and hand them over."""

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


class ResumingSweeper(BasicSweeper):
    """Run the product of the choices, as Hydra's own sweeper does, but only what is not done yet."""

    def sweep(self, arguments: list[str]) -> None:
        from digitlab.sweep import sweep  # torch loads only for a sweep, not whenever Hydra looks for plugins

        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        (cells,) = self.split_arguments(overrides, max_batch_size=None)
        sweep(
            cells,
            compose=lambda cell: loader.load_sweep_config(self.config, list(cell)),
            launch=self.launcher.launch,
            one_by_one=isinstance(self.launcher, BasicLauncher),
        )
