"""Run the claim of a file, wherever it is, and say whether it holds."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from digitlab.claims import words
from digitlab.claims.recipes import read_claim
from digitlab.claims.schema import Recipe
from digitlab.claims.verdict import BETTER, DIVERGED, REPRODUCED, WORSE
from digitlab.config.check import check
from digitlab.config.compose import compose, configuration
from digitlab.config.errors import UserError, user_errors
from digitlab.documents.badge import badge
from digitlab.platform import console
from digitlab.report.judged import followed, outcomes
from digitlab.report.runs import read_predictions, read_results
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training.api import train

HOLDS, FAILS, UNDECIDED = 0, 1, 3  # exit codes
CODES = {REPRODUCED: HOLDS, BETTER: HOLDS, DIVERGED: HOLDS, WORSE: FAILS}
COLOURS = {HOLDS: "#2e7d32", FAILS: "#b3261e", UNDECIDED: "#5f6368"}


def check_claim(store: Store, file: Path, seeds: int, badge_file: Path | None) -> int:
    """Run the recipe of a claim's `file` with so many seeds, what is not done yet; return the exit code.

    Raises UserError, before anything is run, where the file is no claim or the badge cannot be written.
    """
    if badge_file and not badge_file.absolute().parent.is_dir():
        raise UserError(f"--badge={badge_file}: must be a file in a folder that is there")
    with _as_choice(file) as (folder, override):
        with configuration():
            check(compose(f"claim={file.stem}", override))
            claim = read_claim(file.stem, override)
        runs = []
        for seed in range(seeds):
            console.say(f"\nseed {seed + 1} of {seeds}")
            keys = {"seed": seed, "tracking.experiment": store.experiment}
            runs.append(train(f"claim={file.stem}", config_dir=folder, **keys))
    store.open(create=False)
    results = list(read_results(queries.fetch(store, [run.id for run in runs])))
    recipes = {run.fingerprint: Recipe(claim.name) for run in runs}
    found = followed(store, recipes, results, cache(partial(read_predictions, store)), lambda _: claim)
    (outcome,) = outcomes(found, lambda _: claim)
    console.say(words.paragraph(outcome))
    code = CODES.get(outcome.verdict.word, UNDECIDED)
    if badge_file:
        text = f"{outcome.verdict.word.lower()}: {words.accuracy(outcome)}, n = {outcome.cell.n}"
        with user_errors(f"--badge={badge_file}"):
            badge_file.write_text(badge(f"{claim.name} {claim.accuracy}", text, COLOURS[code]))
        console.say(f"written to {badge_file}")
    return code


@contextmanager
def _as_choice(file: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder in which `file` is a choice of the group claim, and the override that has Hydra look there."""
    if not file.exists():
        raise UserError(f"{file}: there is no such file")
    if file.suffix != ".yaml" or not file.is_file():
        raise UserError(f"{file}: must be a YAML file that describes a claim")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "claim").mkdir()
        shutil.copy(file, Path(folder) / "claim")
        yield Path(folder), f"hydra.searchpath=[{json.dumps(f'file://{folder}')}]"
