"""Identify a run by what can change its result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from digitlab.config.build import special_keys
from digitlab.config.code import own_modules
from digitlab.config.leaves import as_text, canonical, is_within, leaves_of
from digitlab.config.published import as_published, rename_targets

RESULTS = 2  # raise it with every change of the code that changes what a run of the same configuration gives
# What cannot change a run's result.
IRRELEVANT = (
    "names",
    "claim",
    "tracking",
    "rerun",
    "vs",
    "sweep",
    "report",
    "data.steps_per_execution",
    "trainer.callbacks.progress",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
)
# What decides which images are trained, validated and tested on: the digest of the splits stands for it.
IN_DIGEST = ("source", "root", "file", "size", "color", "fallback",
             "split", "val_fraction", "test_fraction", "skip_first", "split_seed", "folds", "fold")  # fmt: skip
# What may differ between runs that are fair to compare: names, what is measured beside, and what the digest stands for.
NO_SETTINGS = ("model", "optim", "data", "scheduler", "trainer", "counterpart", "seed", "parameters", "metrics")
NO_SETTING_NODES = (*IRRELEVANT, "data.root", "data.file", "data.fallback", "data.source")
NAMED_BY_USERS = ("digitlab.data.folders.image_folder", "digitlab.data.arrays.arrays")  # sources of others' classes
# Keys whose defaults "auto" and "???" the machine and the number of steps settle, and so no choice.
SETTLED = ("trainer.accelerator", "trainer.precision", "scheduler")


def is_setting(key: str) -> bool:
    """Say whether `key` is a choice that runs may be compared by, and must agree in where they are not."""
    return key not in NO_SETTINGS and not is_within(key, NO_SETTING_NODES)


def differences(cfg: DictConfig, base: DictConfig) -> dict[str, str]:
    """Return, as text, every leaf that `cfg` does not have as `base` has it; one that it lacks as "none"."""
    found, known = leaves_of(cfg), leaves_of(base)
    changed = {
        key: as_text(value)
        for key, value in found.items()
        if key not in known or canonical(value) != canonical(known[key])
    }
    return changed | {key: "none" for key in known if key not in found}


def deviations(recorded: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that were `recorded` of a run and are not the `defaults` of what it chose, flattened.

    One that has a default and was not recorded is "none".
    """
    changed = {}
    for key in sorted({*recorded, *defaults}):
        value, default = recorded.get(key, "none"), defaults.get(key, "none")
        is_settled = default in ("auto", "???") and is_within(key, SETTLED)
        if is_setting(key) and value != default and not is_settled:
            changed[key] = value
    return changed


def processes(cfg: DictConfig) -> int:
    """Return how many processes share the run of `cfg`."""
    return cfg.trainer.get("devices", 1) * cfg.trainer.get("num_nodes", 1)


def fingerprint(cfg: DictConfig, digest: str, classes: Sequence[str] = ()) -> str:
    """Hash what in the resolved `cfg` can change a run's result, the data standing as the `digest` of its splits.

    The names of the `classes`, which a model answers with, count where the user gives them with the images.
    """
    relevant = _relevant(cfg)
    settings = rename_targets({key: canonical(value) for key, value in relevant.items()}, as_published)
    targets, code = _targets(relevant), {}
    for name, file in own_modules(targets).items():
        hashed = hashlib.sha256(file.read_bytes()).hexdigest()
        # Version 0.1 hashed the module of each target, under the target's name: a network in one file keeps its runs.
        code |= dict.fromkeys([each for each in targets if each.rpartition(".")[0] == name] or [name], hashed)
    results = {"results": RESULTS, **_partial_changes(settings)}
    if (count := processes(cfg)) > 1:  # on how many machines they are changes nothing
        results["processes"] = count
    source = str(OmegaConf.select(cfg, "data.source._target_"))
    if classes and (not source.startswith("digitlab.data.") or source in NAMED_BY_USERS):
        results["classes"] = list(classes)
    content = json.dumps(settings | {"digest": digest, "code": code} | results, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _partial_changes(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands for changes of the code that changed the results of some runs only, of which this is one."""
    is_augmented = settings.get("data.augment.shift") or settings.get("data.augment.rotate")
    if is_augmented and settings.get("trainer.precision") == "bf16-mixed":
        return {"augmentation": "float32"}  # 0.1 computed places in bfloat16
    return {}


def own_code(cfg: DictConfig) -> dict[str, Path]:
    """Return the user's own modules that a run of `cfg` is made with, those that read its data too: name -> file."""
    return own_modules(_targets(leaves_of(cfg)))


def _relevant(cfg: DictConfig) -> dict[str, Any]:
    skipped = (*IRRELEVANT, *(f"data.{name}" for name in IN_DIGEST), "trainer.devices", "trainer.num_nodes")
    return {key: value for key, value in leaves_of(cfg).items() if not is_within(key, skipped)}


def _targets(relevant: dict[str, Any]) -> list[str]:
    inner = [value for _, name, value in special_keys(list(relevant.values())) if name == "_target_"]
    return [value for key, value in relevant.items() if key.endswith("._target_")] + inner
