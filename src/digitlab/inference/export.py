"""Write the model of a run in a format of other programs, once it has been checked against the original."""

import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from digitlab.config.errors import UserError, check_extra, user_errors
from digitlab.data.corrupt import KINDS, STRENGTHS, corrupt
from digitlab.inference import labelled
from digitlab.inference.model import TrackedModel, tracked_model
from digitlab.inference.web import write_page
from digitlab.models.predictor import export_program
from digitlab.platform import console
from digitlab.tracking.store import Store

CHECKED = 256  # images
LARGEST = 1e-4  # difference of a probability: float32 in another order of sums gives some 1e-7
INPUT, OUTPUT = "images", "probabilities"
Predict = Callable[[Tensor], np.ndarray]


class Format(NamedTuple):
    """The extension of its files, the packages that it needs, how to write it, and how to read it back to predict."""

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[TrackedModel, Path], None]
    read: Callable[[TrackedModel, Path], Predict]


def export(store: Store, reference: str, form: str, int8: bool = False, output: Path | None = None) -> int:
    """Write the model of a run into a file, or for "web" into a folder; return the exit code.

    `form` is one of FORMATS. `int8` quantizes the weights of an ONNX model, and measures what that costs on the run's
    test images. Nothing is written that gives other probabilities than the original. Raises UserError.
    """
    chosen = FORMATS[form]
    if int8 and form != "onnx":
        raise UserError("--int8: is for --format onnx")
    check_extra(f"--format={form}", chosen.packages, "export")
    model = tracked_model(store, reference)
    target = output or Path(f"{model.file_name}{'-int8' if int8 else ''}{chosen.suffix}")
    is_new = not os.path.lexists(target) if form == "web" else not target.is_dir()
    if not (is_new and target.absolute().parent.is_dir()):
        kind = "a new folder" if form == "web" else "a file"
        raise UserError(f"--output={target}: must be {kind} in a folder that exists")
    try:
        beside = tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".digitlab-")
    except OSError as error:  # which names the temporary folder
        raise UserError(f"--output={target}: {error.strerror}") from error
    with beside as folder:
        file = Path(folder) / f"model{chosen.suffix}"
        with user_errors(f"--format={form}"), warnings.catch_warnings(action="ignore"):  # of exporters, of themselves
            chosen.write(model, file)
            if int8:
                file = _quantize(file)
            predict = chosen.read(model, file)
            images = check_images(model)
            difference = float(np.abs(predict(images) - model.predict(images)).max())
        if not int8 and not difference <= LARGEST:
            raise UserError(
                f"--format={form}: gives other probabilities, by up to {difference:.2g}; nothing is written"
            )
        accuracies = _accuracies(store, model, predict) if int8 else ""
        if file.is_file():  # some writers keep it to the user
            file.chmod(0o666 & ~_umask())
        os.replace(file, target)
    size = sum(each.stat().st_size for each in (target, *target.rglob("*")) if each.is_file())
    console.say(f"{target}: {size:,} bytes, largest difference on {CHECKED} images {difference:.2g}")
    if accuracies:
        console.say(accuracies)
    return 0


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def check_images(model: TrackedModel) -> Tensor:
    """Return CHECKED images: the logged examples, corrupted in every way, then random pixels."""
    examples = torch.from_numpy(model.examples)
    corrupted = [corrupt(examples, kind, strength) for kind in KINDS for strength in STRENGTHS]
    shape = (CHECKED, *examples.shape[1:])
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.cat([examples, *corrupted, noise])[:CHECKED]


def _accuracies(store: Store, model: TrackedModel, predict: Predict) -> str:
    found = labelled.load(store, model, (), whole=False)
    labels = found.labels.numpy()
    before, after = (np.mean(each(found.images).argmax(1) == labels) for each in (model.predict, predict))
    return f"accuracy on {len(labels):,} test images of {found.name}: int8 {after:.4f}, float32 {before:.4f}"


def _program(model: TrackedModel) -> Any:
    return export_program(model.module, torch.from_numpy(model.examples))


def _write_pt2(model: TrackedModel, file: Path) -> None:
    torch.export.save(_program(model), file)


def _read_pt2(model: TrackedModel, file: Path) -> Predict:
    return _module(torch.export.load(file).module())


def _write_torchscript(model: TrackedModel, file: Path) -> None:
    with torch.no_grad():
        traced: Any = torch.jit.trace(model.module, (torch.from_numpy(model.examples),), check_trace=False)
    traced.save(str(file))


def _read_torchscript(model: TrackedModel, file: Path) -> Predict:
    with warnings.catch_warnings(action="ignore"):
        return _module(torch.jit.load(str(file)))


def _write_safetensors(model: TrackedModel, file: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.module.state_dict().items()}
    save_file(weights, file, {"classes": "\n".join(model.classes), "run": model.run_id})


def _read_safetensors(model: TrackedModel, file: Path) -> Predict:
    from safetensors.torch import load_file

    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    module.load_state_dict(load_file(file))
    return _module(module)


def _write_onnx(model: TrackedModel, file: Path) -> None:
    program = torch.onnx.export(_program(model), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT])
    assert program is not None
    program.model.metadata_props.update({"classes": "\n".join(model.classes), "run": model.run_id})
    program.save(str(file))


def _read_onnx(model: TrackedModel, file: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _write_web(model: TrackedModel, folder: Path) -> None:
    folder.mkdir()
    _write_onnx(model, folder / "model.onnx")
    write_page(model, folder)


def _read_web(model: TrackedModel, folder: Path) -> Predict:
    return _read_onnx(model, folder / "model.onnx")


def _quantize(file: Path) -> Path:
    """Write an ONNX model again with weights of 8 bits; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    smaller = file.with_name(f"int8{file.suffix}")
    with console.without_logs():
        quantize_dynamic(file, smaller, weight_type=QuantType.QInt8)
    return smaller


def _module(module: Any) -> Predict:
    def predict(images: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return module(images).numpy()

    return predict


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
    "web": Format("-web", ("onnx", "onnxscript", "onnxruntime"), _write_web, _read_web),
    "torchscript": Format(".pt", (), _write_torchscript, _read_torchscript),
    "pt2": Format(".pt2", (), _write_pt2, _read_pt2),
    "safetensors": Format(".safetensors", ("safetensors",), _write_safetensors, _read_safetensors),
}
