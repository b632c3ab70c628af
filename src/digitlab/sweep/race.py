"""A sweep that gives more seeds to the cells that may still be the best: rounds of a sweep, with a look after each.

A look is a function of what is stored of the seeds up to it, so the same command comes to the same looks again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from omegaconf import OmegaConf

from digitlab.analysis import race
from digitlab.analysis.race import Standing
from digitlab.analysis.records import Result, mark_collapsed
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.report.runs import read_predictions, read_results
from digitlab.sweep.plan import Compose, SweepCell, duration, estimate_seconds, name_by_hash
from digitlab.sweep.rounds import Arm, Budget, Rounds
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training.setup import identify, name_parts, name_run


class Race(Rounds):
    """The rounds of a race, and what its looks came to.

    `cells` are the overrides of each arm, without a seed; `compose` makes a configuration of overrides. Raises
    UserError where the cells cannot be compared with each other by their test accuracy.
    """

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose):
        self.compose, self.arms = compose, _arms(cells, compose)
        cfg = compose(cells[0])
        self.max_seeds = cfg.sweep.get("max_seeds") or race.MAX_SEEDS
        self.level, self.margin = race.level(self.max_seeds), OmegaConf.select(cfg, "report.margin")
        self.budget = Budget(cfg.sweep.get("budget"))
        self.looks: dict[int, list[Standing]] = {}
        self.end = ""  # why it is over; empty while it is not

    @property
    def name(self) -> str:
        """What a sweep without a name is called; it does not depend on how far the race goes."""
        return name_by_hash([arm.runs[0] for arm in self.arms]).replace("adhoc", "race")

    @property
    def left(self) -> list[Arm]:
        return [arm for arm in self.arms if not arm.out]

    def rounds(self, store: Store) -> Iterator[list[SweepCell]]:
        """Yield the runs that each look needs.

        Before the next is asked for, they must be over, failed, or refused by `may_start`. With a budget they come
        one seed at a time, so that little is begun that cannot be ended.
        """
        for n in race.looks(self.max_seeds):
            have = len(self.left[0].runs)
            for seeds in self.budget.parts(range(have, n)):
                added = [arm.plan(self.compose, seed) for seed in seeds for arm in self.left]
                yield added
                if self.budget.is_spent(added):
                    self.end = self.budget.end
                    return
            self._look(store, n)
            if self.end:
                return

    def may_start(self, store: Store, cells: Sequence[SweepCell]) -> bool:
        return self.budget.allows(store, cells)

    def announce(self, store: Store | None) -> str:
        looks, count = ", ".join(map(str, race.looks(self.max_seeds))), len(self.arms)
        once = estimate_seconds(store, [arm.runs[0] for arm in self.arms]) if store else None
        total = duration(None if once is None else once * self.max_seeds)
        limit = f"; sweep.budget={self.budget.text}" if self.budget.text else ""
        runs = f"at most {count * self.max_seeds} runs, {total} in all"
        return f"race: {count} cells, compared after {looks} seeds; {runs}{limit}"

    def records(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        names = [arm.name for arm in self.left]
        content = {"max_seeds": self.max_seeds, "level": self.level, "margin": self.margin, "end": self.end}
        content |= {"looks": {n: [asdict(each) for each in standings] for n, standings in self.looks.items()}}
        content |= {"left": names, "out": {arm.name: arm.out for arm in self.arms if arm.out}}
        tags = {"race.looks": ", ".join(map(str, self.looks)), "race.left": ", ".join(names)[:5000]}
        return {"race.json": json.dumps(content, indent=1)}, tags | {"race.end": self.end}

    @property
    def outcome(self) -> str:
        left = ", ".join(arm.name for arm in self.left) or "none"
        return f"race: {f'over, {self.end}' if self.end else 'not over'}; left: {left}"

    def _look(self, store: Store, n: int) -> None:
        """Decide which arms go on after `n` seeds of each, whether the race is over, and say so."""
        results = self._results(store)
        for arm in self.left:
            unfinished = next((cell for cell in arm.runs if not cell.is_over), None)
            failed = next((run for run in results[arm.name] if run.has_failed), None)
            if unfinished:
                arm.out = f"{unfinished.name} is not done: {unfinished.reason}"
            elif failed:
                arm.out = f"{failed.name} {'diverged' if failed.has_diverged else 'is no better than naming one class'}"
        sound = [arm for arm in self.arms if not arm.out or arm.name in self._outrun]
        if self.left:
            accuracies = {arm.name: [run.accuracy for run in results[arm.name]] for arm in sound}
            step = 1 / results[sound[0].name][0].test_images
            left = {arm.name for arm in self.left}
            self.looks[n] = race.stand(accuracies, left, step, self.level, self.margin)
        for arm in self.left:
            standing = next(each for each in self.looks[n] if each.name == arm.name)
            if not standing.is_left:
                arm.out = f"worse than the best after {n} seeds: p = {standing.p:.2g}"
        self.end = race.why_over(self.looks.get(n, []), self.level, self.margin)
        if n == self.max_seeds and not self.end:
            self.end = f"sweep.max_seeds={n} is reached"
        self._say(n)

    @property
    def _outrun(self) -> set[str]:
        """The arms that left as worse than the best; their runs still say how much seeds differ."""
        return {each.name for standings in self.looks.values() for each in standings if not each.is_left}

    def _results(self, store: Store) -> dict[str, list[Result]]:
        """Return the results of each arm, marked where they are at chance."""
        names = {cell.run_id: arm.name for arm in self.arms for cell in arm.runs if cell.is_over and cell.run_id}
        found: dict[str, list[Result]] = {arm.name: [] for arm in self.arms}
        read = read_results(queries.fetch(store, list(names)))
        for result in mark_collapsed(list(read), lambda result: read_predictions(store, result.run_id)):
            found[names[result.run_id]].append(result)
        return found

    def _say(self, n: int) -> None:
        best = next((each for each in self.looks.get(n, []) if each.is_best), None)
        out = sum(bool(arm.out) for arm in self.arms)
        text = f"best is {best.name} at {best.mean:.4f}" if best else "no cell is left"
        console.say(f"race, after {n} seeds: {text}; {len(self.left)} of {len(self.arms)} cells left, {out} out")


def _arms(cells: Sequence[Sequence[str]], compose: Compose) -> list[Arm]:
    """Return the arms, each once; raise UserError where their test accuracies may not be compared, or decide."""
    arms: dict[str, Arm] = {}
    rates: dict[tuple[str, ...], str] = {}
    tested: dict[str, str] = {}
    for overrides in cells:
        cfg, data, identity = identify(compose([*overrides, "seed=0"]))
        if cfg.rerun:
            raise UserError("rerun=true: sweep.seeds=auto counts on what is done; give one of them")
        if cfg.get("claim"):
            raise UserError("sweep.seeds=auto: looks for the best cell or settles claims; give cells of one kind")
        names = {group: name for group, name in name_parts(cfg, data).items() if group != "seed"}
        tested.setdefault(data.ready.test_digest, data.ready.name)
        alike = tuple(each for each in overrides if not each.lstrip("+").startswith("optim.lr="))
        rate = next((each for each in overrides if each not in alike), "")
        if rates.setdefault(alike, rate) != rate:
            raise UserError(f"{rate}: sweep.seeds=auto decides by test accuracy, and learning rates are chosen by "
                            "validation; give a number of seeds")  # fmt: skip
        arms.setdefault(identity, Arm(name_run(cfg, names), overrides))
    if len(tested) > 1:
        raise UserError(f"sweep.seeds=auto: compares cells on the same test images, and these are of several sets: "
                        f"{', '.join(sorted(set(tested.values())))}; sweep each alone")  # fmt: skip
    if len(arms) < 2:
        raise UserError("sweep.seeds=auto: compares cells, and this is one; give several, or a number of seeds")
    return list(arms.values())
