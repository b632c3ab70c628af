"""Run the claim of a file, wherever it is, and say whether it holds."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from digitlab import CONF
from digitlab.claims import words
from digitlab.claims.recipes import read_claim
from digitlab.claims.schema import Recipe
from digitlab.claims.verdict import BETTER, DIVERGED, REPRODUCED, WORSE
from digitlab.config.check import check
from digitlab.config.compose import choices_of, compose, configuration
from digitlab.config.errors import UserError, user_errors
from digitlab.config.files import check_file
from digitlab.documents.badge import badge
from digitlab.platform import console
from digitlab.platform.text import did_you_mean
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

    Raises UserError, before anything is run, where the file is no claim that can be judged or the badge cannot be
    written.
    """
    if badge_file:
        _check_badge(badge_file)
    with _as_choice(file) as (folder, name):
        with user_errors(str(file)), configuration():
            composed = compose(f"claim={name}", choices_of(folder))
            if not OmegaConf.select(composed, "claim.document"):
                raise UserError("claim.document: must be given")
            if check(composed).evaluate_on == "none":
                raise UserError("evaluate_on=none: a claim is judged by the test; allowed here: best, last")
            claim = replace(read_claim(name, choices_of(folder)), name=file.stem)
            if claim.accuracy is None:
                raise UserError("claims no accuracy, so there is nothing to judge; it must give claim.accuracy")
        runs = []
        for seed in range(seeds):
            console.say(f"\nseed {seed + 1} of {seeds}")
            keys = {"seed": seed, "tracking.uri": store.uri, "tracking.experiment": store.experiment}
            try:
                runs.append(train(f"claim={name}", config_dir=folder, **keys))
            except UserError as error:
                raise UserError(f"{file}: {error}") from error
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
            badge_file.write_text(badge(f"{claim.name} {claim.claimed}", text, COLOURS[code]), "utf-8")
        console.say(f"written to {badge_file}")
    return code


@contextmanager
def _as_choice(file: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder in which `file` is a choice of the group claim, and its name there.

    What a file is called may be no name to Hydra, or that of another claim.
    """
    if not file.exists():
        raise UserError(f"{file}: there is no such file")
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise UserError(f"{file}: must be a file that describes a claim, and end in .yaml or .yml")
    _check_form(file)
    name = "own_" + re.sub(r"\W+", "_", file.stem, flags=re.ASCII)[:100]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "claim").mkdir()
        shutil.copy(file, Path(folder) / "claim" / f"{name}.yaml")
        yield Path(folder), name


def _check_form(file: Path) -> None:
    """Raise UserError where `file` is no claim by its form, of which Hydra would speak as of its own."""
    check_file(file)
    text = file.read_text("utf-8").strip()
    if not text:
        raise UserError(f"{file}: is empty; docs/your-claim.md has an example")
    if not re.match(r"#\s*@package\s+_global_\s*$", text, re.M):
        raise UserError(f"{file}: its first line must be # @package _global_")
    content: Any = OmegaConf.load(file) if re.search(r"^[^#\s]", text, re.M) else {}
    if not hasattr(content, "items"):
        raise UserError(f"{file}: must be a mapping of keys, claim among them")
    if not hasattr(claim := content.get("claim") or {}, "items"):
        raise UserError(f"{file}: claim={claim}: must be a mapping, such as claim: {{document: NAME, accuracy: 0.98}}")
    for base in content.get("defaults") if OmegaConf.is_list(content.get("defaults")) else ():
        if isinstance(base, str) and base != "_self_" and not (CONF / "claim" / f"{base}.yaml").is_file():
            bases = [f"base/{each.stem}" for each in sorted((CONF / "claim" / "base").glob("*.yaml"))]
            meant = did_you_mean("", base, bases)
            raise UserError(
                f"{file}: defaults: {base}: not found; allowed: {', '.join(bases)}, or a claim of conf/claim{meant}"
            )


def _check_badge(file: Path) -> None:
    """Raise UserError where a badge cannot be written, before hours of training."""
    if file.suffix != ".svg":
        raise UserError(f"--badge={file}: must end in .svg")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"--badge={file}: must be a file in a folder that is there")
    with user_errors(f"--badge={file}"):
        if file.exists():
            file.open("a").close()
        else:
            tempfile.TemporaryFile(dir=file.absolute().parent).close()
