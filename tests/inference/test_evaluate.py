"""`digitlab evaluate`: its numbers are scikit-learn's, and what it cannot measure is one line."""

import json

import mlflow
import numpy as np
import pytest
import torch
import tracked
from PIL import Image
from sklearn.metrics import log_loss, precision_recall_fscore_support
from torchvision import datasets
from tracked import command

from digitlab.data.corrupt import KINDS, STRENGTHS, corrupt
from digitlab.data.sources import mnist5k
from digitlab.inference.evaluate import score

IMAGES, LABELS = mnist5k().train


def result(harness, data: str) -> dict:
    """Return the one result of a run whose folder has that name, or begins with it."""
    (run,) = harness.runs()
    folders = [each.path for each in harness.client.list_artifacts(run.info.run_id, "eval")]
    (folder,) = [each for each in folders if each.startswith(f"eval/{data}")]
    return json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{folder}/results.json"))


def test_scores_are_those_of_another_library():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    probabilities = random.dirichlet(np.ones(5), 300).astype(np.float32)  # of the fifth class there is no image
    scores, exact = score(probabilities, labels), probabilities.astype(float)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, probabilities.argmax(1), labels=range(4), zero_division=0
    )
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("images", images)):
        assert scores.per_class[name][:4] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(scores.per_class["recall"][4])
    assert scores.loss == pytest.approx(
        log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(5)), rel=1e-4
    )
    assert scores.accuracy == np.mean(probabilities.argmax(1) == labels)


def test_its_own_test_images_give_the_runs_own_result(capsys):
    harness = tracked.digits()
    capsys.readouterr()
    assert command(harness, "evaluate", "latest", "--corrupt") is None
    said = capsys.readouterr().out
    (run,) = harness.runs()
    found = result(harness, "mnist5k")
    assert found["accuracy"] == run.data.metrics["test/acc"]
    assert found["loss"] == pytest.approx(run.data.metrics["test/loss"], rel=1e-4)
    assert found["of"] == "the images that the run was tested on"
    assert f"{found['accuracy']:.4f}  (95 % interval" in said
    assert found["corrupted"].keys() == KINDS.keys()
    assert found["corrupted"]["noise"][4]["accuracy"] < found["accuracy"]
    files = {each.path for each in harness.client.list_artifacts(run.info.run_id, "eval/mnist5k")}
    names = ("confusion", "mistakes", "reliability", "corrupted")
    assert files == {"eval/mnist5k/results.json", *(f"eval/mnist5k/{name}.png" for name in names)}


def test_a_folder_of_other_images_is_matched_by_the_names_of_classes(capsys, tmp_path):
    harness = tracked.digits()
    for digit in (3, 7, 9):
        (tmp_path / "others" / str(digit)).mkdir(parents=True)
        for row in range(4):
            image = Image.fromarray(IMAGES[500 * digit + row].numpy()).resize((56, 56)).convert("RGB")
            image.save(tmp_path / "others" / str(digit) / f"{row}.png")
    asked = ["data=image_folder", f"data.root={tmp_path / 'others'}", "--all"]
    assert command(harness, "evaluate", "latest", *asked) is None
    found = result(harness, "others")
    assert found["images"] == 12
    assert {name for name, values in found["per_class"].items() if values["images"]} == {"3", "7", "9"}
    (logged,) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    mlflow.set_tracking_uri(harness.uri)
    model, digits = mlflow.pyfunc.load_model(logged.model_uri), (3, 7, 9)
    as_they_were = torch.cat([IMAGES[500 * digit : 500 * digit + 4] for digit in digits]).numpy()
    right = (model.predict(as_they_were).argmax(1) == np.repeat(digits, 4)).mean()
    assert found["accuracy"] == pytest.approx(right, abs=2.1 / 12)  # which resizing there and back may change


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--all"], "--all: mlp-"),
        (["optim=adam"], "optim=adam: must be data=NAME or data.KEY=VALUE"),
        (["data.size=32"], "data.size=32: is the model's: 28 x 28, gray"),
        (["data=mnits"], "data=mnits: not found; allowed: "),
        (["data.splt=last"], "data.splt=last: chooses no images; allowed: data, data.source, data.root, "),
        (["data.batch_size=7"], "data.batch_size=7: chooses no images"),
        (["data.augment.shift=2"], "data.augment.shift=2: chooses no images"),
        (["data.split_seed=1"], "data: mlp-"),
        (["data.split_seed=1", "--all"], "--all: mlp-"),
        (["data.test_fraction=0.6"], "data: mlp-"),
        (["data=image_folder", "data.root=/nowhere"], "data: "),
    ],
)
def test_a_mistake_is_one_line(arguments, words):
    end = command(tracked.digits(), "evaluate", "latest", *arguments)
    assert isinstance(end, str)
    assert end.startswith(f"error: {words}")
    assert "\n" not in end


