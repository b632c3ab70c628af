"""The runs of a sweep, in rounds: all at once, or more of them by what the earlier ones came to."""

from collections.abc import Iterator, Mapping, Sequence

from digitlab.sweep.plan import Compose, SweepCell, name_by_hash, plan
from digitlab.tracking.store import Store


class Rounds:
    """One round of all runs, whatever they come to.

    `cells` are the overrides of each run; `compose` makes a configuration of overrides.
    """

    has_budget = False  # of time, which `may_start` keeps

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
