"""NumPy archives: what is read, how it is scaled, what is said."""

import io
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from digitlab.data.arrays import arrays
from digitlab.training.setup import identify

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 8), dtype=np.uint8)
LABELS = np.arange(12) % 3


def read(folder, **content):
    np.savez(folder / "made.npz", **content)
    return arrays(folder / "made.npz")


def test_kerass_archive_of_mnist(tmp_path, capsys):
    found = read(tmp_path, x_train=PIXELS[:8], y_train=LABELS[:8], x_test=PIXELS[8:], y_test=LABELS[8:])
    assert (found.name, found.classes, found.val) == ("made", ("0", "1", "2"), None)
    np.testing.assert_array_equal(found.train[0], PIXELS[:8])
    np.testing.assert_array_equal(found.test[0], PIXELS[8:])
    np.testing.assert_array_equal(found.test[1], LABELS[8:])
    assert (found.train[0].dtype, found.train[1].dtype) == (torch.uint8, torch.int64)
    line = f"data: 8 train, 4 test images of 3 classes in {tmp_path / 'made.npz'}, 8 x 9, gray\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("train_images", "train_labels")])
def test_other_names(tmp_path, names):
    found = read(tmp_path, **dict(zip(names, (PIXELS, LABELS), strict=True)))
    np.testing.assert_array_equal(found.train[0], PIXELS)
    assert found.test is None


@pytest.mark.parametrize(
    "stored",
    [
        PIXELS[..., None],
        PIXELS[:, None],
        PIXELS / 255,
        PIXELS / 255 * 1.000001,
        (PIXELS / 255 * 1.05).astype(np.float32),
        PIXELS / 255 * 2,
        (PIXELS / 255).astype(np.float32),
        (PIXELS / 255).astype(np.float16),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.float64),
        PIXELS.astype(np.uint16) * 257,
        PIXELS.astype(np.float32) / 127.5 - 1,
    ],
    ids=[
        "nhwc",
        "nchw",
        "float64",
        "0..1.000001",
        "0..1.05",
        "0..2",
        "float32",
        "float16",
        "int64",
        "0..255",
        "16 bits",
        "-1..1",
    ],
)
def test_pixels_in_every_shape_and_depth_are_the_same(tmp_path, stored):
    assert {PIXELS.min(), PIXELS.max()} == {0, 255}
    np.testing.assert_array_equal(read(tmp_path, x=stored, y=LABELS).train[0], PIXELS)


def test_the_digits_of_scikit_learn_are_as_bright_as_they_are_shown(tmp_path):
    digits = load_digits()  # whole numbers 0..16, as float64
    found = read(tmp_path, x=digits.images, y=digits.target)
    np.testing.assert_array_equal(found.train[0], (digits.images / 16 * 255).round())


def test_the_names_of_a_split_go_before_those_of_one_set(tmp_path, capsys):
    found = read(
        tmp_path, x=PIXELS, y=LABELS, x_train=PIXELS[:8], y_train=LABELS[:8], x_test=PIXELS[8:], y_test=LABELS[8:]
    )
    assert (len(found.train[1]), len(found.test[1])) == (8, 4)
    assert "left out: x, y" in capsys.readouterr().out


def test_colour_in_both_orders(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (6, 9, 8, 3), dtype=np.uint8)
    for stored in (colour, colour.transpose(0, 3, 1, 2)):
        np.testing.assert_array_equal(read(tmp_path, x=stored, y=LABELS[:6]).train[0], colour)


