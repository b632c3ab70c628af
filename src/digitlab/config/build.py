"""Build what a configuration names, if it may be built."""

import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from digitlab import SOURCES
from digitlab.config.allowed import KEY, PACKAGES, allowed
from digitlab.config.errors import UserError, one_line, user_errors
from digitlab.config.leaves import as_text
from digitlab.platform.text import did_you_mean

UNREAD = ("limit_predict_batches", "default_root_dir", "enable_autolog_hparams", "model_registry")
EPOCHS = "a run is whole epochs, each of them trained, validated and saved once"
# What Trainer takes and a run refuses, with the reason; tests/training/test_supported.py knows every argument there is.
REFUSED = {
    "trainer": dict.fromkeys(("min_epochs", "min_steps", "limit_train_batches", "limit_val_batches",
                              "limit_test_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
                              "reload_dataloaders_every_n_epochs"), f"{EPOCHS}; trainer.max_epochs says how many")
    | dict.fromkeys(("fast_dev_run", "barebones"), f"{EPOCHS}; trainer=smoke is a quick look")
    | dict.fromkeys(("strategy", "sync_batchnorm"), "trainer.devices says how many processes share a run, and how "
                    "they do is fixed")
    | dict.fromkeys(UNREAD, "nothing here reads it")
    | {
        "max_time": "how far a run gets would depend on the machine; trainer.max_epochs limits it",
        "gradient_clip_algorithm": "trainer.gradient_clip_val limits the norm",
        "benchmark": "cuDNN would choose other algorithms after an interruption, and so give other numbers",
        "enable_checkpointing": "every epoch is saved, so that a run that broke off goes on",
        "logger": "runs are recorded in MLflow; tracking.uri says where",
        "log_every_n_steps": "every step is logged",
        "plugins": "precision and checkpoints have theirs",
    },
}  # fmt: skip
TAKEN_OVER = (
    "accumulate_grad_batches",
    "callbacks",
    "devices",
    "gradient_clip_val",
    "max_epochs",
    "max_steps",
    "num_nodes",
    "precision",
)  # a run reads them itself
NETWORKS = ("torchvision.models.", "timm.models.")  # whose functions make networks for colour images
OTHER_TASKS = tuple(f"torchvision.models.{task}." for task in ("detection", "optical_flow", "quantization",
                                                               "segmentation", "video"))  # fmt: skip
SIZES = ("image_size", "img_size", "input_size")  # what networks of theirs that are made for one size call it
IMAGE_SOURCES = ("data.source", "data.fallback")


def build(cfg: DictConfig, key: str, *args: Any, **kwargs: Any) -> Any:
    """Instantiate the node `key` with plain values; a UserError that names `key` says what its constructor refused."""
    node = OmegaConf.select(cfg, key)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}={as_text(node)}: must be a choice of conf/{key} or have a _target_")
    for inner, name, target in special_keys(OmegaConf.to_container(node, resolve=True), key):
        if name == "_target_":
            _check_object(inner, target, is_outermost=inner == key)
            if inner in IMAGE_SOURCES:
                _check_source(OmegaConf.select(cfg, inner), inner)
    _check_keywords(node, key, len(args), kwargs)
    kept = [str(name) for name in node if name not in kwargs]  # Hydra would merge, not replace
    if key == "model" or _kind(key) is _kinds()["metrics"]:  # which need not ask for what it is told
        kwargs = {name: value for name, value in kwargs.items() if takes(node._target_, name)}
    node = OmegaConf.masked_copy(node, kept)
    weights = node.get("weights") if key == "model" else None  # which fix the number of classes
    with user_errors(f"model.weights={as_text(weights)}" if weights else key):
        if node.get("_partial_"):
            built = _call(instantiate(node, _convert_="all"), args, **kwargs)
        else:
            built = instantiate(node, *args, _convert_="all", **kwargs)
    _check_result(key, node._target_, built)
    return built


def _call(built: Any, args: tuple, **kwargs: Any) -> Any:
    """Call `built` where it is partial, and whatever is partial among its arguments, with the same `args`."""
    if isinstance(built, list):
        return [_call(each, args) for each in built]
    if not isinstance(built, partial):
        return built
    return built.func(*args, **{name: _call(value, args) for name, value in built.keywords.items()}, **kwargs)


