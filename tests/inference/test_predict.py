"""`digitlab predict`: files in, answers out; what cannot be read is said, and the others go on."""

import csv
import json

import numpy as np
import photographs
import pytest
import tracked
from photographs import alike
from PIL import Image
from tracked import command

from digitlab.data.idx import read_idx
from digitlab.data.sources import mnist5k

IMAGES = mnist5k().train[0].numpy()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of ten pictures of digits, black on white, one of them with two."""
    folder = tmp_path_factory.mktemp("pictures")
    for digit in range(10):
        gray = np.kron(255 - IMAGES[500 * digit + 1], np.ones((4, 4), np.uint8))
        Image.fromarray(gray).save(folder / f"{digit}.png")
    (folder / "sub").mkdir()
    two = np.concatenate([IMAGES[3500], np.zeros((28, 10), np.uint8), IMAGES[1]], axis=1)
    Image.fromarray(255 - np.kron(two, np.ones((4, 4), np.uint8))).save(folder / "sub" / "70.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_three_formats_give_the_same_answers(pictures, capsys, tmp_path):
    harness, told = tracked.digits(), {}
    capsys.readouterr()
    for form in ("table", "jsonl", "csv"):
        assert command(harness, "predict", str(pictures), "--run", "latest", "--format", form) is None
        told[form] = capsys.readouterr().out
    rows = [json.loads(line) for line in told["jsonl"].splitlines()]
    assert [row["file"] for row in rows] == [
        *(f"{pictures}/{digit}.png" for digit in range(10)),
        f"{pictures}/sub/70.png",
    ]
    assert rows[-1]["left_out"] == 1
    for row, fields in zip(rows, csv.DictReader(told["csv"].splitlines()), strict=True):
        (found,) = row["found"]
        assert [each["class"] for each in found["top"]] == [fields[f"class{rank}"] for rank in (1, 2, 3)]
        probabilities = [each["probability"] for each in found["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-5
    lines = told["table"].splitlines()[1:]
    assert [line.split()[1] for line in lines] == [row["found"][0]["class"] for row in rows]
    assert "1 more found; --many reads all" in lines[-1]


def test_many_digits_are_told_in_reading_order_and_what_was_seen_is_saved(pictures, capsys, tmp_path):
    harness, saved = tracked.digits(), tmp_path / "new" / "seen"
    capsys.readouterr()
    file = pictures / "sub" / "70.png"
    asked = ["predict", str(file), "--run", "latest", "--many", "--format", "jsonl", "--save-inputs", str(saved)]
    assert command(harness, *asked) is None
    left, right = json.loads(capsys.readouterr().out)["found"]
    assert left["box"][2] < right["box"][0]
    for name, row in {"00001-70-1.png": 3500, "00001-70-2.png": 1}.items():
        seen = np.asarray(Image.open(saved / name))
        assert seen.shape == (28, 28)
        assert alike(seen, IMAGES[row]) > 0.9


def test_boxes_are_in_the_pixels_of_the_picture(capsys, tmp_path):
    page = np.full((900, 1500), 240, np.uint8)
    page[300:580, 800:1080] = 255 - np.kron(IMAGES[3500], np.ones((10, 10), np.uint8))
    rows, columns = np.nonzero(page < 128)
    Image.fromarray(page).save(tmp_path / "large.png")
    capsys.readouterr()
    assert (
        command(tracked.digits(), "predict", str(tmp_path / "large.png"), "--run", "latest", "--format", "jsonl")
        is None
    )
    (found,) = json.loads(capsys.readouterr().out)["found"]
    assert found["box"] == pytest.approx([columns.min(), rows.min(), columns.max(), rows.max()], abs=12)


def test_what_cannot_be_read_is_said_and_the_others_go_on(pictures, capsys, tmp_path):
    broken, blank = tmp_path / "broken.png", tmp_path / "blank.png"
    broken.write_bytes((pictures / "1.png").read_bytes()[:120])
    Image.new("L", (40, 40), 200).save(blank)
    asked = [str(each) for each in (broken, tmp_path / "gone.png", blank, pictures / "2.png")]
    harness = tracked.digits()
    capsys.readouterr()
    assert command(harness, "predict", *asked, "--run", "latest", "--format", "jsonl") == 3
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert ["error" in row for row in rows] == [True, True, True, False]
    assert rows[2]["error"] == "shows nothing that differs from its ground"
    assert "3 of 4 files gave no answer" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "nobody"], "run: nobody: no such run"),
        (["--save-inputs", "{picture}"], "--save-inputs="),
        (["--save-inputs", "{picture}/x"], "--save-inputs="),
        (["--format", "xml"], "Invalid value for '--format'"),
    ],
)
def test_a_mistake_is_one_line(pictures, capsys, arguments, words):
    picture = str(pictures / "1.png")
    arguments = [each.format(picture=picture) for each in arguments]
    end = command(tracked.digits(), "predict", picture, *arguments)
    said = end if isinstance(end, str) else capsys.readouterr().err.removesuffix("\n")
    assert said.startswith(f"error: {words}")
    assert "\n" not in said


def test_a_folder_without_images_is_one_line(tmp_path):
    end = command(tracked.digits(), "predict", str(tmp_path))
    assert str(end).startswith(f"error: {tmp_path}: has no images in it")


@pytest.mark.slow
def test_photographs_of_held_out_digits_are_read(harness, mnist, tmp_path, capsys, monkeypatch):
    """At least 95 % of 90 photographs are right; the plain resize is counted beside it."""
    monkeypatch.setenv("DIGITLAB_DATA", str(mnist))
    harness.train("model=cnn_pool", "data=mnist", "trainer.max_epochs=2")
    raw = mnist / "MNIST" / "raw"
    digits, labels = (read_idx(raw / f"t10k-{name}.gz").numpy() for name in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    taken = photographs.take(tmp_path / "photographs", digits, labels)
    capsys.readouterr()
    assert command(harness, "predict", str(tmp_path / "photographs"), "--format", "jsonl") is None
    told = {row["file"]: row["found"][0]["class"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    right = sum(told[str(file)] == str(label) for file, label in taken)
    resized = tracked.plainly_resized(harness, [file for file, _ in taken])
    plain = sum(guess == label for guess, (_, label) in zip(resized, taken, strict=True))
    with capsys.disabled():
        print(f"\nphotographs: {right} of {len(taken)} right; plainly resized: {plain}")
    assert len(taken) >= 60
    assert right >= 0.95 * len(taken)
    assert plain < right