def test_train_and_test_are_scaled_alike(tmp_path):
    dim, bright = np.full((6, 4, 4), 1000, np.uint16), np.full((6, 4, 4), 4000, np.uint16)
    found = read(tmp_path, x_train=dim, y_train=LABELS[:6], x_test=bright, y_test=LABELS[:6])
    assert (int(found.train[0][0, 0, 0]), int(found.test[0][0, 0, 0])) == (62, 249)  # of 12 bits: 255 * 1000 / 4095


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS.reshape(-1, 1), ("0", "1", "2")),
        (LABELS.astype(np.float32), ("0", "1", "2")),
        (np.eye(3)[LABELS], ("0", "1", "2")),
        (np.eye(3, dtype=bool)[LABELS], ("0", "1", "2")),
        (np.array(["cat", "dog", "éléphant"])[LABELS], ("cat", "dog", "éléphant")),
        (np.array([b"cat", b"dog", b"eel"])[LABELS], ("cat", "dog", "eel")),
        (np.array([5, 7, 30])[LABELS], ("5", "7", "30")),
    ],
)
def test_labels_of_every_kind(tmp_path, labels, classes):
    found = read(tmp_path, x=PIXELS, y=labels)
    assert found.classes == classes
    assert found.train[1].tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"a": PIXELS}, "has a; must have x_train and y_train or train_images and train_labels or x and y or "),
        ({"x": PIXELS, "y": np.array([{}] * 12)}, "y: holds objects, which are not loaded; give it numbers or texts"),
        ({"x": PIXELS, "y": LABELS[:5]}, "has 12 images in x, 5 labels in y"),
        ({"x": PIXELS[..., None].repeat(4, 3), "y": LABELS}, "x has the shape (12, 9, 8, 4); must be (N, H, W), "),
        ({"x": PIXELS.reshape(12, 72), "y": LABELS}, "x has the shape (12, 72); must be (N, H, W), "),
        ({"x": PIXELS.astype(str), "y": LABELS}, "x is of <U3; must be numbers"),
        ({"x": np.where(PIXELS > 9, PIXELS, np.nan), "y": LABELS}, "has values that are no numbers in its images"),
        ({"x": PIXELS, "y": LABELS + 0.5}, "y has labels that are no whole numbers"),
        ({"x": PIXELS, "y": np.ones((12, 3))}, "y has the shape (12, 3), and its rows are not one-hot: one 1, else 0"),
        ({"x": PIXELS, "y": LABELS * 1j}, "y is of complex128 and shape (12,); must be numbers or texts of (N,)"),
        ({"x": PIXELS, "y": np.where(LABELS == 1, np.inf, LABELS)}, "y has labels that are no whole numbers"),
        ({"x": PIXELS, "y": np.array([b"\xe9", b"c", b"d"])[LABELS]}, "y has bytes that are not in UTF-8: b'\\xe9'"),
        (
            {"x_train": PIXELS, "y_train": LABELS.astype(str), "x_test": PIXELS, "y_test": LABELS},
            "has labels of numbers and texts; must be of one kind",
        ),
        (
            {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS / 255, "y_test": LABELS},
            "has images of float64 and uint8; must be of one kind",
        ),
        (
            {"x_train": PIXELS, "y_train": np.eye(3)[LABELS], "x_test": PIXELS, "y_test": np.eye(2)[LABELS % 2]},
            "has one-hot labels of 3 columns in y_train, 2 columns in y_test; must be as many, one for each class",
        ),
    ],
)
def test_a_mistake_in_the_archive_is_one_line(harness, tmp_path, content, error):
    file = tmp_path / "made.npz"
    np.savez(file, **content)
    said = str(harness.main("data=arrays", f"data.file={file}"))
    assert said.startswith(f"error: data: file={file}: {error}"), said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("labels", "of_test", "error"),
    [
        (LABELS, LABELS + 1, "data: there is no training image of the class 3; each class must have one"),
        (LABELS * 0, LABELS * 0, "data: its source gave the classes ['0']; must be two or more texts"),
    ],
)
def test_classes_that_cannot_be_told_are_one_line(harness, tmp_path, labels, of_test, error):
    file = tmp_path / "made.npz"
    np.savez(file, x_train=PIXELS, y_train=labels, x_test=PIXELS, y_test=of_test)
    assert harness.main("data=arrays", f"data.file={file}").startswith(f"error: {error}")


