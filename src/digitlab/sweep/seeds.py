"""Seeds that a sweep buys where they decide: rounds of a sweep, with a look after each at what they came to.

A look is a function of what is stored of the seeds up to it, so the same command comes to the same looks again.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from digitlab.analysis import race
from digitlab.config.errors import UserError
from digitlab.data.datamodule import ImageData
from digitlab.sweep.plan import Compose, SweepCell, add_up, name_by_hash, paces_of, plan_cell
from digitlab.sweep.rounds import Rounds
from digitlab.tracking.store import Store
from digitlab.training.setup import identify

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


def shared_name(arms: Iterable[Arm]) -> str | None:
    """Return a name that several arms have; None where each has its own."""
    return next((name for name, number in Counter(arm.name for arm in arms).items() if number > 1), None)


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

    def __str__(self) -> str:
        return f"sweep.budget={self.text}"


class Seeds(Rounds):
    """Rounds that give more seeds to those of `arms` that are left after each look; `cfg` is that of the first one.

    Whoever makes a class of this looks: says which arms are out, and why all of it is over where it is.
    """

    word: str  # what such a sweep is
    leaves: str  # what is said of the arms that are left

    def __init__(self, arms: Sequence[Arm], cfg: DictConfig, compose: Compose):
        self.arms, self.compose = arms, compose
        self.max_seeds: int = cfg.sweep.get("max_seeds") or race.MAX_SEEDS
        self.numbers = race.looks(self.max_seeds)  # of seeds, at which it is looked
        self.budget = Budget(cfg.sweep.get("budget"))
        self.has_budget = self.budget.seconds is not None
        self.looks: dict[int, Any] = {}  # what each of them came to
        self.end = ""  # why it is over; empty while it is not

    def look(self, store: Store, n: int) -> None:
        """Decide which arms go on after `n` seeds of each, whether it is over, and say so."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What a sweep without a name is called; it does not depend on how far it goes."""
        return name_by_hash([arm.runs[0] for arm in self.arms]).replace("adhoc", self.word)

    @property
    def left(self) -> list[Arm]:
        return [arm for arm in self.arms if not arm.out]

    def rounds(self, store: Store) -> Iterator[list[SweepCell]]:
        """Yield the runs that each look needs.

        Before the next is asked for, they must be over, failed, or refused by `may_start`. With a budget they come
        one seed at a time, so that little is begun that cannot be ended.
        """
        for n in self.numbers:
            for seeds in self.budget.parts(range(len(self.left[0].runs), n)):
                added = [arm.plan(self.compose, seed) for seed in seeds for arm in self.left]
                yield added
                if self.budget.is_spent(added):
                    self.end = f"{self.budget} is spent"
                    return
            self.look(store, n)
            if n == self.max_seeds and not self.end:
                self.end = f"sweep.max_seeds={n} is reached"
            if self.end:
                return

    def may_start(self, store: Store, cells: Sequence[SweepCell]) -> bool:
        return self.budget.allows(store, cells)

    def describe(self, looked: str, more: str = "") -> str:
        """Say at which numbers of seeds it is `looked`, and how many runs there may be; `more` is known of these."""
        limit = f"; {self.budget}" if self.budget.text else ""
        runs = f"at most {len(self.arms) * self.max_seeds} runs{more}"
        return f"{looked} after {', '.join(map(str, self.numbers))} seeds; {runs}{limit}"

    @property
    def outcome(self) -> str:
        left = ", ".join(arm.name for arm in self.left) or "none"
        return f"{self.word}: {f'over, {self.end}' if self.end else 'not over'}; {self.leaves}: {left}"


def identified(
    cells: Sequence[Sequence[str]], compose: Compose
) -> Iterator[tuple[Sequence[str], DictConfig, ImageData, str]]:
    """Yield the overrides of each cell, its configuration, data and identity; raise UserError for one to be rerun."""
    for overrides in cells:
        cfg, data, identity = identify(compose([*overrides, "seed=0"]))
        if cfg.rerun:
            raise UserError("rerun=true: sweep.seeds=auto counts on what is done; give one of them")
        yield overrides, cfg, data, identity
