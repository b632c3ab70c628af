"""Runs that followed the recipes of claims; as lines of JSON, those of several machines are judged together."""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from digitlab.analysis.records import Result
from digitlab.claims.schema import Recipe

CURVES = ("val_acc", "val_loss", "epoch_s")
# Of what a run was made of, all but its seed and code is in its recipe. Host, command and folders concern nobody else.
KEPT = ("code commit", "data digest", "environment CPU", "environment GPU", "environment torch")


@dataclass(frozen=True)
class Followed:
    """A run that followed a recipe; `names_one_class`: for all images, where the claim is one that diverges."""

    recipe: Recipe
    result: Result
    names_one_class: bool = False

    @property
    def place(self) -> tuple:
        """Where it stands among others, whatever made them."""
        return (self.recipe.claim, self.recipe.counterpart, self.recipe.changes, self.result.data, self.result.seed)


def to_line(run: Followed) -> str:
    """Return a run as one line of JSON."""
    settings = {key: value for key, value in run.result.settings.items() if key in KEPT}
    result = asdict(replace(run.result, settings=settings, host="", command=""))
    curves = {key: [round(value, 6) for value in result[key].tolist()] for key in CURVES}
    recipe = {"claim": run.recipe.claim, "counterpart": run.recipe.counterpart, "changes": dict(run.recipe.changes)}
    return json.dumps(recipe | {"names_one_class": run.names_one_class} | {"result": result | curves})


def from_line(line: str) -> Followed:
    """Return the run that `to_line` wrote. Raises ValueError for any other line."""
    try:
        content = json.loads(line)
        recipe = Recipe(content["claim"], content["counterpart"], tuple(content["changes"].items()))
        result = content["result"]
        curves = {key: np.array(result[key], dtype=float) for key in CURVES}
        return Followed(recipe, Result(**result | curves), content["names_one_class"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("is no run of a claim") from None
