"""Digits in photographs: found, and framed as MNIST's are. The oracles: MNIST itself, and what was drawn."""

import numpy as np
import pytest
from photographs import alike
from PIL import Image
from scipy import ndimage

from digitlab.data.pictures import read_picture
from digitlab.data.sources import mnist5k
from digitlab.inference.digits import find_digits

IMAGES, LABELS = (each.numpy() for each in mnist5k().train)
SEVEN, EIGHT = IMAGES[3500], IMAGES[4003]


def picture(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def enlarged(digit: np.ndarray, factor: int = 6) -> np.ndarray:
    return np.kron(digit, np.ones((factor, factor), np.uint8))


@pytest.mark.parametrize("is_inverted", [False, True])
def test_mnists_own_images_come_out_as_they_are(is_inverted):
    found = [find_digits(picture(255 - digit if is_inverted else digit)) for digit in IMAGES[::250]]
    likeness = [alike(one.pixels, digit) for (one,), digit in zip(found, IMAGES[::250], strict=True)]
    assert min(likeness) > 0.85
    assert np.mean(likeness) > 0.95


def test_every_digit_is_framed_as_mnists_are():
    for digit in IMAGES[7::500]:
        page = np.full((300, 260), 230, np.uint8)
        page[100:240, 30:170] -= (enlarged(digit, 5) * 0.8).astype(np.uint8)
        (found,) = find_digits(picture(page))
        rows, columns = np.nonzero(found.pixels > 30)
        assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        center = ndimage.center_of_mass(found.pixels.astype(float))
        assert np.abs(np.array(center) - 14).max() < 0.6  # where those of MNIST are: 13.99, 14.00
        left, top, right, bottom = found.box
        assert left >= 30
        assert top >= 100
        assert right <= 170
        assert bottom <= 240


def test_the_colours_of_pen_and_paper_change_little():
    cover = enlarged(SEVEN)[..., None] / 255.0
    (plain,) = find_digits((255 * (1 - cover)).repeat(3, axis=2).astype(np.uint8))
    for paper, pen in (
        ((250, 240, 120), (200, 30, 30)),
        ((20, 60, 40), (250, 250, 230)),
        ((255, 255, 255), (255, 255, 0)),
    ):
        (found,) = find_digits((np.array(paper) * (1 - cover) + np.array(pen) * cover).astype(np.uint8))
        assert alike(found.pixels, plain.pixels) > 0.98


def test_half_a_picture_in_shadow_changes_little():
    page = np.full((240, 300), 240.0)
    page[40:208, 60:228] *= 1 - 0.9 * enlarged(EIGHT) / 255
    (lit,) = find_digits(picture(page.astype(np.uint8)))
    page *= 1 - 0.5 / (1 + np.exp((np.arange(300) - 150) / 8))
    (found,) = find_digits(picture(page.astype(np.uint8)))
    assert alike(found.pixels, lit.pixels) > 0.9


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_nothing_has_no_digit(value):
    assert find_digits(picture(np.full((50, 70), value, np.uint8))) == []


def test_many_digits_are_read_by_line_and_from_left_to_right():
    page = np.zeros((150, 200), np.uint8)
    written = [(1000, 5, 10), (3500, 60, 16), (501, 110, 8), (4500, 20, 100), (2, 90, 90)]  # 2 7 1, then 9 0
    for row, x, y in written:
        page[y : y + 28, x : x + 28] = IMAGES[row]
    found = find_digits(picture(255 - enlarged(page, 3)))
    assert len(found) == 5
    for digit, (row, _, _) in zip(found, written, strict=True):
        assert alike(digit.pixels, IMAGES[row]) > 0.85


def test_every_kind_of_file_shows_the_same_digit(tmp_path):
    gray = 255 - np.pad(enlarged(SEVEN), 20)
    image = Image.fromarray(gray)
    (upright,) = find_digits(picture(gray))
    deep = (np.asarray(image, np.uint16) * 257).astype(np.uint16)
    seen_through = Image.fromarray(np.dstack([np.zeros_like(gray)] * 3 + [255 - gray]), "RGBA")
    white_on_nothing = Image.fromarray(np.dstack([np.full_like(gray, 255)] * 3 + [255 - gray]), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "gray.png": lambda file: image.save(file),
        "rgb.jpg": lambda file: image.convert("RGB").save(file, quality=90),
        "cmyk.jpg": lambda file: image.convert("CMYK").save(file, quality=90),
        "palette.gif": lambda file: image.convert("P").save(file),
        "deep.png": lambda file: Image.fromarray(deep).save(file),
        "float.tif": lambda file: Image.fromarray(gray.astype(np.float32)).save(file),
        "alpha.png": lambda file: seen_through.save(file),
        "white.webp": lambda file: white_on_nothing.save(file, lossless=True),
        "turned.jpg": lambda file: image.rotate(90, expand=True).save(file, exif=exif, quality=90),
        "bits.png": lambda file: image.convert("1").save(file),
        "moving.gif": lambda file: image.save(file, save_all=True, append_images=[Image.new("L", image.size)]),
    }
    for name, save in kinds.items():
        save(tmp_path / name)
        (found,) = find_digits(read_picture(tmp_path / name, 640))
        assert alike(found.pixels, upright.pixels) > (0.85 if name == "bits.png" else 0.97), name


@pytest.mark.parametrize("side", [40, 168, 600])
def test_specks_and_blots_are_framed_or_left_out(side):
    shapes = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 3), (6, 6), (1, 30), (30, 1), (20, 25)]
    for height, width in shapes:
        page = np.full((side, side), 250, np.uint8)
        page[4 : 4 + height, 6 : 6 + width] = 20
        for digit in find_digits(picture(page)):
            assert digit.pixels.shape == (28, 28)
            assert digit.pixels.max() > 100
