"""A sweep that gives more seeds to the cells that may still be the best."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from omegaconf import OmegaConf

from digitlab.analysis import race
from digitlab.analysis.race import Standing
from digitlab.analysis.records import Result, mark_collapsed
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.report.runs import read_predictions, read_results
from digitlab.sweep.plan import Compose, duration, estimate_seconds
from digitlab.sweep.seeds import Arm, Seeds, identified, shared_name
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training.setup import name_parts, name_run


class Race(Seeds):
    """A race of cells, whose looks say which may still be the best.

    `cells` are the overrides of each arm, without a seed; `compose` makes a configuration of overrides. Raises
    UserError where the cells cannot be compared with each other by their test accuracy.
    """

    word, leaves = "race", "left"

    def __init__(self, cells: Sequence[Sequence[str]], compose: Compose):
        arms = _arms(cells, compose)
        cfg = compose(cells[0])
        super().__init__(arms, cfg, compose)
        self.level, self.margin = race.level(self.max_seeds), OmegaConf.select(cfg, "report.margin")
        self.looks: dict[int, list[Standing]] = {}

    def announce(self, store: Store | None) -> str:
        once = estimate_seconds(store, [arm.runs[0] for arm in self.arms]) if store else None
        total = duration(None if once is None else once * self.max_seeds)
        return self.describe(f"race: {len(self.arms)} cells, compared", f", {total} in all")

    def records(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        names = [arm.name for arm in self.left]
        content = {"max_seeds": self.max_seeds, "level": self.level, "margin": self.margin, "end": self.end}
        content |= {"looks": {n: [asdict(each) for each in standings] for n, standings in self.looks.items()}}
        content |= {"left": names, "out": {arm.name: arm.out for arm in self.arms if arm.out}}
        tags = {"race.looks": ", ".join(map(str, self.looks)), "race.left": ", ".join(names)[:5000]}
        return {"race.json": json.dumps(content, indent=1)}, tags | {"race.end": self.end}

    def look(self, store: Store, n: int) -> None:
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
    for overrides, cfg, data, identity in identified(cells, compose):
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
    if twice := shared_name(arms.values()):
        raise UserError(f"sweep.seeds=auto: {twice}: several cells have this name, for they differ in what no name "
                        "says, such as trainer or metrics; sweep each alone")  # fmt: skip
    if len(arms) < 2:
        raise UserError("sweep.seeds=auto: compares cells, and this is one; give several, or a number of seeds")
    return list(arms.values())
