"""What is decided for all training images, the scale of deep ones and the ground of transparent ones, is kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tracked import command

from digitlab.data.folders import image_folder

TINY = ("model=mlp", "trainer=smoke", "model.hidden=[{units: 4}]", "data.batch_size=8", "data.test_fraction=0.2")


def save_values(folder: Path, highest: float, kind: type, count: int = 8) -> None:
    """Write images of one class with values up to `highest`."""
    folder.mkdir(parents=True)
    for number in range(count):
        values = np.random.default_rng(number).uniform(highest / 2, highest, (20, 20))
        values[0, 0] = highest
        Image.fromarray(values.astype(kind)).save(folder / f"{number}.tif")


def save_icons(folder: Path, colour: tuple[int, int, int], count: int = 8) -> None:
    """Write discs of one colour on a transparent ground."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
        ImageDraw.Draw(image).ellipse((3, 3, 10 + number, 16), fill=(*colour, 255))
        image.save(folder / f"{number}.png")


def of_16_bits(root: Path) -> None:
    save_values(root / "dim", 900, np.uint16)
    save_values(root / "light", 4000, np.uint16)


def of_fractions(root: Path) -> None:
    save_values(root / "dim", 0.75, np.float32)
    save_values(root / "light", 60.5, np.float32)


def of_several_kinds(root: Path) -> None:
    save_values(root / "fractions", 0.75, np.float32)
    save_values(root / "whole", 60000, np.uint16)


def on_black(root: Path) -> None:
    save_icons(root / "white", (255, 255, 255), count=12)
    save_icons(root / "blue", (0, 0, 255))
    save_icons(root / "black", (0, 0, 0))  # which show on white alone


@pytest.mark.parametrize("save", [of_16_bits, of_fractions, of_several_kinds, on_black], ids=lambda each: each.__name__)
def test_a_picture_is_seen_as_it_was_in_training(harness, tmp_path, save):
    save(tmp_path / "set")
    harness.train(*TINY, "data=image_folder", f"data.root={tmp_path / 'set'}")
    arguments = ["--run", "latest", "--save-inputs", str(tmp_path / "seen")]
    assert command(harness, "predict", str(tmp_path / "set"), *arguments) is None
    seen = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "seen").iterdir())])
    trained = image_folder(tmp_path / "set").train[0].numpy()
    np.testing.assert_array_equal(seen, trained)
    assert np.ptp(trained.reshape(len(trained), -1), axis=1).min() > 0  # every shape is to be seen


def test_other_images_are_evaluated_on_the_scale_of_those_of_the_run(harness, tmp_path, capsys):
    of_16_bits(tmp_path / "set")
    for name in ("dim", "light"):
        save_values(tmp_path / "others" / name, 850, np.uint16)
    harness.train(*TINY, "data=image_folder", f"data.root={tmp_path / 'set'}")
    capsys.readouterr()
    asked = ["data=image_folder", f"data.root={tmp_path / 'others'}", "--all"]
    assert command(harness, "evaluate", "latest", *asked) is None
    assert "values up to 4000 taken as 12 bits" in capsys.readouterr().out
    values = np.random.default_rng(0).integers(0, 850, (20, 20, 20)).astype(np.uint16)
    np.savez(tmp_path / "others.npz", x=values, y=["dim", "light"] * 10)
    assert (
        command(harness, "evaluate", "latest", "data=arrays", f"data.file={tmp_path / 'others.npz'}", "--all") is None
    )
    assert "values up to 4000 taken as 12 bits" in capsys.readouterr().out
