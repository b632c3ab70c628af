"""Patches of a checkout, applied to a clean clone."""

import subprocess
from pathlib import Path

import pytest

from digitlab.platform import git


def run_git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=me", "-c", "user.email=me@here", "-c", "init.defaultBranch=main")
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout of one commit, in a folder with a space and an umlaut in its name."""
    folder = tmp_path / "a cöpy"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "net.py").write_text("layers = 1\n" * 9)
    (folder / "table.bin").write_bytes(bytes(range(256)))
    (folder / "gone.py").write_text("")
    (folder / ".gitignore").write_text("secret.py\n")
    run_git(folder, "init", "-q")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", "one")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    "setting", ["", "diff.noprefix=true", "color.diff=always", "diff.context=0", "diff.external=false"]
)
def test_the_patch_restores_the_files_in_a_clean_clone(checkout, tmp_path, setting):
    run_git(tmp_path, "clone", "-q", str(checkout), "clone")
    (checkout / "src" / "net.py").write_bytes(b"layers = 1\n" * 4 + b"name = '\xe9'\r\n" + b"layers = 1\n" * 4)
    (checkout / "table.bin").write_bytes(bytes(range(255, -1, -1)))
    (checkout / "gone.py").unlink()
    new = [checkout / "src" / name for name in ("__init__.py", "new ? é.py", "secret.py")]
    for file in new:
        file.write_text("" if file.stem == "__init__" else "no end of line")
    (checkout / "src" / "new x é.py").write_text("password")
    if setting:
        run_git(checkout, "config", *setting.split("="))
    found = git.read_checkout(checkout / "src", [*new, checkout / "src" / "net.py", tmp_path / "elsewhere.py"])
    assert found.commit == run_git(checkout, "rev-parse", "HEAD").strip()
    assert found.is_dirty
    (tmp_path / "patch").write_bytes(found.patch)
    run_git(tmp_path / "clone", "apply", str(tmp_path / "patch"))
    not_stored = {"src/new x é.py", "src/secret.py"}  # not imported; ignored
    assert content(tmp_path / "clone") == {
        file: held for file, held in content(checkout).items() if file not in not_stored
    }


def test_a_stray_file_does_not_make_a_checkout_dirty_and_an_imported_one_does(checkout):
    stray = checkout / "src" / "stray.py"
    stray.write_text("")
    (checkout / "src" / "net.py").touch()
    assert git.read_checkout(checkout, [checkout / "src" / "net.py"])[1:] == (False, b"")
    assert git.read_checkout(checkout, [])[1:] == (False, b"")
    assert git.read_checkout(checkout, [stray]).is_dirty


def test_a_patch_that_is_too_large_is_left_out(checkout, monkeypatch):
    (checkout / "table.bin").write_bytes(bytes(range(255, -1, -1)))
    whole = git.read_checkout(checkout, [])
    monkeypatch.setattr(git, "LARGEST_PATCH", len(whole.patch))
    assert git.read_checkout(checkout, []) == whole
    monkeypatch.setattr(git, "LARGEST_PATCH", len(whole.patch) - 1)
    assert git.read_checkout(checkout, []) == (whole.commit, True, b"")


def test_outside_a_checkout_and_without_git_there_is_no_result_and_no_output(checkout, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git.read_checkout(tmp_path, [tmp_path / "net.py"]) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.read_checkout(checkout, []) is None
    assert capfd.readouterr() == ("", "")
