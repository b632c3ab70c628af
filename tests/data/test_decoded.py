"""Folders too large for memory: decoded once into a file, which is whole or not there."""

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from digitlab.data import decoded
from digitlab.data.datamodule import ImageData
from digitlab.data.folders import image_folder
from digitlab.data.on_disk import OnDisk
from digitlab.data.pictures import decode
from digitlab.training import setup
from digitlab.training.setup import identify

KINDS = {"gray": "L", "colour": "RGB", "transparent": "RGBA", "deep": "I;16"}
SEVEN = 7 * 9 * 9 * 3  # bytes of images


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
    monkeypatch.setattr("digitlab.data.on_disk.AT_ONCE", SEVEN)


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


def kill_while_decoding(root: Path, tmp_path: Path) -> None:
    """Decode in a process that is killed after 4 of 9 parts."""
    real = decoded.decode

    def some(files, size):
        for number, each in enumerate(real(files, size)):
            if number == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            yield each

    if not (child := os.fork()):
        decoded.decode = some
        try:
            image_folder(root)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert files_of(tmp_path) == ["journal.part", "lock", "pixels.part"]


def count_decoded(monkeypatch) -> list[int]:
    """Return a list that gets how many files each decoding is told."""
    left, real = [], decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda files, size: left.append(len(files)) or real(files, size))
    return left


def test_decoding_that_was_killed_goes_on_where_it_was(root, tmp_path, monkeypatch):
    kill_while_decoding(root, tmp_path)
    left = count_decoded(monkeypatch)
    found = image_folder(root)
    assert left == [60 - 4 * 7]
    assert torch.equal(found.train[0].cpu(), in_memory(root).train[0])
    assert files_of(tmp_path) == ["about.json", "lock", "pixels"]


def test_what_cannot_be_read_of_a_killed_decoding_is_done_again(tmp_path, monkeypatch):
    root = write(tmp_path / "images", "RGBA")
    expected = in_memory(root).train[0]
    kill_while_decoding(root, tmp_path)
    (tmp_path / "decoded").rename(tmp_path / "killed")
    left = count_decoded(monkeypatch)
    for again, damage in [
        (60 - 3 * 7, lambda journal, pixels: journal.write_bytes(journal.read_bytes()[:-20])),
        (60 - 2 * 7, lambda journal, pixels: pixels.write_bytes(pixels.read_bytes()[: 2 * SEVEN + 5])),
        (60, lambda journal, pixels: journal.write_bytes(b"\xff")),
        (60, lambda journal, pixels: pixels.unlink()),
    ]:
        shutil.copytree(tmp_path / "killed", tmp_path / "decoded")
        folder = next((tmp_path / "decoded").iterdir())
        damage(folder / "journal.part", folder / "pixels.part")
        assert torch.equal(image_folder(root).train[0].cpu(), expected)
        assert left.pop() == again
        shutil.rmtree(tmp_path / "decoded")


@pytest.mark.parametrize("about", [b"", b"\xff", b"[1]", b'{"of": ', None])
def test_what_is_said_of_decoded_images_and_cannot_be_read_is_not_believed(tmp_path, about):
    root = write(tmp_path / "images")
    expected = image_folder(root).train[0].cpu()
    file = next((tmp_path / "decoded").rglob("about.json"))
    said = json.loads(file.read_text())
    file.write_bytes(json.dumps({"of": said["of"]}).encode() if about is None else about)
    assert torch.equal(image_folder(root).train[0].cpu(), expected)
    assert json.loads(file.read_text()) == said


def test_images_are_decoded_again_where_they_are_read_in_another_way_now(tmp_path, monkeypatch):
    root, left = write(tmp_path / "images"), count_decoded(monkeypatch)
    for reading in (1, 1, 2):
        monkeypatch.setattr(decoded, "READING", reading)
        image_folder(root)
    assert left == [60, 60]


def test_the_images_in_memory_at_once_are_fewer_where_they_are_larger(tmp_path, monkeypatch):
    monkeypatch.setattr("digitlab.data.on_disk.AT_ONCE", 2**20)
    files = sorted(write(tmp_path / "images", count=10).rglob("*.png"))
    parts = [pixels.nbytes for pixels, _ in decode(files, (256, 256))]
    assert max(parts) <= 2**20
    assert len(parts) < len(files)


def test_a_source_that_hands_on_no_size_is_refused_as_it_would_be_resized_in_memory(tmp_path):
    root = write(tmp_path / "images")
    for settings in ({"size": 12}, {"color": False}):
        with pytest.raises(
            ValueError, match=r"its source gave 9 x 9, in colour, from a file; must take size and color"
        ):
            ImageData(lambda root: image_folder(root), root=root, **settings).setup()
    ImageData(lambda root: image_folder(root), root=root, size=9, color=True).setup()


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


@pytest.mark.parametrize(
    ("size", "words"), [(1_000_000, "one image takes 12,000 GB of memory"), (20_000, "images take 72 GB of the disk")]
)
def test_images_that_there_is_no_room_for_are_refused_and_nothing_is_left(harness, tmp_path, monkeypatch, size, words):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**10))
    said = harness.main("data=image_folder", f"data.root={write(tmp_path / 'images')}", f"data.size={size}")
    assert said.startswith(f"error: data: size={size}: ")
    assert words in said
    assert not (tmp_path / "decoded").exists()
