"""Folders too large for memory: decoded once into a file, which is whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from digitlab.data import decoded
from digitlab.data.datamodule import ImageData
from digitlab.data.folders import image_folder
from digitlab.data.on_disk import OnDisk
from digitlab.training import setup
from digitlab.training.setup import identify

KINDS = {"gray": "L", "colour": "RGB", "transparent": "RGBA", "deep": "I;16"}


@pytest.fixture(params=KINDS)
def root(request, tmp_path) -> Path:
    """A folder of 60 images in 2 classes, one kind each."""
    return write(tmp_path / "images", KINDS[request.param])


def write(root: Path, mode: str = "RGB", count: int = 30) -> Path:
    drawn = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            if mode == "I;16":
                image = Image.fromarray(drawn.integers(0, 4000, (9, 9), dtype=np.uint16))
            else:
                channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
                image = Image.fromarray(drawn.integers(0, 256, (9, 9, *channels), dtype=np.uint8))
            if mode == "RGBA":  # white shapes, which show on black
                image.paste((255, 255, 255), (0, 0, 9, 9), None)
                image.putalpha(Image.fromarray(drawn.integers(0, 2, (9, 9), dtype=np.uint8) * 255))
            image.save(root / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Take a folder of a few images for a large one."""
    monkeypatch.setattr(decoded, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(decoded, "FOLDER", tmp_path / "decoded")
    monkeypatch.setattr("digitlab.data.pictures.AT_ONCE", 7)


def in_memory(root: Path, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "LARGEST_IN_MEMORY", 2**40)
        return image_folder(root, **settings)


def files_of(tmp_path: Path) -> list[str]:
    return sorted(each.name for each in (tmp_path / "decoded").rglob("*") if each.is_file())


def no_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("images are decoded again")

    monkeypatch.setattr(decoded, "decode", fail)


def test_images_batches_digest_and_words_are_those_in_memory(root, tmp_path, capsys):
    expected = in_memory(root)
    said = capsys.readouterr().out
    found = image_folder(root)
    assert capsys.readouterr().out == said
    assert isinstance(found.train[0], OnDisk)
    assert torch.equal(found.train[0].cpu(), expected.train[0])
    assert files_of(tmp_path) == ["about.json", "lock", "pixels"]
    ours, theirs = ImageData(image_folder, root=root), ImageData(in_memory, root=root)
    for data in (ours, theirs):
        data.setup()
    assert ours.digest == theirs.digest
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for (a, labels), (b, wanted) in zip(getattr(ours, loader)(), getattr(theirs, loader)(), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(labels, wanted)


def test_images_are_decoded_once(tmp_path, monkeypatch):
    root = write(tmp_path / "images")
    first = image_folder(root).train[0].cpu()
    no_decoding(monkeypatch)
    assert torch.equal(image_folder(root).train[0].cpu(), first)


@pytest.mark.parametrize("change", ["a file", "a name", "one more", "the decoded file"])
def test_what_has_changed_is_decoded_again(tmp_path, change):
    root = write(tmp_path / "images")
    image_folder(root)
    if change == "a file":
        Image.new("RGB", (9, 9), "red").save(root / "a" / "3.png")
    elif change == "a name":
        (root / "a" / "3.png").rename(root / "b" / "x.png")
    elif change == "one more":
        Image.new("RGB", (9, 9), "red").save(root / "b" / "more.png")
    else:
        file = next((tmp_path / "decoded").rglob("pixels"))
        content = bytearray(file.read_bytes())
        content[1000] ^= 1
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="pixels is damaged; decoding the images again"):
            image_folder(root)
    found, expected = image_folder(root), in_memory(root)
    assert torch.equal(found.train[0].cpu(), expected.train[0])
    assert torch.equal(found.train[1], expected.train[1])


def test_decoding_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    root = write(tmp_path / "images")
    program = f"""
import os, signal
from pathlib import Path
from digitlab.data import decoded, pictures
from digitlab.data.folders import image_folder
decoded.LARGEST_IN_MEMORY, decoded.FOLDER, pictures.AT_ONCE = 0, Path({str(tmp_path / "decoded")!r}), 7
real = decoded.decode
def some(files, size):
    for number, each in enumerate(real(files, size)):
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield each
decoded.decode = some
image_folder(Path({str(root)!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(decoded.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=120).returncode == -9
    assert files_of(tmp_path) == ["journal.part", "lock", "pixels.part"]
    left, real = [], decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda files, size: left.append(len(files)) or real(files, size))
    found = image_folder(root)
    assert left == [60 - 4 * 7]
    assert torch.equal(found.train[0].cpu(), in_memory(root).train[0])
    assert files_of(tmp_path) == ["about.json", "lock", "pixels"]


def test_an_unreadable_image_leaves_no_decoded_file(tmp_path):
    root = write(tmp_path / "images")
    (root / "b" / "5.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"5\.png is not a readable image"):
        image_folder(root, size=9)
    assert "about.json" not in files_of(tmp_path)
    Image.new("RGB", (9, 9), "red").save(root / "b" / "5.png")
    assert torch.equal(image_folder(root, size=9).train[0].cpu(), in_memory(root, size=9).train[0])


def test_a_run_is_the_same_from_memory_and_from_disk(harness, tmp_path):
    root = write(tmp_path / "images")
    told = harness.compose("model=mlp", "data=image_folder", f"data.root={root}", "data.split=last")
    from_disk = identify(told)[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "LARGEST_IN_MEMORY", 2**40)
        setup._load.cache_clear()
        assert identify(told)[2] == from_disk
