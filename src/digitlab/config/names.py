"""Name what a configuration chooses."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from digitlab.config.fingerprint import IRRELEVANT

GROUPS = ("model", "optim", "data", "scheduler", "trainer")


def groups(cfg: DictConfig) -> dict[str, str]:
    """Return what was chosen in each group: {"model": "cnn_pool", ...}; outside Hydra, the names of the targets."""
    if HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
        return {group: choices[group] for group in (*GROUPS, "claim", "counterpart") if choices.get(group)}
    return {group: cfg[group]._target_.rpartition(".")[2].lower() for group in GROUPS if cfg.get(group)}


def deviations() -> list[str]:
    """Return the overrides that change a run's result beyond its model, optimizer, data and seed, for its name."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = ("model", "optim", "data", "trainer", "seed", "data.root", "data.fallback")
    changes = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        value = override.partition("=")[2]
        if key in ("claim", "counterpart") or (key == "trainer" and value not in ("default", "cpu", "gpu")):
            changes.append(value)
        elif key not in named and not any(key == each or key.startswith(f"{each}.") for each in IRRELEVANT):
            changes.append(override.lstrip("+~"))
    return changes
