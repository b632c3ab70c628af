"""The labelled images that a model is evaluated on: those it was tested on, or others."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from digitlab.config.arguments import check_arguments, check_slips, parsed, understood
from digitlab.config.build import build
from digitlab.config.check import check
from digitlab.config.compose import compose, configuration
from digitlab.config.errors import UserError, user_errors
from digitlab.config.fingerprint import IN_DIGEST
from digitlab.data.datamodule import ImageData
from digitlab.data.on_disk import AT_ONCE, Stored
from digitlab.inference.model import TrackedModel
from digitlab.tracking import queries
from digitlab.tracking.store import Store

CHOOSING = ("data", *(f"data.{key}" for key in IN_DIGEST if key not in ("size", "color", "fallback")))


class Labelled(NamedTuple):
    """Uint8 images of the model's size, labels as its classes count them, and what is to be said of them."""

    name: str
    images: Tensor
    labels: Tensor
    remark: str
    is_own: bool  # those that the run was tested on

    @property
    def digest(self) -> str:
        """Tell these images and labels from others."""
        content = hashlib.sha256(self.images.numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()[:12]


def load(store: Store, model: TrackedModel, overrides: Sequence[str], whole: bool) -> Labelled:
    """Load what `overrides` of the run's own data say; of all splits with `whole`, else the test images.

    Raises UserError for data whose classes the model does not know, and for images that it was trained or chosen on.
    """
    _check(model, overrides)
    cfg, own = _own(store, model)
    data = own if own and not (overrides or whole) else _asked(model, cfg, overrides)
    with user_errors("data"):
        if whole:
            found = data.read()
            pairs = [each for each in (found.train, found.val, found.test) if each]
        else:
            data.setup()
            found, pairs = data.ready, [data.splits["test"]]
    if unknown := [each for each in found.classes if each not in model.classes]:
        raise UserError(
            f"data: has the class {unknown[0]}, unknown to {model.name}; its classes: {', '.join(model.classes)}"
        )
    images, labels = (torch.cat([pair[part].cpu() for pair in pairs]) for part in range(2))
    images, known = model.fit(images), torch.tensor([model.classes.index(each) for each in found.classes])
    is_own = not whole and data.digest.startswith(model.data_digest)
    remark = "the images that the run was tested on" if is_own else "other images than the run was tested on"
    if not is_own and own:
        # The run is judged itself by those that were tested, though one be twice in the data.
        tested = set(_hashes(own.splits["test"][0]))
        seen = {each for part in ("train", "val") for each in _hashes(own.splits[part][0])} - tested
        if count := sum(each in seen for each in _hashes(images)):
            raise UserError(f"{'--all' if whole else 'data'}: {model.name} was trained or chosen on {count:,} of these "
                            f"{len(images):,} images; its own test images are taken without an argument")  # fmt: skip
    elif not is_own:
        remark += ", whose own are not here: it may have been trained on these"
    return Labelled(found.name, images, known[labels], remark, is_own)


def _check(model: TrackedModel, overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        if not equals or key.partition(".")[0] != "data":
            raise UserError(f"{override}: must be data=NAME or data.KEY=VALUE")
        if key in ("data.size", "data.color"):
            height, width = model.shape
            kind = "in colour" if model.has_color else "gray"
            raise UserError(f"{override}: is the model's: {width} x {height}, {kind}")
        if key not in CHOOSING and not key.startswith("data.source."):
            raise UserError(f"{override}: chooses no images; allowed: {', '.join(CHOOSING)}")
    check_arguments(overrides)
    check_slips(overrides, is_one=True)


def _own(store: Store, model: TrackedModel) -> tuple[DictConfig | None, ImageData | None]:
    """Return a configuration with the run's own data, and those; None where it is gone, or they are or have changed."""
    with queries.artifact(store, model.run_id, "config.yaml") as file:
        if file is None:
            return None, None
        recorded = OmegaConf.load(file).data
    with configuration():
        cfg = compose()
    OmegaConf.set_struct(cfg, False)
    cfg.data, fallback = recorded, recorded.get("fallback")
    taken = cfg.copy()
    if fallback:
        taken.data.source, taken.data.root, taken.data.file = fallback, None, None
    for each in (cfg, taken) if fallback else (cfg,):
        each.data.fallback = None  # other images would be another question
        with suppress(OSError, ValueError, UserError):
            data = build(check(each.copy()), "data")
            data.setup()
            if data.digest.startswith(model.data_digest):
                return each, data
    return cfg, None


def _asked(model: TrackedModel, own: DictConfig | None, overrides: Sequence[str]) -> ImageData:
    """Return the data that `overrides` name, or what they change of the run's `own`."""
    if any(each.startswith("data=") for each in overrides):
        with configuration():
            cfg = compose(*understood(overrides))
        OmegaConf.set_struct(cfg, False)
        cfg.data.fallback = None
    elif own is None:
        raise UserError(f"{model.name}: its config.yaml is gone; name the data, as in data=mnist")
    else:
        cfg = own
        for key, value in parsed(overrides).items():
            OmegaConf.update(cfg, key, value)
    data = build(check(cfg), "data")
    data.reading = model.reading
    return data


def _hashes(images: Stored) -> Iterator[int]:
    """Yield a number for each image, the same for the same pixels."""
    for start in range(0, len(images), AT_ONCE):
        yield from (hash(each.tobytes()) for each in images[start : start + AT_ONCE].cpu().numpy())
