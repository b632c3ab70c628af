"""Find the commit that changed the accuracy: train commits between two, each in a worktree of its own."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from digitlab import REPOSITORY
from digitlab.analysis.bisection import first_changed
from digitlab.analysis.cells import ALPHA
from digitlab.analysis.groups import Difference, paired_difference
from digitlab.analysis.records import Result
from digitlab.config.arguments import check_arguments
from digitlab.platform import console, git
from digitlab.platform.signals import end_with_parent, exit_on_signals
from digitlab.platform.text import count
from digitlab.platform.worktrees import worktrees
from digitlab.report.runs import read_results
from digitlab.report.versus import PASSES, UNDECIDED, is_identical, points, predict_from
from digitlab.tracking import journal, queries, references
from digitlab.tracking.store import Store

OURS = ("seed", "vs", "rerun", "tracking", "sweep", "report", "hydra")  # keys that are set here, or are not of one run
SHOWN = 9  # characters of a commit


@exit_on_signals()
def bisect(store: Store, good: str, bad: str, settings: Sequence[str], seeds: int) -> int:
    """Print which commit between `good` and `bad` changed the accuracy of `settings`; return the exit code.

    Raises ValueError for what is no commit and no run, and where the settings cannot be trained at `good` or `bad`.
    """
    folder = Path.cwd()
    git.common_folder(folder)
    settings = _check(settings) or _settings_of(store, folder, good)
    first, last = (_commit(store, folder, name) for name in (good, bad))
    commits = git.line_of_commits(folder, first, last)
    if len(commits) < 2:
        raise ValueError(f"{good} and {bad} are the same commit")
    console.say(f"{count(len(commits) - 1, 'commit')} after {_name(commits[0])}: {shlex.join(settings)}")
    with worktrees(folder) as checkout:
        trained = [_Commit(name, subject, settings, store, checkout) for name, subject in commits]
        return _search(trained, seeds)


def _search(commits: Sequence["_Commit"], seeds: int) -> int:
    good, bad = commits[0], commits[-1]
    for end in (good, bad):
        if end.train(0) is None:
            raise ValueError(f"{end.name}: cannot be trained: {end.error}")
    if bad.is_same(good):
        console.say(f"Nothing to find: {bad.name} gives the bits of {good.name}.")
        return UNDECIDED
    whole = _difference(good, bad, seeds)
    if not (whole and whole.is_shown):
        shown = f" by {_by(whole)}" if whole else ""
        console.say(f"Cannot tell: {bad.name} is not shown to differ from {good.name}{shown}; --seeds takes more.")
        return UNDECIDED
    console.say(f"{bad.name} differs from {good.name} by {_by(whole)}")
    level = ALPHA / (len(commits) - 1).bit_length()  # shared among the commits that may be asked

    def is_shown(found: Difference | None) -> bool:
        return found is not None and found.p_value < level

    def is_changed(state: int) -> bool | None:
        commit = commits[state]
        if commit.train(0) is None:
            console.say(f"{commit.name} is left out: {commit.error}")
            return None
        answer = next((answer for other, answer in told.items() if commit.is_same(other)), None)
        if answer is None:
            from_good, from_bad = (_difference(end, commit, seeds) for end in (good, bad))
            answer = True if is_shown(from_good) else False if is_shown(from_bad) else None
            tested.append(commit)
        if answer is not None:
            told[commit] = answer
        words = {True: f"differs from {good.name}", False: f"is as {good.name}", None: "cannot be told"}
        console.say(f"{commit.name} {words[answer]}")
        return answer

    told: dict[_Commit, bool] = {good: False, bad: True}
    tested: list[_Commit] = []
    low, high = first_changed(len(commits), is_changed)
    suspects = commits[low + 1 : high + 1]
    if len(suspects) > 1:
        console.say("Cannot tell: it is one of " + ", ".join(f"{each.name} ({each.subject})" for each in suspects))
        return UNDECIDED
    (found,) = suspects
    basis = f" (commits between were told apart at p < {level:.2g}, which shares an error of 5 %)" if tested else ""
    console.say(f"{found.name} changed the accuracy: {found.subject}{basis}")
    return PASSES


@dataclass(eq=False)
class _Commit:
    """A commit, and what it came to by seed: None where it could not be trained."""

    commit: str
    subject: str
    settings: Sequence[str]
    store: Store
    checkout: Any
    results: dict[int, Result | None] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        return self.commit[:SHOWN]

    @property
    def experiment(self) -> str:
        """An experiment of its own: a run of another commit is no answer, whatever its fingerprint."""
        asked = hashlib.sha256("\0".join(self.settings).encode()).hexdigest()[:6]
        return f"bisect-{self.commit[:12]}-{asked}"

    def train(self, *seeds: int) -> list[Result] | None:
        """Return the results of these seeds, trained where that has not been done; None where one failed."""
        missing = [seed for seed in seeds if seed not in self.results]
        self.results |= {seed: found for seed in missing if (found := self._find(seed))}
        if missing := [seed for seed in missing if seed not in self.results]:
            with self.checkout(self.commit) as place:
                for seed in missing:
                    self.results[seed] = self._train(place, seed)
        found = [self.results[seed] for seed in seeds]
        return None if None in found else [each for each in found if each]

    def is_same(self, other: "_Commit") -> bool:
        """Say whether both give the same bits for the first seed."""
        one, two = self.train(0), other.train(0)
        return bool(one and two and is_identical(one, two, predict_from(self.store)))

    def _train(self, place: Path, seed: int) -> Result | None:
        script = place / "src" / "train.py"
        start = [str(script)] if script.is_file() else ["-m", "digitlab", "train"]
        said = [*self.settings, f"seed={seed}", f"tracking.experiment={self.experiment}"]
        data = os.environ.get("DIGITLAB_DATA") or str(REPOSITORY / "data")
        with subprocess.Popen(
            [sys.executable, *start, *said],
            cwd=place,
            # HYDRA_FULL_ERROR is set here and now, so that Hydra leaves errors to us; a child is to say them in a line.
            env=os.environ
            | {"MLFLOW_TRACKING_URI": self.store.uri, "DIGITLAB_DATA": data, "HYDRA_FULL_ERROR": ""}
            | {journal.FOLDER: str(journal.root())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=partial(end_with_parent, os.getpid()),
        ) as process:
            try:
                output, _ = process.communicate()
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            self.error = next(reversed(output.strip().splitlines()), f"exit code {process.returncode}")
            return None
        found = self._find(seed)
        if found:
            console.say(f"{self.name} seed {seed}: test accuracy {found.accuracy:.4f} ({self.subject})")
        else:
            self.error = "its run has no test accuracy"
        return found

    def _find(self, seed: int) -> Result | None:
        """Return the result of a seed, if it is there, as after an interrupted search."""
        store = Store(self.store.uri, self.experiment)
        if not store.peek():
            return None
        found = read_results(queries.search(store, f"params.seed = '{seed}' and tags.done = 'true'"))
        return next((each for each in found if each.is_tested), None)


def _difference(one: _Commit, other: _Commit, seeds: int) -> Difference | None:
    """Return how much better `other` is over paired seeds; None where a seed of them could not be trained."""
    first, second = one.train(*range(seeds)), other.train(*range(seeds))
    if not first or not second:
        return None
    pairs = [(a.accuracy, b.accuracy) for a, b in zip(first, second, strict=True)]
    return paired_difference(pairs, 1 / first[0].test_images)


def _by(found: Difference) -> str:
    basis = f"({found.counts[0]} pairs of seeds, p = {found.p_value:.2g})"
    return f"{points(found.mean)} ± {points(found.half)} points {basis}"


def _name(commit: tuple[str, str]) -> str:
    return f"{commit[0][:SHOWN]} ({commit[1]})"


def _check(settings: Sequence[str]) -> list[str]:
    """Return the settings; raise UserError or ValueError for what is none, or is set here."""
    check_arguments(settings)
    for each in settings:
        key = each.lstrip("+~").partition("=")[0]
        if "=" not in each or each.startswith("-"):
            raise ValueError(f"{each}: must be KEY=VALUE, what digitlab train is told")
        if key.partition(".")[0].partition("/")[0] in OURS:
            raise ValueError(f"{each}: is not to be given here; --seeds says how many, --experiment where runs are")
    return list(settings)


def _commit(store: Store, folder: Path, name: str) -> str:
    """Return the commit that a user means by `name`, one of git's or that of a run."""
    if found := git.find_commit(folder, name):
        return found
    run = _run(store, name)
    commit, tags = git.find_commit(folder, run.data.tags.get("mlflow.source.git.commit", "")), run.data.tags
    if tags.get("git.dirty") == "true":
        raise ValueError(f"{name}: ran with uncommitted changes, so no commit has its code")
    if not commit:
        raise ValueError(f"{name}: its commit is not in this repository")
    return commit


def _run(store: Store, name: str) -> Any:
    try:
        store.open(create=False)
        return references.resolve(store, name)
    except ValueError as error:
        raise ValueError(f"{name}: is no commit here, and no run: {error}") from error


def _settings_of(store: Store, folder: Path, name: str) -> list[str]:
    """Return what the run `name` was told; none for a commit."""
    if git.find_commit(folder, name):
        return []
    run = _run(store, name)
    if "mlflow.parentRunId" in run.data.tags:
        raise ValueError(f"{name}: is of a sweep; give what is to be trained as KEY=VALUE")
    words = [each for each in shlex.split(run.data.tags.get("command", "")) if "=" in each and not each.startswith("-")]
    return [each for each in words if each.lstrip("+~").partition("=")[0].partition(".")[0] not in OURS]
