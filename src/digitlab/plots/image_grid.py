"""A grid of images with a line of text above each."""

import textwrap

import numpy as np

from digitlab.plots.style import Figure, wrap


def image_grid(images: np.ndarray, texts: list[str], columns: int, title: str, empty: str = "no images") -> Figure:
    """Draw uint8 images (N, H, W) or (N, H, W, 3), each scaled to 28 x 28 pixels; or the text `empty` for none."""
    # At least four tiles wide, for the title.
    rows, columns = max(-(-len(images) // columns), 1), max(min(columns, len(images)), 4)
    texts = [textwrap.fill(text, 20) for text in texts]
    # One mosaic, in units of image pixels: separate axes for each image take nine times as long to draw.
    tile = 31 + 3 * max((text.count("\n") + 1 for text in texts), default=1)
    title = wrap(title, columns * 32 / 24 - 0.2)
    top = 8 + 5 * title.count("\n")
    mosaic = np.full((top + rows * tile, columns * 32, *images.shape[3:]), 255, np.uint8)
    fig = Figure(figsize=(mosaic.shape[1] / 24, mosaic.shape[0] / 24))  # 5 x 5 dots for each pixel: sharp
    fig.suptitle(title, y=1 - 2 / mosaic.shape[0])
    ax = fig.add_axes((0, 0, 1, 1), frameon=False, xticks=(), yticks=())
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        y, x = top + (i // columns + 1) * tile - 30, i % columns * 32 + 2
        height, width = image.shape[:2]
        mosaic[y : y + 28, x : x + 28] = image[np.ix_(np.arange(28) * height // 28, np.arange(28) * width // 28)]
        ax.text(x + 13.5, y - 1.5, text, ha="center", fontsize=8)
    # A fixed scale: a faint image stays faint.
    ax.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if not texts:
        fig.text(0.5, 0.4, empty, ha="center", va="center", fontsize=12)
    return fig


def shorten(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"