def test_what_is_no_archive_is_one_line(harness, tmp_path):
    file = tmp_path / "an archive, mine.npz"
    told = ("data=arrays", f"data.file={file}")
    assert harness.main(*told) == f"error: data: file={file}: there is no such file"
    np.save(tmp_path / "x.npy", PIXELS)
    (tmp_path / "x.npy").rename(file)
    assert harness.main(*told) == f"error: data: file={file}: is no .npz file; numpy.savez writes one"
    np.savez(file, x=PIXELS, y=LABELS)
    content = bytearray(file.read_bytes())
    content[200] ^= 1  # in the pixels
    file.write_bytes(content)
    assert str(harness.main(*told)).startswith(f"error: data: file={file}: x: Bad CRC-32")
    for change, words in (
        (_locked, "is encrypted, password required"),
        (_packed_oddly, "compression"),
        (_vast, "alloc"),
    ):
        file.write_bytes(change(file))
        said = str(harness.main(*told))
        assert said.startswith(f"error: data: file={file}: x: "), said
        assert words in said
    assert harness.main("data=arrays") == "error: data.file: has no default; give it as data.file=VALUE"
    assert (
        harness.main("data=arrays", "data.file=null")
        == "error: data: file=null: must be the file that the source reads"
    )
    assert harness.main("data=mnist5k", "data.file=x.npz").startswith("error: data: file=x.npz: the source takes none")
    assert harness.main("data=arrays", f"data.file={file}", "data.root=x").startswith("error: data: root=x: the source")


def _locked(file):
    return _with_header(file, 6, 1)


def _packed_oddly(file):
    return _with_header(file, 8, 98)


def _with_header(file, place: int, value: int) -> bytes:
    """Return a new archive with a number of its headers changed, the local one and that of the directory."""
    np.savez(file, x=PIXELS, y=LABELS)
    content = bytearray(file.read_bytes())
    for start, at in ((b"PK\3\4", place), (b"PK\1\2", place + 2)):
        begin = content.index(start) + at
        content[begin : begin + 2] = value.to_bytes(2, "little")
    return bytes(content)


def _vast(file) -> bytes:
    """Return an archive whose header claims more pixels than there is memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**8, 900, 900)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    return file.read_bytes()


def test_a_run_is_known_by_what_the_archive_holds(harness, tmp_path):
    def identity(**content) -> str:
        np.savez(tmp_path / "some.npz", **content)
        file = (tmp_path / "some.npz").rename(tmp_path / f"{len(list(tmp_path.iterdir()))}.npz")
        return identify(harness.compose("model=mlp", "data=arrays", f"data.file={file}"))[2]

    many, labels = np.tile(PIXELS, (10, 1, 1)), np.tile(LABELS, 10)
    first = identity(x=many, y=labels)
    assert identity(images=many / 255, labels=labels, more=LABELS) == first
    assert identity(x=many, y=labels[::-1]) != first
    assert identity(x=many, y=labels + 1) != first  # a model would answer with the names of the other


@pytest.mark.parametrize("settings", [{"mean": [0.1, 0.2]}, {"std": [1.0, 1.0]}, {"mean": []}])
def test_a_mean_for_each_channel_has_as_many_numbers(harness, tmp_path, settings):
    np.savez(tmp_path / "made.npz", x=np.tile(PIXELS, (10, 1, 1)), y=np.tile(LABELS, 10))
    ((name, values),) = settings.items()
    for color, allowed in (("false", "one"), ("true", "one, or 3, one for each channel")):
        told = ("model=mlp", "data=arrays", f"data.file={tmp_path / 'made.npz'}", f"data.color={color}")
        said = harness.main(*told, f"data.{name}={values}")
        assert said == f"error: data: {name}: has {len(values)} numbers; must be {allowed}"
