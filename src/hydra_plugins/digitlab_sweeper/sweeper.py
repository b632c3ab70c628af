"""Hydra's way into digitlab.sweep.execute: expand the cells of a multirun and hand them over."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil, prod
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from digitlab.platform.signals import end_with_parent

MOST_CELLS = 10_000  # to plan so many takes minutes


class ResumingSweeper(BasicSweeper):
    """Run the product of the choices, as Hydra's own sweeper does, but only what is not done yet.

    `per_optim` maps a choice of `optim` to one more override, over whose choices only that optimizer's cells go.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None, per_optim: Mapping[str, str] | None):
        super().__init__(max_batch_size, params)
        self.per_optim = per_optim

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        name = config.hydra.runtime.choices["hydra/launcher"]
        try:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        except RuntimeError as error:  # Hydra does not know the class
            raise HydraException(
                f"hydra/launcher={name}: is not installed; pip install '.[{name}]' in digitlab's folder"
            ) from error
        if name == "joblib":
            launcher: Any = self.launcher
            # It says after each cell how many are done and how long the rest will take. From their first moment its
            # workers end with this process; else they would go on with cells that nobody waits for.
            launcher.joblib |= {"verbose": 100, "pre_dispatch": "all"}
            launcher.joblib |= {"initializer": end_with_parent, "initargs": (os.getpid(),)}

    def sweep(self, arguments: list[str]) -> None:
        from digitlab.config.check import check_launcher, check_sweep
        from digitlab.config.compose import without_hydra
        from digitlab.platform.startup import fast_imports

        with fast_imports():  # torch loads only for a sweep, not whenever Hydra looks for plugins
            from digitlab.sweep.execute import sweep
            from digitlab.sweep.submitit_internals import TARGET
        config, context, launcher = self.config, self.hydra_context, self.launcher
        assert config and context and launcher, "Hydra calls setup first"  # noqa: PT018
        loader, name = context.config_loader, config.hydra.runtime.choices["hydra/launcher"]
        check_sweep(config)  # it decides which cells there are

        @cache
        def compose_all_but_seed(cell: tuple[str, ...]) -> DictConfig:
            cfg = without_hydra(loader.load_sweep_config(config, list(cell)))
            check_launcher(cfg, name)
            return cfg

        def compose(cell: Sequence[str]) -> DictConfig:
            """Compose once for all seeds: it takes longer than all the rest of looking a cell up.

            What it returns is good until the next call.
            """
            seed = [override for override in cell if override.startswith("seed=")]
            cfg = compose_all_but_seed(tuple(each for each in cell if each not in seed))
            cfg.merge_with_dotlist(seed)
            return cfg

        try:
            sweep(
                self._cells(arguments),
                compose=compose,
                launch=launcher.launch,
                at_once=_at_once(launcher),
                cluster=launcher if config.hydra.launcher._target_ == TARGET else None,
                prepare=getattr(launcher, "prepare", lambda: None),
            )
        finally:
            getattr(launcher, "close", lambda: None)()
        if hasattr(self.launcher, "joblib"):  # its workers are idle: left to themselves they end in three seconds
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor(reuse=True).shutdown(kill_workers=True)  # pyright: ignore[reportArgumentType]  its stub

    def _cells(self, arguments: list[str]) -> list[list[str]]:
        """Return the overrides of every cell; those of `arguments` stand in place of the sweep file's own."""
        seeds = [each for each in arguments if each.startswith(("seed=", "sweep.seeds="))]
        if len({each.partition("=")[0] for each in seeds}) > 1:
            raise ConfigCompositionException(f"{' and '.join(seeds)}: both say which seeds to run; give one")
        assert self.config
        count = self.config.sweep.seeds
        if count == "auto":  # a sweep file says range(${sweep.seeds})
            self.params = {key: value for key, value in self.params.items() if value != "range(auto)"}
        told = [each for each in [*self._parse_config(), *arguments] if each.startswith("seed=")]
        if count == "auto" and told:
            raise ConfigCompositionException(f"sweep.seeds=auto and {told[-1]}: both say which seeds to run; give one")
        if count not in ("auto", 1) and not told:
            arguments = [*arguments, f"seed=range({count})"]
        cells = self._product(arguments)
        if not self.per_optim:
            return cells
        optims = dict.fromkeys(override for cell in cells for override in cell if override.startswith("optim="))
        unknown = [optim for optim in optims if optim.removeprefix("optim=") not in self.per_optim]
        if unknown:
            known = ", ".join(self.per_optim)
            raise ConfigCompositionException(f"{unknown[0]}: this sweep has values for {known} only")
        own = {optim: self.per_optim[optim.removeprefix("optim=")] for optim in optims}
        return [cell for optim in optims for cell in self._product([own[optim], *arguments, optim])]

    def _product(self, arguments: list[str]) -> list[list[str]]:
        from digitlab.config.arguments import check_arguments

        assert self.hydra_context
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        arguments = [*self._parse_config(), *arguments]
        check_arguments(arguments)  # a sweep file's own are held to what may be typed
        overrides = parser.parse_overrides(arguments)
        last = {override.get_key_element(): override for override in overrides}  # the command line's, where both say
        if (count := prod(map(_choices, last.values()))) > MOST_CELLS:
            raise ConfigCompositionException(f"{count:,} cells: allowed: {MOST_CELLS:,} in one sweep")
        if empty := [override.input_line for override in last.values() if not _choices(override)]:
            raise ConfigCompositionException(f"{empty[0]}: has no value, so there is no run")
        (cells,) = self.split_arguments(overrides, max_batch_size=None)
        return cells


def _at_once(launcher: Any) -> int | None:
    """Return how many cells a launcher runs at once; None where only it knows."""
    if isinstance(launcher, BasicLauncher):
        return 1
    if hasattr(launcher, "joblib"):
        from joblib import effective_n_jobs

        return effective_n_jobs(launcher.joblib["n_jobs"])
    told = getattr(launcher, "keys", {}).get("n_jobs", 0)
    return told if told > 0 else None


def _choices(override: Override) -> int:
    """Count the values that a sweep goes through for an override, without making them."""
    if not override.is_sweep_override():
        return 1
    if not override.is_range_sweep():
        return len(list(override.sweep_string_iterator()))
    values: Any = override.value()
    return max(0, ceil((values.stop - values.start) / values.step)) if values.step else 0
