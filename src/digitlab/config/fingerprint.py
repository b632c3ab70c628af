"""Identify a run by what can change its result."""

import hashlib
import inspect
import json
from pathlib import Path

from hydra.utils import get_object
from omegaconf import DictConfig

from digitlab.config.leaves import as_text, canonical, leaves_of

RESULTS = 2  # raise it with every change of the code that changes what a run of the same configuration gives
# What cannot change a run's result.
IRRELEVANT = (
    "claim",
    "tracking",
    "rerun",
    "sweep",
    "data.steps_per_execution",
    "trainer.callbacks.progress",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
# What decides which images are trained, validated and tested on: the digest of the splits stands for it.
IN_DIGEST = ("source", "root", "fallback", "split", "val_fraction", "test_fraction", "skip_first", "split_seed")
# What may differ between runs that are fair to compare: names, and what the digest of the data stands for.
NO_SETTINGS = ("model", "optim", "data", "scheduler", "trainer", "counterpart", "seed", "parameters")
NO_SETTING_NODES = (*IRRELEVANT, "data.root", "data.fallback", "data.source")


def is_setting(key: str) -> bool:
    """Say whether `key` is a choice that runs may be compared by, and must agree in where they are not."""
    inside = any(key == node or key.startswith(f"{node}.") for node in NO_SETTING_NODES)
    return key not in NO_SETTINGS and not inside


def differences(cfg: DictConfig, base: DictConfig) -> dict[str, str]:
    """Return, as text, every leaf that `cfg` does not have as `base` has it; one that it lacks as "none"."""
    found, known = leaves_of(cfg), leaves_of(base)
    changed = {
        key: as_text(value)
        for key, value in found.items()
        if key not in known or canonical(value) != canonical(known[key])
    }
    return changed | {key: "none" for key in known if key not in found}


def fingerprint(cfg: DictConfig, digest: str) -> str:
    """Hash what in the resolved `cfg` can change a run's result, the data standing as the `digest` of its splits."""
    skipped = (*IRRELEVANT, *(f"data.{name}" for name in IN_DIGEST))
    relevant = {
        key: canonical(value)
        for key, value in leaves_of(cfg).items()
        if not any(key == each or key.startswith(f"{each}.") for each in skipped)
    }
    code = {value: _source(value) for key, value in relevant.items() if key.endswith("._target_") and _source(value)}
    content = json.dumps(relevant | {"digest": digest, "results": RESULTS, "code": code}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _source(target: str) -> str:
    """Hash the file of a target that is neither ours, which RESULTS stands for, nor of a released package."""
    try:
        file = inspect.getsourcefile(inspect.getmodule(get_object(target)))
    except Exception:  # which `build` will say
        return ""
    if file is None or target.startswith("digitlab.") or "site-packages" in file:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
