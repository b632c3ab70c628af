"""Image folders that tests write: flat images, rings and strokes."""

from pathlib import Path

from PIL import Image, ImageDraw


def draw(file: Path, shade, size=(28, 28), mode: str = "L", **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(file, **options)


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
