"""Try every part of a run on some images before the run exists, so that what cannot work ends in one line.

What is tried is changed by it, and thrown away: the run has its own, built anew from the same seed.
"""

import copy
import math
import warnings
from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from digitlab.config.errors import UserError, one_line, user_errors
from digitlab.data.datamodule import ImageData
from digitlab.models.layers import ReluDropout
from digitlab.models.predictor import Predictor, check_numbers, export_program
from digitlab.platform import console
from digitlab.platform.text import shorten
from digitlab.training.checkpoint import EpochCheckpoint, check_state
from digitlab.training.classifier import Classifier
from digitlab.training.precision import scaler_of_a_trial

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, ReluDropout)
FEW = 2  # images of one whole step, as many as the example of the logged model has


def try_network(network: nn.Module, data: ImageData, trainer: pl.Trainer) -> None:
    """Call `network` with a batch of each size that will come; have `data` join the last image where it must be.

    Layers of torch and digitlab treat all sizes above one alike, so a network of those sees just FEW images, and 1.
    Raises UserError where an output is not what a classifier gives.
    """
    if not any(True for _ in network.parameters()):
        raise UserError("model: has no parameters, so there is nothing to train")
    for name, layer in network.named_modules():
        if isinstance(layer, DROPOUTS) and layer.p == 1:
            raise UserError(f"model: {name}: a dropout of 1 lets nothing through; allowed: from 0 and below 1")
    device = trainer.strategy.root_device
    network.to(device)
    training = {FEW, *data.batch_sizes("train", device)}
    evaluation = {FEW, *data.batch_sizes("val", device), *data.batch_sizes("test", device)}
    if are_known := _is_of_known_layers(network):
        training, evaluation = training & {1, FEW}, evaluation & {1, FEW}
    for size in sorted(training, reverse=True):
        try:
            _try_batch(network.train(), data, trainer, size)
        except UserError:
            if size > 1 or data.batch_size == 1 or data.share != (0, 1):
                raise
            data.joins_last = True
            console.say(f"the last image of each epoch joins the batch before it: {data.batch_size} + 1 images")
            if not are_known:
                _try_batch(network.train(), data, trainer, data.batch_size + 1)
    for size in sorted(evaluation, reverse=True):
        _try_batch(network.eval(), data, trainer, size)


def _try_batch(network: nn.Module, data: ImageData, trainer: pl.Trainer, size: int) -> None:
    images, _ = _some(data, size, trainer)
    count, doing = "1 image" if size == 1 else f"{size} images", "training" if network.training else "evaluation"
    wanted = f"must be logits, floats of shape ({size}, {data.num_classes})"
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        try:
            output = network(images)
        except Exception as error:
            said = shorten(f"{type(error).__name__}: {one_line(error)}")
            raise UserError(f"model: fails at a batch of {count} in {doing}: {said}") from error
    if not isinstance(output, Tensor):
        raise UserError(f"model: its output is a {type(output).__name__}; {wanted}")
    if output.shape != (size, data.num_classes):
        raise UserError(f"model: its output for {count} has the shape {tuple(output.shape)}; {wanted}")
    if not output.is_floating_point():
        raise UserError(f"model: its output is of {output.dtype}; {wanted}")


def try_step(classifier: Classifier, data: ImageData, trainer: pl.Trainer) -> None:
    """Take one optimizer step; raise UserError where it fails, gives no number, or reaches no parameter."""
    classifier.to(trainer.strategy.root_device).train()
    network, classifier.scaler = classifier.network, scaler_of_a_trial(trainer)
    _try_loss(classifier, data.num_classes)
    images, labels = _some(data, FEW, trainer)
    try:
        with trainer.precision_plugin.train_step_context():
            loss = float(classifier._step(images, labels)[0])
    except Exception as error:
        has_gradients = any(each.grad is not None for each in network.parameters())
        raise UserError(f"{'optim' if has_gradients else 'model: cannot be trained'}: {one_line(error)}") from error
    untouched = [name for name, each in network.named_parameters() if each.requires_grad and each.grad is None]
    if not math.isfinite(loss):
        raise UserError(
            f"model: its loss is {loss} at the first step, by its layers, or by data.normalize, mean and std"
        )
    if untouched:
        more = f" and {len(untouched) - 1} more" if len(untouched) > 1 else ""
        console.warn(f"model: no gradient reaches {untouched[0]}{more}, so training leaves it as it is")