def test_data_of_other_classes_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for row in range(10):
            Image.fromarray(IMAGES[row].numpy()).save(tmp_path / name / f"{row}.png")
    end = command(tracked.digits(), "evaluate", "latest", "data=image_folder", f"data.root={tmp_path}")
    assert str(end).startswith("error: data: has the class cat, unknown to mlp-")


def test_other_images_of_the_same_name_have_a_result_of_their_own(harness, tmp_path):
    parts = {"train": (0, 400), "test": (400, 500), "more": (450, 500)}
    for part, (first, last) in parts.items():
        rows = [500 * digit + row for digit in (3, 7) for row in range(first, last, 10)]
        np.savez(tmp_path / f"{part}.npz", x=IMAGES[rows].numpy(), y=LABELS[rows].numpy())
    train, test, more = (dict(np.load(tmp_path / f"{part}.npz")) for part in parts)
    for folder, held in (("one", test), ("two", more)):
        (tmp_path / folder).mkdir()
        both = {"x_train": train["x"], "y_train": train["y"], "x_test": held["x"], "y_test": held["y"]}
        np.savez(tmp_path / folder / "digits.npz", **both)
    harness.train(*tracked.TINY[:3], "data=arrays", f"data.file={tmp_path / 'one' / 'digits.npz'}")
    assert command(harness, "evaluate", "latest") is None
    assert command(harness, "evaluate", "latest", f"data.file={tmp_path / 'two' / 'digits.npz'}") is None
    (run,) = harness.runs()
    folders = sorted(each.path for each in harness.client.list_artifacts(run.info.run_id, "eval"))
    assert folders[0] == "eval/digits"
    assert [len(each) for each in folders] == [len("eval/digits"), len("eval/digits-") + 12]
    assert [result(harness, each.removeprefix("eval/"))["images"] for each in folders[1:]] == [10]
    np.savez(tmp_path / "digits.npz", x=train["x"], y=train["y"])  # another form of what it was trained on
    end = command(harness, "evaluate", "latest", "data=arrays", f"data.file={tmp_path / 'digits.npz'}", "--all")
    assert str(end).startswith("error: --all: mlp-")
    assert "was trained or chosen on 80 of these 80 images" in str(end)


@pytest.mark.filterwarnings("ignore:.*Using the embedded")
def test_a_run_that_fell_back_is_evaluated_on_its_own_test_images(harness, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    harness.train(*tracked.TINY[:3], "data=mnist", f"data.root={tmp_path}", "data.skip_first=3000")
    assert command(harness, "evaluate", "latest") is None
    found = result(harness, "mnist5k")
    assert found["of"] == "the images that the run was tested on"
    assert found["accuracy"] == harness.runs()[0].data.metrics["test/acc"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_stronger_corruption_changes_more_and_the_same_seed_the_same(kind, channels):
    images = IMAGES[::500]
    images = images[..., None].expand(-1, -1, -1, 3).contiguous() if channels else images
    changed = [corrupt(images, kind, strength) for strength in STRENGTHS]
    assert all(each.dtype == torch.uint8 and each.shape == images.shape for each in changed)
    assert torch.equal(changed[2], corrupt(images, kind, 3))
    distances = [float((each.double() - images.double()).abs().mean()) for each in changed]
    assert 0 < distances[0] < distances[2] < distances[4]
