"""Pictures that look like photographs of digits: held-out MNIST digits in ink on paper, made from a seed."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

PENS = {"black": (25, 25, 30), "blue": (25, 45, 140), "red": (170, 30, 35), "green": (20, 100, 60)}
PAPERS = {"white": (242, 240, 235), "recycled": (205, 196, 178), "yellow": (246, 232, 150)}
KINDS = ("plain", "shadow", "thin", "thick", "inverted", "tiny", "huge", "ruled", "desk")
SHARPNESS = 8  # pixels of a photograph for one of MNIST's


def take(folder: Path, digits: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[tuple[Path, int]]:
    """Write one photograph of each kind for each class; return files and what is written on them.

    `digits` are uint8 (N, 28, 28), white on black, of which the first of each class are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, taken = np.random.default_rng(seed), []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)[: len(KINDS)]
        for kind, row in zip(KINDS, rows, strict=True):
            suffix = ".jpg" if kind == "huge" else rng.choice([".jpg", ".png"])
            file = folder / f"{kind}-{label}{suffix}"
            photograph(digits[row], kind, rng).save(file, quality=int(rng.integers(60, 95)))
            taken.append((file, int(label)))
    return taken


def photograph(digit: np.ndarray, kind: str, rng: np.random.Generator) -> Image.Image:
    """Return a picture of one digit, turned by up to 15 degrees, somewhere on a sheet of paper."""
    ink = write(digit, kind, rng)
    size = ink.shape[0]
    height, width = (int(size * rng.uniform(1.1, 2.2)) for _ in range(2))
    page = np.zeros((height, width))
    y, x = (int(rng.uniform(0.05, 0.95) * (total - size)) for total in (height, width))
    page[y : y + size, x : x + size] = ink
    paper, pen = (np.array(list(each.values())[rng.integers(len(each))], float) for each in (PAPERS, PENS))
    if kind == "inverted":
        paper, pen = (
            np.array(rng.choice([(28, 50, 40), (30, 30, 34), (20, 35, 70)]), float),
            np.array((235, 235, 225.0)),
        )
    sheet = np.broadcast_to(paper, (height, width, 3)) + texture((height, width), rng)[..., None]
    if kind == "ruled":
        sheet[:: max(height // 9, 4)] -= np.array((60, 40, 15))
    picture = sheet * (1 - page[..., None]) + (pen + 8 * rng.standard_normal(3)) * page[..., None]
    if kind == "desk":  # the sheet lies on a dark table
        picture = ndimage.rotate(picture, rng.uniform(-8, 8), order=1, cval=-1)
        height, width = picture.shape[:2]
        picture = np.where(picture < 0, np.array((75, 50, 35.0)) + texture((height, width), rng)[..., None], picture)
    picture *= light((height, width), kind, rng)[..., None]
    picture += rng.normal(0, 3, picture.shape)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    if kind == "tiny":
        image.thumbnail((44, 44), Image.Resampling.BOX)
    if kind == "huge":
        image = image.resize((image.width * 6, image.height * 6), Image.Resampling.BICUBIC)
    return image


def write(digit: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return the strokes of a digit as cover of 0..1, sharper than MNIST's, thinner or thicker where so asked."""
    large = ndimage.zoom(np.pad(digit, 4) / 255.0, SHARPNESS, order=3)
    large = ndimage.rotate(large, rng.uniform(-15, 15), reshape=False, order=1)
    away = ndimage.distance_transform_edt(large > 0.5) - ndimage.distance_transform_edt(large <= 0.5)
    deepest = max(away.max(), 1)
    margin = {"thin": 0.55 * min(deepest, 10), "thick": -0.6 * SHARPNESS}.get(kind, 0)
    return ndimage.gaussian_filter(((away - margin) / 2 + 0.5).clip(0, 1), 0.8)


def texture(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the fibres of paper: noise of two scales, in values of 0..255."""
    fine, coarse = (ndimage.gaussian_filter(rng.standard_normal(shape), scale) for scale in (1.0, 6.0))
    return 4 * fine / fine.std() + 4 * coarse / coarse.std()


def light(shape: tuple[int, int], kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return how much light falls on each pixel: less to one side, and beside the edge of a soft shadow."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape).reshape(2, 1, 1) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    lit = 0.95 - 0.15 * rng.uniform() * (along + 0.5)
    if kind == "shadow":
        edge = rng.uniform(-0.25, 0.25)
        lit = lit * (1 - rng.uniform(0.3, 0.5) / (1 + np.exp(-(along - edge) / 0.03)))
    return lit


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two images, give or take a pixel in either direction."""
    shifted = (np.roll(one, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return max(float(np.corrcoef(each.ravel(), other.ravel())[0, 1]) for each in shifted)
