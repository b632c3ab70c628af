"""The style of every figure: colours, lines, axes."""

import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal

import matplotlib.figure
import numpy as np
from matplotlib import colormaps, rc_context, rcParams, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator

# Cycles of different lengths, so that more lines than there are colours still differ.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
_LINES = ("-", "--", ":", "-.", (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ERRORS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # ticks in a decade: the first of these that gives enough
_ERROR_SCALE = (lambda y: -np.log10(np.maximum(1 - y, 8e-5)), lambda y: 1 - 10.0 ** -np.asarray(y))
# Blues without its near-white end: a single mistake must differ from white, which is none.
BLUES = ListedColormap(colormaps["Blues"](np.linspace(0.15, 1, 256)), name="visible_blues").with_extremes(bad="white")
_STYLE: dict[Any, Any] = {
    "figure.dpi": 120,
    "font.size": 9,
    "svg.hashsalt": "digitlab",  # else the same figure has other ids each time that it is written
    "text.parse_math": False,  # a "$" in a class name or title is a dollar sign, not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.5",
    "axes.formatter.useoffset": False,
    "grid.color": "0.9",
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "figure.constrained_layout.w_pad": 0.07,  # inches
    "figure.constrained_layout.h_pad": 0.07,
}


@contextmanager
def _style() -> Iterator[None]:
    """Apply our style to matplotlib's own defaults within this context, whatever the user's matplotlibrc says.

    Of signs that the font lacks matplotlib says nothing here, where it would in each figure: `undrawable` has them.
    """
    defaults: dict[Any, Any] = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")}
    changed = {key: value for key, value in defaults.items() if rcParams[key] != value}
    with rc_context(changed | _STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@_style()
def undrawable(names: Iterable[str]) -> list[str]:
    """Return those of `names` that have signs which the figures' font lacks."""
    drawn = get_font(findfont(FontProperties())).get_charmap().keys() | {ord("\n")}
    return [name for name in names if not drawn >= set(map(ord, name))]


class Figure(matplotlib.figure.Figure):
    """A figure that is saved in our style, too: much is read from it only then."""

    @_style()
    def savefig(self, *args: Any, **kwargs: Any) -> None:
        super().savefig(*args, **kwargs)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure in our style, and compute its layout once: savefig would draw everything twice for it."""

    @wraps(draw)
    @_style()
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        figure = draw(*args, **kwargs)
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine(None)
        return figure

    return drawn


def wrap(text: str, inches: float, size: str = "large") -> str:
    """Break a title into lines that are drawn within `inches`; one word alone may be broken too."""
    font, measure, columns = FontProperties(size=size), TextToPath().get_text_width_height_descent, len(text)
    lines = [text]
    while columns > 1 and any(measure(line, font, False)[0] > 72 * inches for line in lines):
        columns = int(0.95 * columns)
        lines = textwrap.wrap(text, columns)
    return "\n".join(lines)


def set_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, in as many lines as its width needs."""
    figure.suptitle(wrap(title, 0.96 * figure.get_figwidth() - 0.3))


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by name the colour, line style and marker of each line, which depend on the set of names only."""
    return {
        name: {"color": _COLORS[i % 7], "linestyle": _LINES[i % 6], "marker": _MARKERS[i % 8]}
        for i, name in enumerate(sorted(set(names)))
    }


def scale_accuracy(ax: Axes, values: Sequence[float] | np.ndarray, axis: Literal["x", "y"] = "y") -> None:
    """Scale an axis of accuracies by the logarithm of the error: 0.99 to 0.999 is as far as 0.9 to 0.99."""
    low, high, ticks = _accuracy_ticks(values)
    shown = {"lim": (low, high), "ticks": ticks, "ticklabels": [f"{tick:.4f}".rstrip("0") for tick in ticks]}
    (ax.set_xscale if axis == "x" else ax.set_yscale)("function", functions=_ERROR_SCALE)
    ax.set(**{axis + name: value for name, value in shown.items()})
    ax.minorticks_off()


def _accuracy_ticks(values: Sequence[float] | np.ndarray) -> tuple[float, float, list[float]]:
    """Return both ends and the ticks of an axis of accuracies."""
    errors = np.clip(1 - np.asarray(values, dtype=float), 1e-4, 1)
    worst, best = 1.15 * np.nanmax(errors), np.nanmin(errors) / 1.3
    low, high = max(1 - worst, 0), 1 - best
    for mantissas in _ERRORS:
        errors = [mantissa * 10.0**-decade for decade in range(1, 5) for mantissa in mantissas]
        ticks = [1 - error for error in errors if low <= 1 - error <= high]
        if len(ticks) >= 4:
            return low, high, ticks
    return low, high, [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def scale_cost(ax: Axes) -> None:
    """Scale an axis of counts or seconds logarithmically, with plain numbers as ticks."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    for mantissas in ((1,), (1, 3), (1, 2, 5)):
        ticks = [mantissa * 10.0**decade for decade in range(-6, 10) for mantissa in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    else:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:,g}" if tick < 1e6 else f"{tick / 1e6:g} M" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(low, high)
