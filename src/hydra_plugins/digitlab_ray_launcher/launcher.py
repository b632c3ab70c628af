"""Hydra's way into digitlab.sweep.ray_cluster: hydra/launcher=ray."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from digitlab.sweep.ray_cluster import Cluster


class RayLauncher(Launcher):
    """Run cells on workers of Ray; conf/hydra/launcher/ray.yaml says what its keys mean."""

    def __init__(self, **keys: Any):
        self.keys = keys
        self.cluster: Cluster | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from digitlab.config.check import check_ray
        from digitlab.config.errors import check_extra

        check_ray(self.keys)
        check_extra("hydra/launcher=ray", ["ray"], "ray")
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def prepare(self) -> None:
        """Connect to the cluster or start one, unless that is done."""
        from digitlab.sweep.ray_cluster import Cluster

        self.cluster = self.cluster or Cluster(**self.keys)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from digitlab.sweep.ray_cell import pack

        self.prepare()
        assert self.cluster
        sweep = pack(self.hydra_context, self.config, self.task_function)
        return self.cluster.run(sweep, job_overrides, initial_job_idx)

    def close(self) -> None:
        """End the cluster that was started, or the connection to the one that runs."""
        if self.cluster:
            self.cluster.close()
