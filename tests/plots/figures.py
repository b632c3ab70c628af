"""What the tests of figures share."""

import io

import numpy as np

DIGITS = [str(digit) for digit in range(10)]


def png(fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def texts_over_images(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def contrast(one, other):
    """Return the WCAG contrast of two sRGB colours; 4.5 is the limit for text."""

    def luminance(color):
        color = np.asarray(color)
        return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)
