"""What hydra/launcher=ray refuses before Ray is loaded; tests/services/test_ray.py runs sweeps on it."""

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from digitlab.config import errors
from digitlab.sweep import ray_folder

MISTAKES = {
    "hydra.launcher.address=head": "hydra.launcher.address=head: must be null or HOST:PORT, or auto",
    "hydra.launcher.address=ray://head:1": "hydra.launcher.address=ray://head:1: must be null or HOST:PORT, or auto",
    "hydra.launcher.n_jobs=0": "hydra.launcher.n_jobs=0: must be a whole number from 1 to 2147483647 or -1",
    "hydra.launcher.cpus=0.5": "hydra.launcher.cpus=0.5: must be a whole number from 1 to 2147483647",
    "hydra.launcher.gpus=1.5": "hydra.launcher.gpus=1.5: must be null, a whole number from 0 to 2147483647 or a number "
    "above 0 and below 1",
    "+hydra.launcher.cpu=2": "hydra.launcher.cpu: unknown key; allowed: hydra.launcher.address, hydra.launcher.cpus, "
    "hydra.launcher.gpus, hydra.launcher.n_jobs",
    "hydra.launcher.n_jobs=2": "hydra/launcher=ray: needs ray, of the extra ray: pip install '.[ray]' in "
    "digitlab's folder",
}  # fmt: skip


@pytest.mark.parametrize("told", MISTAKES)
def test_a_mistake_is_one_line(harness, monkeypatch, told):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "ray" else name)
    assert harness.main("sweep=smoke", "hydra/launcher=ray", told) == f"error: {MISTAKES[told]}"
    assert not harness.folder.exists()


def test_a_file_from_elsewhere_does_not_say_where_the_cells_and_their_passwords_go(harness, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: ray\n"
        "hydra: {launcher: {address: 'far.example:6379', n_jobs: 2}}\nsweep: {name: mine}\n"
    )
    end = harness.main("-cd", str(tmp_path), "sweep=mine")
    assert end.startswith("error: hydra.launcher.address=far.example:6379: not to be changed by a file; allowed"), end
    assert not harness.folder.exists()


def test_folders_of_killed_sweeps_are_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ray_folder, "LONGEST", 1000)
    left, alive, new = (tmp_path / f"digitlab-ray-{name}" for name in ("left", "alive", "new"))
    for folder in (left, alive, new):
        (folder / "ray").mkdir(parents=True)
    for folder in (left, alive):
        os.utime(folder, (0, 0))
    with FileLock(alive / "lock"):
        os.utime(alive, (0, 0))
        folder = ray_folder.Folder()
        made = Path(folder.make()).parent
        assert made.stat().st_mode & 0o777 == 0o700
        assert set(tmp_path.iterdir()) == {alive, new, made}
        folder.remove()
        assert set(tmp_path.iterdir()) == {alive, new}
