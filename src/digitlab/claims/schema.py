"""What was claimed, and what follows a claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import copysign

OURS = "digitlab"  # the document of a claim that is our own, and published nowhere


def agree(printed: object, ours: object) -> str:
    """Say whether what is printed is what was counted."""
    return "the same" if printed == ours else "NOT the same"


@dataclass(frozen=True)
class Statement:
    """What a document says of two networks' parameters, as a range of their ratio, and the ratio that was counted."""

    says: str
    of: str
    to: str
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        truth = "true" if self.low <= self.ratio <= self.high else "FALSE"
        return f"{self.says}: {truth}, {self.of} has {self.ratio:.2f} times the parameters of {self.to}."


@dataclass(frozen=True)
class Count:
    """The parameters that a document prints of a network that it claims nothing else of, and those of ours."""

    network: str
    printed: int
    ours: int

    def __str__(self) -> str:
        return (
            f"{self.network} has {self.printed:,} parameters in print, {self.ours:,} counted: "
            f"{agree(self.printed, self.ours)}; no accuracy is claimed of it, so this is parameters only."
        )


@dataclass(frozen=True)
class Layers:
    """The parameters of the first layers of a claim's network, as printed by a document that breaks off, and ours."""

    printed: Sequence[int]
    ours: Sequence[int]

    def __str__(self) -> str:
        printed, ours = (" and ".join(f"{count:,}" for count in each) for each in (self.printed, self.ours))
        return f"{printed} parameters printed of the first layers, {ours} counted: {agree(printed, ours)}."


@dataclass(frozen=True)
class Claim:
    """What a document says of one recipe; config/claimed.py says what each of it means.

    `accuracy` is on those of training where `images` says so, and made of as many `runs`: their mean or the best.
    """

    name: str
    document: str
    model: str
    optim: str
    data: str
    is_validated_on_test: bool
    folds: int  # that the data are divided into, each of which is tested by the runs of another seed
    accuracy: float | None
    decimals: int | None  # of it, where the last is a 0, which a number does not keep
    images: str  # "test" or "train"
    runs: int  # that the accuracy is made of
    statistic: str  # of them: "mean" or "best"
    loss: float | None
    parameters: int | None  # by the document: printed, or the sum over its layers
    seconds: float | None  # an epoch took
    unstated: str
    contradicted: str
    otherwise: str
    caveat: str
    tested_once: bool  # the document does, whatever our split
    diverges: bool  # the printed numbers are those of a network that names one class for everything
    printed: Mapping[str, Sequence[float]]  # metrics by epoch
    layers: Layers | None
    counts: Sequence[Count]
    statements: Sequence[Statement]

    @property
    def source(self) -> str:
        """The document, as a reader knows it: the tutorials' are numbers."""
        return f"tutorial {self.document}" if self.document.isdigit() else self.document

    @property
    def is_published(self) -> bool:
        return self.document != OURS

    @property
    def is_best(self) -> bool:
        return self.statistic == "best" and self.runs > 1

    @property
    def made_of(self) -> str:
        """What the accuracy is of, in words."""
        return f"the {self.statistic} of {self.runs} runs" if self.runs > 1 else "one run"

    @property
    def measured(self) -> str:
        """What kind of accuracy is claimed, in words."""
        return f"{'training' if self.images == 'train' else 'test'} accuracy"

    @property
    def claimed(self) -> str:
        """The accuracy as a table has it, with what it is of where that is not one test of one run."""
        if self.accuracy is None:
            return "–"
        parts = [f"{self.accuracy:.{self._decimals}f}"]
        parts += [f"{self.statistic} of {self.runs}"] if self.runs > 1 else []
        return ", ".join([*parts, "training"] if self.images == "train" else parts)

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit that the accuracy is given with."""
        return 10**-self._decimals / 2

    def may_be(self, value: float) -> str:
        """Say how far the accuracy, as it is rounded, may be towards `value`."""
        nearest = (self.accuracy or 0.0) + copysign(self.rounding, value - (self.accuracy or 0.0))
        return f"{self.accuracy:.{self._decimals}f} may be {nearest:.{self._decimals + 1}f}"

    @property
    def _decimals(self) -> int:
        digits = Decimal(str(self.accuracy)).as_tuple().exponent
        assert isinstance(digits, int)  # an accuracy is a number
        return max(-digits, self.decimals or 0)


@dataclass(frozen=True)
class Recipe:
    """What a run follows: a claim's own recipe, or one with `changes`, (key, value), whose file is `counterpart`."""

    claim: str
    counterpart: str = ""
    changes: tuple[tuple[str, str], ...] = ()
