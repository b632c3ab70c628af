"""`digitlab bisect GOOD BAD`: on a repository of its own with a planted regression, and on made-up lines of commits."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from fake_store import FakeStore
from scipy import stats

from digitlab.analysis.bisection import first_changed
from digitlab.platform.worktrees import worktrees
from digitlab.report import bisect

TINY = [
    "model=mlp",
    "model.hidden=[{units: 32}]",
    "optim=sgd",
    "data=mnist5k",
    "data.test_fraction=0.8",
    "data.batch_size=8",
    "trainer=smoke",
]


def run_git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=me", "-c", "user.email=me@here", "-c", "init.defaultBranch=main")
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, subject: str, **files: str) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", subject)
    return run_git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository_of_one(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "a cöpy"
    folder.mkdir()
    run_git(folder, "init", "-q")
    commit(folder, "one", README="one")
    monkeypatch.chdir(folder)
    return folder


def test_the_first_changed_state_is_found_wherever_it_is():
    """Against a plain walk, for every place of the change and every state that cannot be told; with few questions."""
    for count in range(2, 12):
        for changed in range(1, count):
            for untold in (None, *range(1, count - 1)):
                asked = []

                def is_changed(state, changed=changed, untold=untold, asked=asked):
                    asked.append(state)
                    return None if state == untold else state >= changed

                low, high = first_changed(count, is_changed)
                assert low == max(state for state in range(changed) if state != untold)
                assert high == min(state for state in range(changed, count) if state != untold)
                assert len(asked) == len(set(asked)) <= (count - 1).bit_length() + (untold is not None)


def test_worktrees_are_gone_after_use_and_after_a_kill(repository_of_one, repository):
    head = run_git(repository_of_one, "rev-parse", "HEAD").strip()
    theirs = repository_of_one.parent / "digitlab-theirs"
    run_git(repository_of_one, "worktree", "add", "-q", "--detach", str(theirs))
    (repository_of_one / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh\ntouch ../hooked\n")
    (repository_of_one / ".git" / "hooks" / "post-checkout").chmod(0o755)
    program = (
        "import sys, time; from pathlib import Path; from digitlab.platform.worktrees import worktrees\n"
        f"with worktrees(Path()) as checkout, checkout('{head}') as place: print(place, flush=True); time.sleep(60)"
    )
    environment = {"PYTHONPATH": str(repository / "src"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        place = Path(process.stdout.readline().strip())
        assert (place / "README").read_text() == "one"
        with pytest.raises(ValueError, match="another digitlab has worktrees"), worktrees(repository_of_one):
            pass
        process.send_signal(signal.SIGKILL)
    assert place.exists()
    (repository_of_one / ".git" / "worktrees" / "digitlab-half").mkdir()  # git was killed while it made one
    (repository_of_one / ".git" / "worktrees" / "digitlab-half" / "locked").write_text("initializing")
    with worktrees(repository_of_one) as checkout:
        assert not place.exists()
        with suppress(KeyboardInterrupt), checkout(head) as place:
            assert run_git(place, "status", "--porcelain") == ""
            raise KeyboardInterrupt
        with checkout(head) as again:
            assert again == place
        assert not place.exists()
    listed = run_git(repository_of_one, "worktree", "list", "--porcelain")
    assert [line for line in listed.splitlines() if line.startswith("worktree ")] == [
        f"worktree {repository_of_one}",
        f"worktree {theirs}",
    ]
    assert not list(repository_of_one.parent.rglob("hooked"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["HEAD", "HEAD", "model=mlp"], "HEAD and HEAD are the same commit"),
        (["HEAD", "HEAD~1", "model=mlp"], "is no ancestor of"),
        (["HEAD~1", "nothing", "model=mlp"], "nothing: is no commit here, and no run: "),
        (["nothing", "HEAD"], "nothing: is no commit here, and no run: "),
        (["HEAD~1", "HEAD", "mlp"], "mlp: must be KEY=VALUE"),
        (["HEAD~1", "HEAD", "seed=3"], "seed=3: is not to be given here"),
        (["HEAD~1", "HEAD", "tracking.experiment=x"], "tracking.experiment=x: is not to be given here"),
        (["HEAD~1", "HEAD", "hydra.run.dir=x"], "hydra.run.dir: not to be changed from here"),
        (["HEAD~1", "HEAD", "--seeds", "1"], "Invalid value for '--seeds'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(harness, capsys, repository_of_one, arguments, words):
    commit(repository_of_one, "two", README="two")
    code = harness.main("bisect", *arguments, entry_point="digitlab")
    said = capsys.readouterr().err if code == 2 else code
    assert said.startswith("error: ")
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not harness.folder.exists()
    assert not list((repository_of_one / ".git").rglob("worktrees/*"))


@pytest.fixture
def trained(harness, monkeypatch) -> list[str]:
    """Have what a commit says of itself stand for its training; return the subjects of what was trained."""
    fake, trained = FakeStore(harness), []

    def train(commit, place, seed):
        trained.append(commit.subject)
        first, *others = map(float, (place / "accuracy").read_text().split())
        accuracy = [first, *others][seed] if others else first - 0.001 * seed
        if accuracy < 0:
            commit.error = "error: it says why"
            return None
        found = harness.client.get_experiment_by_name(commit.experiment)
        fake.experiment = found.experiment_id if found else harness.client.create_experiment(commit.experiment)
        fake.record("mlp", "adam", seed, accuracy)
        return commit._find(seed)

    monkeypatch.setattr(bisect._Commit, "_train", train)
    return trained


LINE = [("start", 0.95), ("neutral", 0.95), ("slip", 0.95), ("culprit", 0.9), ("after", 0.9), ("end", 0.9)]


@pytest.mark.table
@pytest.mark.parametrize(
    ("changes", "code", "words", "counts"),
    [
        ({}, 0, "{culprit} changed the accuracy: culprit", {"start": 3, "slip": 1, "culprit": 1, "end": 3}),
        ({"slip": 0.9}, 0, "{slip} changed the accuracy: slip", {"start": 3, "slip": 1, "neutral": 1, "end": 3}),
        # Other bits, and no other accuracy: three seeds to know that; a little better than before is a change, too.
        ({"slip": 0.9501}, 0, "{culprit} changed", {"start": 3, "slip": 3, "culprit": 1, "end": 3}),
        ({"slip": 0.97}, 0, "{slip} changed", {"start": 3, "slip": 3, "neutral": 1, "end": 3}),
        ({"slip": -1}, 3, "one of {slip} (slip), {culprit} (culprit)",
         {"start": 3, "slip": 1, "culprit": 1, "neutral": 1, "end": 3}),
        ({"culprit": 0.95, "after": 0.95, "end": 0.95}, 3, "Nothing to find", {"start": 1, "end": 1}),
        ({"end": -1}, 2, "{end}: cannot be trained: error: it says why", {"start": 1, "end": 1}),
        ({"end": 0.9501}, 3, "Cannot tell: {end} is not shown to differ", {"start": 3, "end": 3}),
    ],
)  # fmt: skip
def test_the_commit_is_found_and_neutral_ones_cost_one_run(
    harness, capsys, repository_of_one, trained, changes, code, words, counts
):
    commits = {}
    for subject, accuracy in LINE:
        commits[subject] = commit(
            repository_of_one, subject, accuracy=str(changes.get(subject, accuracy)), README=subject
        )
    command = ("bisect", commits["start"], "HEAD", "model=mlp", "--seeds", "3")
    said = words.format(**{subject: name[:9] for subject, name in commits.items()})
    for expected in (counts, {subject: 1 for subject, accuracy in changes.items() if accuracy < 0}):
        assert (harness.main(*command, entry_point="digitlab") or 0) == code
        captured = capsys.readouterr()
        assert said in captured.out + captured.err
        assert dict(Counter(trained)) == expected  # the second time only what failed
        trained.clear()
    assert run_git(repository_of_one, "worktree", "list").count("\n") == 1


def test_the_error_is_shared_among_the_commits_that_may_be_asked(harness, capsys, repository_of_one, trained):
    by_luck = (0.941, 0.935, 0.932)
    assert 0.05 / 3 < stats.ttest_rel(by_luck, (0.95, 0.949, 0.948)).pvalue < 0.05
    commits = {}
    for subject, accuracy in LINE:
        found = " ".join(map(str, by_luck)) if subject == "slip" else str(accuracy)
        commits[subject] = commit(repository_of_one, subject, accuracy=found, README=subject)
    command = ("bisect", commits["start"], "HEAD", "model=mlp", "--seeds", "3")
    assert harness.main(*command, entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert (
        f"{commits['culprit'][:9]} changed the accuracy: culprit (commits between were told apart at p < 0.017" in said
    )


def test_runs_name_commits_and_settings(harness, capsys, repository_of_one, trained):
    commits = [commit(repository_of_one, subject, accuracy=str(accuracy)) for subject, accuracy in LINE[2:4]]
    fake = FakeStore.__new__(FakeStore)
    fake.harness, fake.clock = harness, 1_700_000_000_000
    fake.experiment = harness.client.get_experiment_by_name("digitlab").experiment_id
    runs = [fake.record("mlp", "adam", seed, 0.9) for seed in range(3)]
    for run_id, name in zip(runs, commits, strict=False):
        harness.client.set_tag(run_id, "mlflow.source.git.commit", name)
        harness.client.set_tag(run_id, "command", "digitlab train model=mlp seed=4 'model.hidden=[{units: 8}]' vs=best")
    assert harness.main("bisect", *runs[:2], "--seeds", "2", entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert f"1 commit after {commits[0][:9]} (slip): model=mlp 'model.hidden=[{{units: 8}}]'\n" in said
    assert f"{commits[1][:9]} changed the accuracy: culprit" in said
    harness.client.set_tag(runs[1], "git.dirty", "true")
    for name, words in ((runs[1], "ran with uncommitted changes"), (runs[2], "its commit is not in this repository")):
        assert harness.main("bisect", runs[0], name, entry_point="digitlab") == 2
        assert f"error: bisect: {name}: {words}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_planted_regression_is_found_and_neutral_commits_cost_one_run(harness, capsys, repository, repository_of_one):
    for name in ("src", "conf"):
        shutil.copytree(repository / name, repository_of_one / name, ignore=shutil.ignore_patterns("__pycache__"))
    optim = (repository / "conf" / "optim" / "sgd.yaml").read_text().replace("lr: 1e-2", "lr: 0.1")
    good = commit(repository_of_one, "the code", **{"conf/optim/sgd.yaml": optim})
    commit(repository_of_one, "a neutral one", README="two")
    broken = commit(repository_of_one, "it cannot be run", **{"conf/optim/sgd.yaml": "_target_: nothing.Here\n"})
    neutral = commit(repository_of_one, "mended", **{"conf/optim/sgd.yaml": f"# words\n{optim}"})
    planted = commit(
        repository_of_one, "the regression", **{"conf/optim/sgd.yaml": f"{optim.replace('lr: 0.1', 'lr: 1e-6')}"}
    )
    bad = commit(repository_of_one, "a neutral one at the end", README="three")
    command = ("bisect", good, "HEAD", *TINY, "--seeds", "2")
    assert harness.main(*command, entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert f"{bad[:9]} differs from {good[:9]} by -" in said
    assert f"{neutral[:9]} is as {good[:9]}" in said
    assert f"{broken[:9]} is left out: error: " in said
    assert f"{planted[:9]} changed the accuracy: the regression" in said
    runs = {each.name: harness.client.search_runs([each.experiment_id]) for each in harness.client.search_experiments()}
    counts = {name.split("-")[1]: len(found) for name, found in runs.items() if name.startswith("bisect-")}
    assert counts == {good[:12]: 2, bad[:12]: 2, neutral[:12]: 1, planted[:12]: 1}
    assert run_git(repository_of_one, "worktree", "list").count("\n") == 1
    assert harness.main("bisect", broken, "HEAD", *TINY, "--seeds", "2", entry_point="digitlab") == 2
    assert f"{broken[:9]}: cannot be trained: error: " in capsys.readouterr().err
