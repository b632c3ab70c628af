"""`digitlab export`: every format gives MLflow's own probabilities when another program reads it."""

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import tracked
from safetensors import safe_open
from tracked import command

from digitlab.data.sources import mnist5k

IMAGES = mnist5k().train[0][::100]


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    harness = tracked.digits()
    mlflow.set_tracking_uri(harness.uri)
    (logged,) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    return mlflow.pyfunc.load_model(logged.model_uri).predict(IMAGES.numpy())


def exported(monkeypatch, capsys, folder, *arguments: str):
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert command(tracked.digits(), "export", "latest", *arguments) is None
    said = capsys.readouterr().out
    assert "largest difference on 256 images" in said
    (file,) = folder.iterdir()
    return file, said


@pytest.mark.slow
def test_onnx_takes_bytes_in_any_number_and_int8_is_smaller(expected, monkeypatch, capsys, tmp_path):
    sizes = []
    for number, arguments in enumerate(([], ["--int8"])):
        (tmp_path / str(number)).mkdir()
        file, said = exported(monkeypatch, capsys, tmp_path / str(number), "--format", "onnx", *arguments)
        onnx.checker.check_model(str(file))
        session = onnxruntime.InferenceSession(file)
        for count in (1, 2, len(IMAGES)):
            (told,) = session.run(None, {"images": IMAGES[:count].numpy()})
            assert np.abs(told - expected[:count]).max() < (0.1 if arguments else 1e-5)
        assert ("accuracy on 2,500 test images of mnist5k: int8 0." in said) is bool(arguments)
        sizes.append(file.stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("form", "load"),
    [("pt2", lambda file: torch.export.load(file).module()), ("torchscript", lambda file: torch.jit.load(str(file)))],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")
def test_torchs_formats_are_read_by_torch_alone(expected, monkeypatch, capsys, tmp_path, form, load):
    file, _ = exported(monkeypatch, capsys, tmp_path, "--format", form)
    module = load(file)
    for count in (1, len(IMAGES)):
        assert np.abs(module(IMAGES[:count]).detach().numpy() - expected[:count]).max() < 1e-5


def test_safetensors_holds_the_weights_and_the_classes(monkeypatch, capsys, tmp_path):
    file, _ = exported(monkeypatch, capsys, tmp_path, "--format", "safetensors")
    with safe_open(file, "pt") as weights:
        shapes = sorted(tuple(weights.get_tensor(each).shape) for each in weights.offset_keys())
        assert shapes == [(10,), (10, 16), (16,), (16, 784)]
        assert weights.metadata()["classes"].split("\n") == list("0123456789")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "pt2", "--int8"], "--int8: is for --format onnx"),
        (
            ["--format", "pt2", "--output", "/nowhere/model.pt2"],
            "--output=/nowhere/model.pt2: must be a file in a folder",
        ),
        (["--format", "pt2", "--output", "/proc/model.pt2"], "--output=/proc/model.pt2: No such file or directory"),
        (["--format", "keras"], "Invalid value for '--format'"),
        ([], "Missing option '--format'"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(monkeypatch, tmp_path, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    end = command(tracked.digits(), "export", "latest", *arguments)
    said = end if isinstance(end, str) else capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") <= 1
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("digitlab.config.errors.find_spec", lambda name: None)
    end = command(tracked.digits(), "export", "latest", "--format", "safetensors")
    needs = "needs safetensors, of the extra export: pip install '.[export]' in digitlab's folder"
    assert end == f"error: --format=safetensors: {needs}"


def test_a_format_that_gives_other_probabilities_is_not_written(monkeypatch, tmp_path):
    from digitlab.inference import export

    monkeypatch.chdir(tmp_path)
    wrong = export.FORMATS["pt2"]._replace(read=lambda model, file: lambda images: model.predict(255 - images))
    monkeypatch.setitem(export.FORMATS, "pt2", wrong)
    end = command(tracked.digits(), "export", "latest", "--format", "pt2")
    assert str(end).startswith("error: --format=pt2: gives other probabilities, by up to ")
    assert not list(tmp_path.iterdir())
