"""How the images of a set are read where that depends on all of them: the model of a run keeps it for other images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from digitlab.data import depth
from digitlab.data.depth import Range, Scale


class Reading(NamedTuple):
    """What is the same for all images of a set.

    - `deep`: the range of the values, or of fractions and of whole numbers apart, of images of more than 8 bits.
    - `on_black`: whether transparent pixels are black, where an image shows on black and on white; None: none are.
    """

    deep: tuple[Range, ...] = ()
    on_black: bool | None = None

    @classmethod
    def of(cls, ranges: Sequence[Range], shows: Sequence[tuple[bool, bool]]) -> "Reading":
        """Return that of a set: the ranges of its deep images; which of the transparent ones show on white, on black.

        The ground is black where more of them show only on black than only on white.
        """
        on_black = shows.count((False, True)) > shows.count((True, False)) if shows else None
        return cls(depth.together(ranges), on_black)

    @classmethod
    def kept(cls, plain: Mapping[str, Any]) -> "Reading":
        """Return what `plain` was made of."""
        return cls(tuple(Range(*each) for each in plain["deep"]), plain["on_black"])

    def plain(self) -> dict[str, Any]:
        """Return it in lists, numbers and null, as files hold it."""
        return {"deep": [list(each) for each in self.deep], "on_black": self.on_black}

    def under(self, other: "Reading | None") -> "Reading":
        """Return what `other` says, and of what it says nothing, this."""
        if other is None:
            return self
        return Reading(other.deep or self.deep, self.on_black if other.on_black is None else other.on_black)

    def scale(self, values: Range) -> Scale:
        """Return the scale of an image: that of the set, or its own where those of the set do not go with it."""
        return depth.scale(next((each for each in self.deep if each.goes_with(values)), values))

    def is_on_black(self, shows_on_white: bool, shows_on_black: bool) -> bool:
        """Say which ground a transparent image has: the one where it shows alone, or that of the set."""
        return shows_on_black and not (shows_on_white and not self.on_black)
