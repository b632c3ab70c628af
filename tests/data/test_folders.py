"""Image folders as people have them: what is read, what is left out, what is said."""

import numpy as np
import pytest
from glyphs import as_png, draw, glyph, save_glyphs
from PIL import Image
from torchvision.datasets import ImageFolder

from digitlab.data.datamodule import ImageData
from digitlab.data.folders import image_folder, images_below
from digitlab.data.sources import mnist5k


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    save_glyphs(root, as_png)
    return image_folder(root)


def test_a_folder_of_class_folders(tmp_path):
    draw(tmp_path / "dark" / "a.png", 10)
    draw(tmp_path / "dark" / "b.png", (20, 20, 20), size=(56, 30), mode="RGB")
    draw(tmp_path / "light" / "c.jpg", 200)
    images = image_folder(tmp_path)
    assert images.classes == ("dark", "light")
    assert images.train[0].shape == (3, 28, 28)
    assert images.train[0][:, 14, 14].tolist() == [10, 20, 200]
    assert images.train[1].tolist() == [0, 0, 1]


def test_labels_and_pixels_are_torchvisions(tmp_path):
    save_glyphs(tmp_path, as_png)
    (tmp_path / "a" / "further").mkdir()
    as_png(glyph(True), tmp_path / "a" / "further" / "down")
    expected = [(np.asarray(image.convert("L")).tobytes(), label) for image, label in ImageFolder(str(tmp_path))]
    pixels, labels = image_folder(tmp_path).train
    assert sorted(expected) == sorted(
        (image.numpy().tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)
    )


def test_what_is_left_out_is_counted_and_named(tmp_path, capsys, plain):
    save_glyphs(tmp_path, as_png)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "a" / ".cache").mkdir()
    for place in (".ipynb_checkpoints", "a/.cache"):
        as_png(glyph(True), tmp_path / place / "copy")
    for name in ("labels.csv", "a/notes.txt", "b/more.txt", "b/.DS_Store", "b/README"):
        (tmp_path / name).write_text("no image")
    assert image_folder(tmp_path).train[0].equal(plain.train[0])
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "8 images of 2 classes" in said
    assert said.strip().endswith(
        "left out: 1 .DS_Store, 1 .csv, 2 .txt, 1 in .cache, 1 in .ipynb_checkpoints, 1 without an extension"
    )


def test_links_that_lead_back_end(tmp_path, plain):
    save_glyphs(tmp_path, as_png)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(image_folder(tmp_path).train[1]) == 8
    assert len(images_below(tmp_path)) == 8
    (tmp_path / "c").symlink_to(tmp_path / "a", target_is_directory=True)
    with pytest.raises(ValueError, match="a and c are one folder; must be two, for two classes"):
        image_folder(tmp_path)


def test_folders_named_train_val_and_test_are_the_split(tmp_path):
    for part, count in (("train", 4), ("test", 3), ("valid", 2)):
        save_glyphs(tmp_path / part, as_png, count)
    data = ImageData(image_folder, root=str(tmp_path))
    data.setup()
    assert data.sizes == {"train": 8, "val": 4, "test": 6}
    assert data.classes == ("a", "b")
    with pytest.raises(ValueError, match="split=last: the data has its own validation set"):
        ImageData(image_folder, root=str(tmp_path), split="last").setup()
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "z")
    with pytest.raises(ValueError, match="there is no training image of the class z; each class must have one"):
        ImageData(image_folder, root=str(tmp_path)).setup()


def test_the_line_is_short_however_many_files_are_left_out(tmp_path, capsys):
    for name in "ab":
        for number in range(30):
            draw(tmp_path / name / f"{number}.png", number)
            (tmp_path / name / f"._{number}.png").write_bytes(b"\0\5\x16\7")
            (tmp_path / name / f"scan.{number:03}").write_bytes(b"")
    image_folder(tmp_path)
    assert ", 60 ._*, and 23 more kinds" in capsys.readouterr().out


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has 0 class folders"):
        image_folder(tmp_path)
    draw(tmp_path / "one" / "a.png", 0)
    with pytest.raises(ValueError, match="has 1 class folder; must have 2 or more"):
        image_folder(tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match="two has no images in it"):
        image_folder(tmp_path)
    broken = tmp_path / "two" / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"broken\.png is not a readable image"):
        image_folder(tmp_path)
    Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(broken, "TIFF")
    with pytest.raises(OSError, match=r"broken\.png is not a readable image: has values that are no numbers"):
        image_folder(tmp_path)