def _try_loss(classifier: Classifier, classes: int) -> None:
    """Raise UserError where the loss does not make one number of logits and labels."""
    count = classes + 1  # with as many images as classes the one would be taken for the other
    logits, labels = torch.zeros(count, classes, device=classifier.device), torch.arange(count) % classes
    told = f"logits ({count}, {classes}) and labels ({count})"
    try:
        with warnings.catch_warnings(action="ignore"):
            value = classifier.loss(logits, labels.to(classifier.device))
    except Exception as error:
        raise UserError(f"loss: fails at {told}, one number each: {shorten(one_line(error))}") from error
    if not isinstance(value, Tensor) or value.shape != ():
        got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"loss: makes {got} of {told}; must make a tensor of one number")


def try_scheduler(classifier: Classifier, epochs: int, steps: int) -> None:
    """Step the scheduler as often as the run will; raise UserError where it cannot."""
    scheduler = classifier.scheduler
    if scheduler is None:
        return
    is_by_epoch = isinstance(scheduler, ReduceLROnPlateau)
    if is_by_epoch and scheduler.mode != "min":
        raise UserError(
            f"scheduler.mode={scheduler.mode}: allowed: min, for of monitor=val/acc it gets the share of errors"
        )
    with user_errors(f"scheduler: of {steps:,} steps in {epochs} epochs"), warnings.catch_warnings(action="ignore"):
        for _ in range(epochs if is_by_epoch else steps):
            scheduler.step(0.0) if is_by_epoch else scheduler.step()


def try_checkpoint(classifier: Classifier, callbacks: Mapping[str, Callback]) -> None:
    """Raise UserError for what a checkpoint would hold, besides tensors, and could not be read from it."""
    states = {"optim": classifier.optimizer.state_dict()["param_groups"]}
    if classifier.scheduler:
        states["scheduler"] = classifier.scheduler.state_dict()
    for key, callback in callbacks.items():
        if not isinstance(callback, EpochCheckpoint):
            with user_errors(key):
                states[key] = callback.state_dict()
    for key, state in states.items():
        check_state(key, state)


def why_not_exported(network: nn.Module, data: ImageData) -> str:
    """Say why torch.export cannot export the model that is logged of `network`, for any number of images; "" if it can.

    A network of torch's and digitlab's layers can; others are tried, which takes a second.
    """
    if _is_of_known_layers(network):
        return ""
    with torch.random.fork_rng(), console.without_logs():
        predictor = Predictor(data.preprocess, copy.deepcopy(network)).cpu().eval()
        images = data.splits["train"][0][:FEW].cpu()
        try:
            exported = export_program(predictor, images).module()
        except Exception as error:  # of whatever kind the network's own code raises
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return f"torch.export cannot export it ({shorten(reason)})"
        try:
            check_numbers(exported, images)
        except ValueError as error:
            return str(error)
    return ""


def _is_of_known_layers(network: nn.Module) -> bool:
    """Say whether torch or digitlab wrote every forward pass in `network`."""
    forwards = (type(each).forward.__module__ for each in network.modules())
    return all(module.startswith(("torch.nn.modules.", "digitlab.models.")) for module in forwards)


def _some(data: ImageData, size: int, trainer: pl.Trainer) -> tuple[Tensor, Tensor]:
    """Return `size` training images and labels, the first ones again where there are fewer, on the training device."""
    images, labels = (tensor[torch.arange(size) % len(tensor)] for tensor in data.splits["train"])
    device = trainer.strategy.root_device
    return data.preprocess(images).to(device), labels.to(device)
