"""Tell which published claim's recipe a run of a sweep followed, and what it changed in it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab import CONF
from digitlab.claims.schema import Claim, Count, Layers, Recipe, Statement
from digitlab.config import schema
from digitlab.config.build import build
from digitlab.config.check import check
from digitlab.config.compose import compose
from digitlab.config.errors import UserError, one_line
from digitlab.config.fingerprint import deviations, differences, is_setting
from digitlab.config.leaves import flatten
from digitlab.config.names import groups
from digitlab.config.settled import settle

_compose = cache(compose)
NO_RECIPE = ("seed", "sweep")  # of the overrides of a sweep's cell
ACCELERATOR = "trainer.accelerator"  # a document says nothing of it: a claim run elsewhere is the same claim


def recipes_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, Recipe]:
    """Return, by fingerprint, what each cell of a claim follows, of those that can be composed here."""
    return {fingerprint: recipe for fingerprint, recipe in _followed(cells) if isinstance(recipe, Recipe)}


def unknown_of(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why cells of a claim cannot be composed here: each reason once."""
    return list(dict.fromkeys(recipe for _, recipe in _followed(cells) if isinstance(recipe, str)))


def _followed(cells: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Recipe | str | None]]:
    """Yield the fingerprint of each cell that chooses a claim, and what it follows, or why that is not known."""
    for cell in cells:
        keys = [override.lstrip("+").partition("=")[0] for override in cell.get("overrides", ())]
        if {"claim", "counterpart"} & set(keys):
            named = zip(keys, cell["overrides"], strict=True)
            told = tuple(override for key, override in named if key.partition(".")[0] not in NO_RECIPE)
            yield cell["fingerprint"], _recipe_or_reason(told)


@cache
def _recipe_or_reason(overrides: tuple[str, ...]) -> Recipe | str | None:
    try:
        return _recipe(overrides)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:  # of a file from elsewhere, or gone
        return one_line(error)


def _recipe(overrides: tuple[str, ...]) -> Recipe | None:
    """Compose a run and its claim's own recipe, and return what differs; None where the run has no claim."""
    cfg = _compose(*overrides)
    choices = groups(cfg)
    if not choices.get("claim"):
        return None
    own = f"claim={choices['claim']}"
    chosen = groups(_compose(own))
    others = {key: choices[key] for key in ("model", "optim", "scheduler") if choices[key] != chosen[key]}
    base = _compose(own, *(f"{key}={choice}" for key, choice in others.items()))
    changes = {
        key: value
        for key, value in differences(_settled(cfg), _settled(base)).items()
        if is_setting(key) and key != ACCELERATOR
    }
    changes = others | changes
    return Recipe(choices["claim"], (choices.get("counterpart") or "") if changes else "", tuple(changes.items()))


@cache
def changes_of(counterpart: str) -> dict[str, str]:
    """Return what a counterpart changes in its claim's recipe."""
    recipe = _recipe((f"counterpart={counterpart}",))
    return dict(recipe.changes) if recipe else {}


def _settled(cfg: DictConfig) -> DictConfig:
    found = cfg.copy()
    OmegaConf.set_struct(found, False)
    settle(found)
    return found


def recipe_of(recorded: Mapping[str, str]) -> Recipe | None:
    """Return what a run followed by what was `recorded` of it, flattened; None where there is no such claim."""
    name = recorded.get("claim", "")
    if not (CONF / "claim" / f"{name}.yaml").is_file():
        return None
    chosen = groups(_compose(f"claim={name}"))
    kinds = ("model", "optim", "scheduler")
    others = {key: recorded[key] for key in kinds if recorded.get(key, chosen[key]) != chosen[key]}
    defaults = _defaults(name, tuple(others.items()), int(recorded.get("seed", 0)))
    changes = others | deviations(recorded, defaults)
    changes.pop(ACCELERATOR, None)
    return Recipe(name, recorded.get("counterpart", "") if changes else "", tuple(changes.items()))


@cache
def _defaults(claim: str, others: tuple[tuple[str, str], ...], seed: int) -> dict[str, str]:
    """Return the configuration of a claim, flattened; with the `others` of its choices where these are files, too."""
    known = [f"{key}={choice}" for key, choice in others if (CONF / key / f"{choice}.yaml").is_file()]
    cfg = _compose(f"claim={claim}", *known).copy()
    cfg.seed = seed  # which others follow, such as the fold
    return flatten(_settled(check(cfg)))


@cache
def read_claim(name: str, *overrides: str) -> Claim:
    """Return what conf/claim/`name` says, and what the networks that it speaks of have."""
    cfg = _compose(f"claim={name}", *overrides)
    model = groups(cfg)["model"]
    said = schema.Claim.model_validate(OmegaConf.to_container(cfg.claim, resolve=True)).model_dump()
    said["statements"] = [
        Statement(**each, ratio=_parameters(each["of"]) / _parameters(each["to"])) for each in said["statements"]
    ]
    said["counts"] = [Count(model, printed, _parameters(model)) for model, printed in said["counts"].items()]
    printed = said["layers"]
    said["layers"] = Layers(printed, _by_layer(model)[: len(printed)]) if printed else None
    return Claim(
        name=name,
        model=model,
        optim=groups(cfg)["optim"],
        folds=cfg.data.get("folds") or 1,
        is_validated_on_test=cfg.data.split == "test" and not said["tested_once"],
        **said,
    )


def _parameters(model: str) -> int:
    """Count the parameters of a network of conf/model."""
    return sum(_by_layer(model))


@cache
def _by_layer(model: str) -> list[int]:
    """Count the parameters of each layer that has any of a network of conf/model."""
    network = build(check(compose(f"model={model}")), "model", num_classes=10, input_shape=(1, 28, 28))  # of MNIST
    counts = [sum(each.numel() for each in layer.parameters(recurse=False)) for layer in network.modules()]
    return [count for count in counts if count]
