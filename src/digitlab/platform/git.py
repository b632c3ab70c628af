"""Compare the code that runs with what is committed."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LARGEST_PATCH = 10 * 2**20  # bytes
# Make a patch that `git apply` can read, whatever the user's git settings are.
AS_PATCH = ("--binary", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/",
            "--dst-prefix=b/", "--ignore-submodules=dirty")  # fmt: skip


class Checkout(NamedTuple):
    """The commit of a checkout, and the differences to it as a patch, which is empty if above LARGEST_PATCH."""

    commit: str
    is_dirty: bool
    patch: bytes


def read_checkout(folder: Path, imported: Iterable[Path]) -> Checkout | None:
    """Compare the checkout that contains `folder` with its commit; return None outside a checkout or without git.

    The patch holds the changes of tracked files, and the `imported` files that are neither tracked nor ignored.
    `git apply` on the commit restores them.
    """
    try:
        commit, top = _git(folder, "rev-parse", "HEAD", "--show-toplevel").decode().splitlines()
        root = Path(top)
        inside = {file for file in (each.resolve() for each in imported) if file.is_relative_to(root.resolve())}
        untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *sorted(inside))
        patch = _git(root, "diff", *AS_PATCH, "HEAD")
        for file in filter(None, untracked.split(b"\0") if inside else ()):
            patch += _git(root, "diff", *AS_PATCH, "--no-index", "--", "/dev/null", os.fsdecode(file))
    except (OSError, subprocess.CalledProcessError):
        return None
    return Checkout(commit, bool(patch), patch if len(patch) <= LARGEST_PATCH else b"")


def commits_between(folder: Path, old: str, new: str) -> list[str]:
    """Return the commits that `new` has and `old` has not, newest first, each as "1a2b3c4 its subject"."""
    try:
        said = _git(folder, "log", "--no-show-signature", "--no-decorate", "--oneline", "--no-color", f"{old}..{new}")
    except (OSError, subprocess.CalledProcessError):
        return []
    return said.decode(errors="replace").splitlines()


def common_folder(folder: Path) -> Path:
    """Return the .git folder of the repository that contains `folder`; raise ValueError where there is none."""
    try:
        return Path(_git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir").decode().strip())
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(f"{folder}: is in no git repository, or there is no git") from None


def find_commit(folder: Path, name: str) -> str | None:
    """Return the full hash of the commit that git knows by `name`; None where there is none."""
    try:
        return (
            _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def line_of_commits(folder: Path, first: str, last: str) -> list[tuple[str, str]]:
    """Return the commits from `first` to `last` with their subjects, of merged branches only the merges.

    Raises ValueError where `first` is no ancestor of `last`.
    """
    if _git(folder, "merge-base", first, last).decode().strip() != first:
        raise ValueError(f"{first[:10]} is no ancestor of {last[:10]}")
    listed = ["log", "--no-show-signature", "--reverse", "--first-parent", "--format=%H %s"]
    said = _git(folder, "show", "--no-patch", "--no-show-signature", "--format=%H %s", first)
    said += _git(folder, *listed, f"{first}..{last}")
    commits = [line.partition(" ") for line in said.decode(errors="replace").splitlines()]
    return [(commit, subject) for commit, _, subject in commits]


def add_worktree(folder: Path, place: Path, commit: str) -> None:
    """Check `commit` out in a new worktree at `place`, without running anybody's hooks."""
    _git(folder, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", "--force", place, commit)


def _git(folder: Path, *arguments: str | Path) -> bytes:
    """Return git's output, cut off above LARGEST_PATCH. Git takes no locks, so that concurrent runs do not wait."""
    command = ["git", "-C", folder, "--no-optional-locks", "--literal-pathspecs", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout  # a pipe
        output = process.stdout.read(LARGEST_PATCH + 1)
    has_failed = process.returncode not in (0, 1)  # 1: --no-index found differences
    if has_failed and len(output) <= LARGEST_PATCH:
        raise subprocess.CalledProcessError(process.returncode, command)
    return output
