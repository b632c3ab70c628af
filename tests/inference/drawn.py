"""What is drawn on the page of `digitlab serve` and of `export --format web`, and photographs that it is shown."""

from collections.abc import Iterable

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from digitlab.data.sources import mnist5k

SEVEN = ((0.3, 0.25), (0.7, 0.25), (0.6, 0.5), (0.5, 0.85))  # of the paper's width and height


def draw(page: Page, points: Iterable[tuple[float, float]]) -> None:
    """Draw a stroke on the paper with the mouse."""
    box = page.locator("#paper").bounding_box()
    first, *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def photograph(*rows: int, side: int = 260) -> Image.Image:
    """Return embedded images side by side, dark on light, each of `side` pixels and with a margin."""
    images, margin = mnist5k().train[0].numpy(), side // 13
    sheet = Image.new("L", (len(rows) * (side + 2 * margin), side + 2 * margin), 235)
    for place, row in enumerate(rows):
        digit = Image.fromarray(235 - (images[row] * 0.8).astype(np.uint8)).resize((side, side))
        sheet.paste(digit, (margin + place * (side + 2 * margin), margin))
    return sheet
