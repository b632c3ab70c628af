"""The labelled images that a model is evaluated on: those it was tested on, or others."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor

from digitlab.config.arguments import check_arguments, check_slips, understood
from digitlab.config.build import build
from digitlab.config.check import check
from digitlab.config.compose import compose, configuration
from digitlab.config.errors import UserError, user_errors
from digitlab.data.datamodule import ImageData
from digitlab.inference.model import TrackedModel
from digitlab.tracking import queries
from digitlab.tracking.store import Store


class Labelled(NamedTuple):
    """Uint8 images of the model's size, labels as its classes count them, and what is to be said of them."""

    name: str
    images: Tensor
    labels: Tensor
    remark: str


def load(store: Store, model: TrackedModel, overrides: Sequence[str], whole: bool) -> Labelled:
    """Load what `overrides` of the run's own data say; of all splits with `whole`, else the test images.

    Raises UserError for data whose classes the model does not know, and for `whole` where it was trained on them.
    """
    data, is_own = _data(store, model, overrides), False
    with user_errors("data"):
        if whole:
            found = data.read()
            pairs = [each for each in (found.train, found.val, found.test) if each]
            with suppress(ValueError):  # what is too small to be split was not trained on
                data.loaded = data.division.apply(found)
                is_own = data.digest.startswith(model.data_digest)
        else:
            data.setup()
            found, pairs = data.ready, [data.splits["test"]]
            is_own = data.digest.startswith(model.data_digest)
    if whole and is_own:
        raise UserError(f"--all: {model.name} was trained on some of these; leave it out to take its test images")
    images, labels = (torch.cat([pair[part].cpu() for pair in pairs]) for part in range(2))
    if unknown := [each for each in found.classes if each not in model.classes]:
        raise UserError(
            f"data: has the class {unknown[0]}, unknown to {model.name}; its classes: {', '.join(model.classes)}"
        )
    known = torch.tensor([model.classes.index(each) for each in found.classes])
    remark = "the images that the run was tested on" if is_own else "other images than the run was tested on"
    return Labelled(found.name, model.fit(images), known[labels], remark)


def _data(store: Store, model: TrackedModel, overrides: Sequence[str]) -> ImageData:
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        if not equals or key.partition(".")[0] != "data":
            raise UserError(f"{override}: must be data=NAME or data.KEY=VALUE")
        if key in ("data.size", "data.color"):
            height, width = model.shape
            raise UserError(
                f"{override}: is the model's: {width} x {height}, {'in colour' if model.has_color else 'gray'}"
            )
    check_arguments(overrides)
    check_slips(overrides, is_one=True)
    with configuration():
        if any(each.startswith("data=") for each in overrides):
            cfg = compose(*understood(overrides))
        else:
            cfg = compose()
            OmegaConf.set_struct(cfg, False)
            with queries.artifact(store, model.run_id, "config.yaml") as file:
                if file is None:
                    raise UserError(f"{model.name}: its config.yaml is gone; name the data, as in data=mnist")
                cfg.data = OmegaConf.load(file).data
            for override in overrides:
                OmegaConf.update(cfg, *override.lstrip("+").split("=", 1))
    OmegaConf.set_struct(cfg, False)
    cfg.data.fallback = None  # other images would be another question
    return build(check(cfg), "data")