def special_keys(node: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key that means something to Hydra, wherever it stands: the node it stands in, the key, its value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        if isinstance(name, str) and re.fullmatch(r"_\w+_", name):
            yield key, name, value
        else:
            yield from special_keys(value, f"{key}.{name}" if key else str(name))


def check_special(key: str, name: str, value: Any) -> None:
    """Raise UserError for a `_target_` that leads elsewhere than it may, and for Hydra's other special keys."""
    if name not in ("_target_", "_partial_"):
        raise UserError(f"{key}.{name}: unknown key; allowed of Hydra's: _target_, _partial_")
    if name == "_target_" and (wrong := _wrong_begin(value)):
        raise UserError(f"{key}.{name}={as_text(value)}: {wrong}")


def _wrong_begin(target: Any) -> str:
    """Say what is wrong with the package that a dotted name begins with; "" where it is one to build from."""
    if _is_ours(target):
        return ""
    package, _, rest = str(target).partition(".")
    own = {file.stem for folder in SOURCES for file in folder.glob("*.py")}
    close = did_you_mean("", package, [*PACKAGES, *own], f".{rest}") if rest else ""
    begin = " ".join(f"{package}.," for package in PACKAGES)
    return f"must begin with {begin} a package that {KEY}= names, or a module that lies in src/ or here{close}"


def _is_ours(target: Any) -> bool:
    """Say whether a dotted name begins with a package that may be built from, or with a module of the user's own."""
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        return False
    return target.partition(".")[0] in PACKAGES or _is_own(target)


def _is_own(target: str) -> bool:
    """Say whether a dotted name begins with a module of the user's own."""
    package = target.partition(".")[0]
    files = (folder / file for folder in SOURCES for file in (f"{package}.py", f"{package}/__init__.py"))
    return package not in PACKAGES and (package in allowed() or any(file.is_file() for file in files))


def _check_object(key: str, target: str, is_outermost: bool) -> None:
    """Raise UserError unless `target`, by whatever name, is a thing that runs are made of: the name alone can lie.

    digitlab.data.sources.os.system begins well too, and torch.load and torch.hub.load run what they are given.
    """
    wanted = _kind(key) if is_outermost else None
    found = _find(key, target, wanted)
    if not _is_allowed(key, target, found, wanted):
        if target.startswith(NETWORKS) and inspect.isfunction(found):
            allowed = "a function that makes one kind of image classifier, such as torchvision.models.resnet18"
        elif key in IMAGE_SOURCES:
            allowed = "a function that reads images, of digitlab.data or of a module that lies in src/ or here"
        else:
            allowed = f"a class of {', '.join(kind.__name__ for kind in ([wanted] if wanted else _kinds().values()))}"
        raise UserError(f"{key}._target_={target}: must be {allowed}")


def _is_allowed(key: str, target: str, found: Any, wanted: type | None) -> bool:
    """Say whether `found`, which `target` names, may be built: a class of a kind, or a function that makes such things.

    A user's own module is trusted with all of its functions, and with the classes that it imports from elsewhere.
    """
    if inspect.isclass(found):
        if found.__module__.startswith("torchmetrics."):  # whose other classes download models
            return wanted is _kinds()["metrics"] and found.__module__.startswith("torchmetrics.classification.")
        is_ours = _is_ours(f"{found.__module__}.x") or _is_own(target)
        return is_ours and key not in IMAGE_SOURCES and issubclass(found, wanted or tuple(_kinds().values()))
    return inspect.isfunction(found) and (_is_own(f"{found.__module__}.x") or _is_factory(key, found))


def _is_factory(key: str, function: Any) -> bool:
    """Say whether a function of digitlab, torchvision or timm makes a `key`, by what it says that it returns."""
    returned, module = inspect.signature(function).return_annotation, function.__module__
    if key in IMAGE_SOURCES:
        return module.startswith("digitlab.data.") and getattr(returned, "__name__", "") == "Images"
    is_network = inspect.isclass(returned) and issubclass(returned, _kinds()["model"])
    is_general = returned is _kinds()["model"]  # get_model, whose keys and classes depend on a name
    is_for_images = module.startswith(NETWORKS) and not f"{module}.".startswith(OTHER_TASKS)
    return key == "model" and is_for_images and is_network and not is_general


def _kinds() -> dict[str, type]:
    import pytorch_lightning as pl  # where this is called they are loaded already, and the door must not wait for them
    from torch import nn, optim
    from torchmetrics import Metric

    return {
        "model": nn.Module,
        "loss": nn.Module,
        "metrics": Metric,
        "optim": optim.Optimizer,
        "scheduler": optim.lr_scheduler.LRScheduler,
        "trainer": pl.Trainer,
        "trainer.callbacks": pl.Callback,
        "data": pl.LightningDataModule,
    }


def _kind(key: str) -> type | None:
    """Return the class of what is built for `key`."""
    return _kinds().get(key) or _kinds().get(key.rpartition(".")[0])


def _check_result(key: str, target: str, built: Any) -> None:
    """Raise UserError where what was built for `key` is not of its kind: a function may return anything."""
    wanted = _kind(key)
    if wanted and not isinstance(built, wanted):
        raise UserError(f"{key}._target_={target}: gave {type(built).__name__}; must give a {wanted.__name__}")


def _find(key: str, target: str, wanted: type | None) -> Any:
    """Import what `target` names; where there is no such thing, UserError with the names that are close to it."""
    try:
        return get_object(target)
    except Exception as error:
        raise UserError(_missing(key, target, wanted) or f"{key}: {one_line(error)}") from error


def _missing(key: str, target: str, wanted: type | None) -> str:
    """Say which part of `target` there is not; "" where it is there, and cannot be imported."""
    parts = target.split(".")
    if find_spec(parts[0]) is None:
        return f"{key}._target_={target}: the package {parts[0]} is not installed"
    for end in range(len(parts) - 1, 0, -1):
        above, name, rest = ".".join(parts[:end]), parts[end], parts[end + 1 :]
        holder = None
        with suppress(Exception):
            holder = get_object(above)
        if holder is None:
            continue
        modules = [each.name for each in iter_modules(getattr(holder, "__path__", ()))]
        if name in modules:
            break
        public = [each for each in dir(holder) if not each.startswith("_")]
        if rest:
            known = [*public, *modules]
        else:
            known = [each for each in public if _is_allowed(key, target, getattr(holder, each, None), wanted)]
        close = did_you_mean(f"{above}.", name, known, "".join(f".{each}" for each in rest))
        return f"{key}._target_={target}: {above} has no {name}{close}"
    return ""


def _keywords_of(target: str) -> list[inspect.Parameter]:
    """Return the parameters of a class or function; of a function of NETWORKS also those of what it makes."""
    found = get_object(target)
    signature = inspect.signature(found)
    if inspect.isclass(found) or not _is_factory("model", found):
        return list(signature.parameters.values())
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    inner = inspect.signature(signature.return_annotation).parameters.values()
    return own + [each for each in inner if each.default is not inspect.Parameter.empty or each.name in SIZES]


def _check_source(node: DictConfig, key: str) -> None:
    """Raise UserError for a key that the function `node` does not take, or where it would be called at once."""
    if node.get("_partial_") is not True:
        raise UserError(f"{key}._partial_: must be true: a source is called later, with root")
    _check_keywords(node, key, 0, ("root", "size", "color"))


def takes(target: str, name: str) -> bool:
    """Say whether a target takes the keyword `name`."""
    parameters = _keywords_of(target)
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return takes_any or name in (each.name for each in parameters)


def _check_keywords(node: DictConfig, key: str, positional: int, given: Iterable[str]) -> None:
    """Raise UserError where `node` has a key that its target does not take, or that we give it ourselves."""
    refused = REFUSED.get(key, {})
    for name in refused.keys() & node.keys():
        raise UserError(f"{key}.{name}={as_text(node[name])}: cannot be set: {refused[name]}")
    with user_errors(key):
        parameters = _keywords_of(node._target_)[positional:]
    ours = [name for name in given if name not in TAKEN_OVER]
    allowed = [parameter.name for parameter in parameters if parameter.name not in (*refused, *ours)]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    unknown = [name for name in map(str, node) if name not in allowed and not name.startswith("_")]
    if unknown and (not takes_any or unknown[0] in ours):
        raise UserError(f"{key}: {unknown[0]}: unknown key; allowed: {', '.join(allowed)}")
    if key == "optim":
        for parameter in parameters:
            _check_tuple(node, key, parameter)


def _check_tuple(node: DictConfig, key: str, parameter: inspect.Parameter) -> None:
    """Raise UserError where a parameter's default is some numbers, such as Adam's betas, and what is given is not."""
    default, value = parameter.default, node.get(parameter.name)
    if isinstance(default, tuple) and value is not None:
        are_numbers = isinstance(value, ListConfig) and all(isinstance(each, int | float) for each in value)
        if not are_numbers or len(value) != len(default):
            raise UserError(
                f"{key}.{parameter.name}={as_text(value)}: must be {len(default)} numbers, such as {list(default)}"
            )
