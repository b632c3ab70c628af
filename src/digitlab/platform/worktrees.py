"""Check out commits beside a repository's own files, in worktrees that do not outlive their use.

They lie inside the repository's .git folder. What a killed process left there, the next one removes.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError

from filelock import FileLock, Timeout

from digitlab.platform import git

NAME = "digitlab-worktrees"  # of the folder, and of its lock


@contextmanager
def worktrees(folder: Path) -> Iterator[Callable]:
    """Give `checkout(commit)`, a context of a worktree of the repository that contains `folder`.

    Raises ValueError where there is no repository, or where another process has worktrees in it.
    """
    common = git.common_folder(folder)
    lock = FileLock(common / f"{NAME}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError("another digitlab has worktrees in this repository; wait for its end") from None

    @contextmanager
    def checkout(commit: str) -> Iterator[Path]:
        place = common / NAME / f"digitlab-{commit[:12]}"
        try:
            git.add_worktree(folder, place, commit)
            yield place
        except CalledProcessError as error:
            raise ValueError(f"{commit[:12]}: git cannot check it out: {' '.join(map(str, error.cmd))}") from error
        finally:
            _remove_all(common)

    try:
        _remove_all(common)
        yield checkout
    finally:
        lock.release()


def _remove_all(common: Path) -> None:
    """Remove all of our worktrees and git's records of them, which may be half made: `git worktree` keeps such."""
    shutil.rmtree(common / NAME, ignore_errors=True)
    for record in (common / "worktrees").glob("digitlab-*"):
        place = record / "gitdir"
        if (
            not place.exists()
            or not place.read_text().strip()
            or Path(place.read_text().strip()).is_relative_to(common / NAME)
        ):
            shutil.rmtree(record, ignore_errors=True)