def test_a_class_too_small_to_be_divided_is_named_with_what_helps(tmp_path):
    save_glyphs(tmp_path, as_png, 10)
    draw(tmp_path / "c" / "only.png", 0, (40, 40))
    with pytest.raises(ValueError, match=r"class c has 1 image left, too few .* or a test set of your own"):
        ImageData(image_folder, root=str(tmp_path)).setup()
    draw(tmp_path / "c" / "second.png", 9, (40, 40))
    with pytest.raises(ValueError, match=r"test_fraction=0\.05: .* 21 and 1 images; each needs .* 3 classes"):
        ImageData(image_folder, root=str(tmp_path), test_fraction=0.05).setup()


@pytest.mark.filterwarnings("default:.*there is no")
def test_a_class_that_is_never_tested_is_warned_of_by_name(harness, tmp_path, capsys):
    save_glyphs(tmp_path / "photos", as_png, 20)
    for shade in (10, 60, 110):
        draw(tmp_path / "photos" / "c" / f"{shade}.png", shade, (40, 40))
    harness.pictures = False
    told = ("model=mlp", "data=image_folder", f"data.root={tmp_path / 'photos'}", "trainer=cpu", "trainer.max_epochs=1")
    assert harness.main(*told) is None
    said = capsys.readouterr().out
    for part in ("val", "test"):
        line = f"warning: photos: there is no {part} image of class c; more images of it or a higher {part}_fraction"
        assert said.count(line) == 1


def test_classes_whose_signs_no_figure_shows_are_named_once(harness, tmp_path, capsys):
    save_glyphs(tmp_path / "photos", as_png, 20)
    (tmp_path / "photos" / "a").rename(tmp_path / "photos" / "猫の輪")
    told = ("model=mlp", "data=image_folder", f"data.root={tmp_path / 'photos'}", "trainer=cpu", "trainer.max_epochs=1")
    assert harness.main(*told) is None  # matplotlib's own warnings would be errors here
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert said == ["warning: figures show boxes for some signs of 猫の輪: their font lacks them"]


def test_images_that_are_all_the_same_are_warned_of(tmp_path):
    for number in range(8):
        draw(tmp_path / "a" / f"{number}.png", 7)
        draw(tmp_path / "b" / f"{number}.png", number)
    settings = {"root": str(tmp_path), "test_fraction": 0.25, "val_fraction": 0.25}
    with pytest.warns(UserWarning, match="all images of class a are the same"):
        ImageData(image_folder, **settings).setup()
    for number in range(8):
        draw(tmp_path / "b" / f"{number}.png", 9)
    with pytest.warns(UserWarning, match="the images of each class are all the same"):
        ImageData(image_folder, **settings).setup()


@pytest.mark.slow
def test_a_run_on_colour_keeps_it_to_the_model(harness, tmp_path):
    """Only colour tells the classes apart: gray would give a third right."""
    rng = np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}.items():
        for number in range(24):
            noisy = np.clip(np.array(colour) + rng.integers(-35, 36, (16, 16, 3)), 0, 255).astype(np.uint8)
            (tmp_path / "shapes" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(tmp_path / "shapes" / name / f"{number}.png")
    harness.train("model=mlp", "optim=adam", "data=image_folder", f"data.root={tmp_path / 'shapes'}",
                  "data.batch_size=16", "trainer.max_epochs=4")  # fmt: skip
    (run,) = harness.runs()
    assert run.data.metrics["test/acc"] == 1.0
    assert run.data.params["data"] == "shapes"


def test_any_source_takes_a_size_and_colour():
    data = ImageData(mnist5k, size=32, color=True)
    data.setup()
    assert data.input_shape == (3, 32, 32)
