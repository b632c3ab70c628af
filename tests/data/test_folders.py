"""Image folders as people have them: what is read, what is left out, what is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torchvision.datasets import ImageFolder

from digitlab.data.datamodule import ImageData
from digitlab.data.folders import image_folder
from digitlab.data.pictures import extensions
from digitlab.data.sources import mnist5k


def draw(file: Path, shade, size=(28, 28), mode: str = "L", **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(file, **options)


LOSSLESS = (".gif", ".png", ".webp", ".bmp")


def glyph(is_ring: bool, right: int = 0, size: int = 40) -> Image.Image:
    """Draw a ring or a stroke, white on black."""
    image = Image.new("L", (size, size))
    if is_ring:
        ImageDraw.Draw(image).ellipse((8 + right, 8, 30 + right, 30), outline=255, width=4)
    else:
        ImageDraw.Draw(image).line((8 + right, 5, 30 + right, 35), fill=255, width=5)
    return image


def save_glyphs(root: Path, save, count: int = 4) -> None:
    """Let `save` write `count` rings into root/a and strokes into root/b."""
    for name, is_ring in (("a", True), ("b", False)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            save(glyph(is_ring, number), root / name / f"image{number}", number)


def as_png(image: Image.Image, file: Path, _: int = 0) -> None:
    image.save(file.with_suffix(".png"))


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


def integers(bits: int, mode=np.int32):
    def save(image, file, _):
        scaled = np.asarray(image).astype(np.float64) * (2**bits - 1) / 255
        Image.fromarray(scaled.round().astype(mode)).save(file.with_suffix(".tif"))

    return save


def floats(highest: float, lowest: float = 0.0):
    def save(image, file, _):
        values = np.asarray(image, np.float32) / 255 * (highest - lowest) + lowest
        Image.fromarray(values).save(file.with_suffix(".tif"))

    return save


def transparent(image, shade: int):
    """Return an image of one shade, of which only the shape in `image` is to be seen."""
    return Image.merge("LA", (Image.new("L", image.size, shade), image))


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (integers(8), "taken as 8 bits"),
        (integers(12), "taken as 12 bits"),
        (integers(16), "taken as 16 bits"),
        (integers(20), "scaled to 0..255"),
        (integers(8, np.uint16), "taken as 8 bits"),
        (integers(16, np.uint16), "taken as 16 bits"),
        (floats(1.0), "values in 0..1"),
        (floats(255.0), "taken as 8 bits"),
        (floats(1.0, -1.0), "values from -1 to 1"),
        (lambda image, file, _: transparent(image, 255).save(file.with_suffix(".png")), "black"),
        (lambda image, file, number: image.save(file.with_suffix(LOSSLESS[number]), lossless=True), "gray"),
        (lambda image, file, _: image.convert("CMYK").save(file.with_suffix(".tiff")), "gray"),
        (lambda image, file, _: image.convert("1").save(file.with_suffix(".png")), "gray"),
        (lambda image, file, _: image.convert("P").save(f"{file}.PNG"), "gray"),
    ],
)
def test_pixels_are_read_by_what_they_hold(tmp_path, capsys, plain, save, words):
    save_glyphs(tmp_path / "folder", save)
    pixels = image_folder(tmp_path / "folder").train[0]
    assert words in capsys.readouterr().out
    assert (pixels.int() - plain.train[0].int()).abs().max() <= 2


def test_the_shape_may_be_in_black_on_a_transparent_ground(tmp_path, capsys):
    def save(image, file, _):
        transparent(image, 0).save(file.with_suffix(".png"))

    save_glyphs(tmp_path, save)
    pixels = image_folder(tmp_path).train[0]
    assert "8 with transparent pixels, now white" in capsys.readouterr().out
    assert (pixels[:, 0, 0] == 255).all()
    assert (pixels.flatten(1).amin(1) < 10).all()


def test_images_are_turned_as_a_viewer_shows_them(tmp_path, capsys, plain):
    def save(image, file, number):
        tag = Image.Exif()
        turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        tag[0x0112], turn = list(turns.items())[number]
        (image.transpose(turn) if turn is not None else image).save(file.with_suffix(".png"), exif=tag)

    save_glyphs(tmp_path, save)
    assert image_folder(tmp_path).train[0].equal(plain.train[0])
    assert "6 turned by their orientation tag" in capsys.readouterr().out


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
    assert len(image_folder(tmp_path).train[1]) >= 8


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
    with pytest.raises(ValueError, match="test has the class z, which train does not have"):
        image_folder(tmp_path)


def test_classes_may_be_called_train_and_test(tmp_path):
    for name in ("train", "test"):
        draw(tmp_path / name / "a.png", 0)
    assert image_folder(tmp_path).classes == ("test", "train")


@pytest.mark.parametrize(
    ("sizes", "settings", "expected"),
    [
        ([(28, 28)], {}, 28),
        ([(40, 50), (40, 60)], {}, 40),
        ([(4000, 30), (64, 64)], {}, 47),
        ([(900, 1200)], {}, 64),
        ([(900, 1200)], {"size": 100}, 100),
    ],
)
def test_the_size_follows_the_folder_up_to_a_bound(tmp_path, capsys, sizes, settings, expected):
    for number, size in enumerate(sizes):
        for name in "ab":
            draw(tmp_path / name / f"{number}.png", 0, size)
    assert image_folder(tmp_path, **settings).train[0].shape[1:] == (expected, expected)
    assert f"{expected} x {expected}, gray" in capsys.readouterr().out


def test_colour_is_kept_where_there_is_some_and_gray_turned_into_it_where_told(tmp_path, capsys):
    draw(tmp_path / "a" / "red.png", (200, 40, 40), mode="RGB")
    draw(tmp_path / "b" / "gray.png", 90)
    pixels = image_folder(tmp_path).train[0]
    assert pixels[:, 0, 0].tolist() == [[200, 40, 40], [90, 90, 90]]
    assert "in colour" in capsys.readouterr().out
    gray = image_folder(tmp_path, color=False).train[0]
    expected = [np.asarray(Image.open(tmp_path / name).convert("L"))[0, 0] for name in ("a/red.png", "b/gray.png")]
    assert gray[:, 0, 0].tolist() == expected
    assert "gray, 1 turned gray" in capsys.readouterr().out
    (tmp_path / "a" / "red.png").unlink()
    draw(tmp_path / "a" / "jpeg.jpg", (100, 102, 101), mode="RGB")  # gray, as a camera's JPEG has it
    assert image_folder(tmp_path).train[0].ndim == 3
    assert image_folder(tmp_path, color=True).train[0].shape == (2, 28, 28, 3)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has 0 class folders"):
        image_folder(tmp_path)
    draw(tmp_path / "one" / "a.png", 0)
    with pytest.raises(ValueError, match="has 1 class folders"):
        image_folder(tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match="two has no images in it"):
        image_folder(tmp_path)
    broken = tmp_path / "two" / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"broken\.png is not a readable image"):
        image_folder(tmp_path)
    Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(broken, "TIFF")
    with pytest.raises(OSError, match=r"broken\.png is not a readable image: it has values that are no numbers"):
        image_folder(tmp_path)


def test_a_class_too_small_to_be_divided_is_named_with_what_helps(tmp_path):
    save_glyphs(tmp_path, as_png, 10)
    draw(tmp_path / "c" / "only.png", 0, (40, 40))
    with pytest.raises(ValueError, match=r"class c has 1 image left, too few .* in folders train, val and test"):
        ImageData(image_folder, root=str(tmp_path)).setup()
    draw(tmp_path / "c" / "second.png", 9, (40, 40))
    with pytest.raises(ValueError, match=r"test_fraction=0\.05: .* 21 and 1 images; each needs .* 3 classes"):
        ImageData(image_folder, root=str(tmp_path), test_fraction=0.05).setup()


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


def test_what_pillow_only_recognizes_is_no_image():
    assert {".png", ".jpg", ".gif", ".webp", ".tif", ".avif", ".bmp"} <= set(extensions())
    assert not {".mpg", ".h5", ".pdf", ".txt"} & set(extensions())
