"""Image files of every kind: what of them becomes pixels, and what is said."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from glyphs import as_png, draw, save_glyphs
from PIL import Image

from digitlab.data.folders import image_folder
from digitlab.data.picture_file import extensions

SOURCES = Path(__file__).parents[2] / "src"

LOSSLESS = (".gif", ".png", ".webp", ".bmp")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    save_glyphs(root, as_png)
    return image_folder(root)


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
        (integers(4), "values up to 15 scaled to 0..255"),
        (floats(1.0), "values in 0..1"),
        (floats(1.0001), "scaled to 0..255"),
        (floats(16.0), "values up to 16 scaled to 0..255"),
        (floats(255.0), "taken as 8 bits"),
        (floats(1.0, -1.0), "values from -1 to 1"),
        (lambda image, file, _: image.convert("RGBA").save(file.with_suffix(".png")), "gray\n"),
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


def test_faint_colour_is_kept_but_where_a_codec_may_have_made_it(tmp_path, capsys):
    pastel, neutral = Image.new("RGB", (28, 28), (130, 120, 112)), Image.new("RGB", (28, 28), (120, 120, 120))
    for folder, suffix in (("lossless", "png"), ("lossy", "jpg")):
        for name, image in (("a", pastel), ("b", neutral)):
            (tmp_path / folder / name).mkdir(parents=True)
            image.save(tmp_path / folder / name / f"0.{suffix}", quality=95)
    assert image_folder(tmp_path / "lossless").train[0].ndim == 4
    assert image_folder(tmp_path / "lossy").train[0].ndim == 3
    assert "28 x 28, gray, 1 with faint colours, which data.color=true keeps" in capsys.readouterr().out
    assert image_folder(tmp_path / "lossy", color=True).train[0].ndim == 4
    assert "faint colours" not in capsys.readouterr().out


def test_colour_of_a_few_pixels_of_a_large_image_is_seen(tmp_path):
    for name, shade in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (tmp_path / name).mkdir()
        image = Image.new("RGB", (400, 400), (120, 120, 120))
        image.putpixel((5, 5), shade)
        image.save(tmp_path / name / "0.png")
    assert image_folder(tmp_path).train[0].ndim == 4


def test_a_shape_in_the_transparency_of_16_bit_gray_is_seen(tmp_path, capsys):
    def save(image, file, _):
        values = np.where(np.asarray(image) > 127, 65535, 300).astype(np.uint16)
        Image.fromarray(values).save(file.with_suffix(".png"), transparency=300)

    save_glyphs(tmp_path, save)
    pixels = image_folder(tmp_path).train[0]
    assert "8 with transparent pixels, now black" in capsys.readouterr().out
    assert (pixels.flatten(1).amax(1) == 255).all()
    assert (pixels[:, 0, 0] == 0).all()


@pytest.mark.parametrize("tag", [0, 9])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path, capsys, tag):
    def save(image, file, _):
        exif = Image.Exif()
        exif[0x0112] = tag
        image.save(file.with_suffix(".png"), exif=exif)

    save_glyphs(tmp_path, save)
    image_folder(tmp_path)
    assert "turned" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_colours_of_16_bits_are_said_to_lose_their_lower_8(tmp_path, capsys, plain, mode):
    def save(image, file, _):
        values = [np.asarray(each, ">u2") * 256 for each in image.convert(mode).split()]
        rows = np.stack(values, axis=2).astype(">u2").reshape(image.height, -1)
        content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        header = struct.pack(">IIBBBBB", *image.size, 16, {"RGB": 2, "LA": 4}[mode], 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
        written = [struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each))
                   for kind, each in chunks]  # fmt: skip
        file.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))

    save_glyphs(tmp_path, save)
    assert image_folder(tmp_path).train[0].equal(plain.train[0])
    assert "8 of 16 bits a colour: the upper 8 of each" in capsys.readouterr().out


def test_postscript_is_read_where_ghostscript_is(tmp_path, capsys):
    draw(tmp_path / "a" / "0.png", 0)
    draw(tmp_path / "b" / "0.png", 9)
    draw(tmp_path / "b" / "1.eps", 9)
    assert len(image_folder(tmp_path).train[1]) == (3 if shutil.which("gs") else 2)


def test_what_pillow_only_recognizes_is_no_image():
    assert {".png", ".jpg", ".gif", ".webp", ".tif", ".avif", ".bmp"} <= set(extensions())
    assert not {".mpg", ".h5", ".pdf", ".txt"} & set(extensions())


def test_what_pillow_says_of_a_picture_that_it_reads_is_not_repeated_without_a_name(tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00\x12\x01\x03\x00\x99\x00\x00\x00\xff\xff\xff\xff\x0f"  # cut
    Image.new("L", (16, 16)).save(tmp_path / "a.jpg", exif=exif)
    file = str(tmp_path / "a.jpg")
    code = f"from digitlab.data.picture_file import opened\nwith opened({file!r}) as it: print(it.image)"
    command = [sys.executable, "-W", "error", "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=SOURCES)
    assert "size=16x16" in told.stdout
    assert told.stderr == ""
