"""The runs of a sweep, in rounds: all at once, or more of them by what the earlier ones came to."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from digitlab.sweep.plan import Compose, SweepCell, add_up, name_by_hash, paces_of, plan, plan_cell
from digitlab.tracking.store import Store

SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass
class Arm:
    """What gets more seeds or not: the overrides of its runs but for the seed, and its runs by seed."""

    name: str
    overrides: Sequence[str]
    runs: list[SweepCell] = field(default_factory=list)
    out: str = ""  # why it gets no more

    def plan(self, compose: Compose, seed: int) -> SweepCell:
        """Add the run of a seed, and return it."""
        overrides = [*self.overrides, f"seed={seed}"]
        self.runs.append(plan_cell(compose(overrides), overrides))
        return self.runs[-1]


class Budget:
    """The time that a sweep may take from now on: 90s, 30min or 1.5h; None for any."""

    def __init__(self, text: str | None):
        self.text, self.began, self.seconds = text, time.monotonic(), None
        if text is not None:
            number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
            self.seconds = float(number) * SECONDS[unit]

    def allows(self, store: Store, cells: Sequence[SweepCell]) -> bool:
        """Say whether the longest of `cells` ends in time; of unknown length, whether there is time left."""
        if self.seconds is None:
            return True
        paces = paces_of(store, cells)
        longest = max((add_up(paces, [cell]) or 0 for cell in cells if (cell.model, cell.data) in paces), default=0)
        return time.monotonic() - self.began + longest < self.seconds

    def parts(self, seeds: Sequence[int]) -> Sequence[Sequence[int]]:
        """Return what is to be run together: with a budget one seed, so that little is begun that cannot be ended."""
        return [seeds] if self.seconds is None else [[seed] for seed in seeds]

    def is_spent(self, cells: Sequence[SweepCell]) -> bool:
        """Say whether some of `cells`, which were to be run, were not."""
        return any(cell.status in ("to run", "to resume") for cell in cells)

    @property
    def end(self) -> str:
        """Why a sweep is over where it is spent."""
        return f"sweep.budget={self.text} is spent"


class Rounds:
    """One round of all runs, whatever they come to.

    `cells` are the overrides of each run; `compose` makes a configuration of overrides.
    """

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose):
        self.first = plan(cells, compose)

    @property
    def name(self) -> str:
        """What a sweep without a name is called."""
        return name_by_hash(self.first)

    def rounds(self, store: Store) -> Iterator[list[SweepCell]]:
        """Yield the runs of each round; before the next is asked for, these are over, failed or refused."""
        yield self.first

    def announce(self, store: Store | None) -> str:
        """Say what comes after the first round, with the time that runs in `store` took; nothing where nothing does."""
        return ""

    def may_start(self, store: Store, cells: Sequence[SweepCell]) -> bool:
        """Say whether there is time left for `cells`."""
        return True

    def records(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the text of files by name, and the tags, that say how the rounds went so far."""
        return {}, {}

    @property
    def outcome(self) -> str:
        """How the rounds ended or, where they were interrupted, how they stand."""
        return ""
