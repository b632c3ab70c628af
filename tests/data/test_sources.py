"""Sources of data: idx files against torchvision's parser, downloads from a local mirror."""

import functools
import gzip
import http.server
import shutil
import socket
import threading

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from digitlab.data import download, idx, sources
from digitlab.data.copied import copied
from digitlab.data.moved import moved
from digitlab.data.pooled import pooled
from digitlab.platform.process import this_process

RAW = "MNIST/raw"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A data set in MNIST's format with 12 + 5 images, served by a local mirror."""
    generator = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": generator.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte.gz": (np.arange(12) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": generator.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte.gz": (np.arange(5)).astype(np.uint8),
    }
    served = tmp_path / "mirror"
    served.mkdir()
    resources = []
    for name, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (served / name).write_bytes(gzip.compress(header + array.tobytes()))
        resources.append((name, _md5(served / name)))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    handler = functools.partial(_Silent, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dead = "http://127.0.0.1:9/"  # the discard port: refused at once
        monkeypatch.setattr(datasets.MNIST, "mirrors", [dead, f"http://127.0.0.1:{server.server_port}/"])
        yield served, arrays
        server.shutdown()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _md5(file):
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(str(file))


def offline(monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])


def test_idx_files_read_as_torchvision_reads_them(mnist, tmp_path):
    for name, parser in [("t10k-images-idx3-ubyte", read_image_file), ("t10k-labels-idx1-ubyte", read_label_file)]:
        zipped = mnist / RAW / f"{name}.gz"
        with gzip.open(zipped) as source, (tmp_path / name).open("wb") as target:
            shutil.copyfileobj(source, target)
        theirs = parser(str(tmp_path / name))
        assert torch.equal(idx.read_idx(zipped).to(theirs.dtype), theirs)


FIVE = b"\0\0\x08\x01\0\0\0\x05\1\2\3\4\5"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        FIVE[:-3],
        FIVE[:6],
        b"\0\0\x08\0\5",
        gzip.compress(FIVE, mtime=0)[:-6],
        gzip.compress(FIVE, mtime=0)[:-9] + b"x" * 9,
    ],
)
def test_a_file_that_is_not_an_idx_file_of_bytes_is_refused(tmp_path, content):
    file = tmp_path / "x.gz"
    file.write_bytes(content if content.startswith(b"\x1f") else gzip.compress(content))
    with pytest.raises(ValueError, match=r"x\.gz"):
        idx.read_idx(file)


def test_missing_files_are_downloaded_from_the_first_mirror_that_answers(small, tmp_path):
    _, arrays = small
    images = sources.torchvision_mnist(tmp_path / "data")
    assert images.classes == tuple("0123456789")
    np.testing.assert_array_equal(images.train[0], arrays["train-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(images.test[1], arrays["t10k-labels-idx1-ubyte.gz"])
    assert images.train[0].dtype == torch.uint8
    assert images.train[1].dtype == torch.int64
    assert sorted(file.name for file in (tmp_path / "data" / RAW).iterdir()) == sorted(arrays)


def test_other_data_sets_in_mnists_format_have_their_own_folders(small, tmp_path, monkeypatch):
    for name in ("resources", "mirrors"):
        monkeypatch.setattr(datasets.FashionMNIST, name, getattr(datasets.MNIST, name))
    images = sources.torchvision_mnist(tmp_path, dataset="FashionMNIST", name="fashion_mnist")
    assert (images.name, images.classes[0]) == ("fashion_mnist", "T-shirt/top")
    assert (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").is_file()


def test_pooled_images_are_those_of_both_sets(small, tmp_path):
    (images, labels), test = sources.torchvision_mnist(tmp_path)[2:4]
    found = pooled(tmp_path, name="all")
    assert (found.name, found.test) == ("all", None)
    assert torch.equal(found.train[0], torch.cat([images, test[0]]))
    assert torch.equal(found.train[1], torch.cat([labels, test[1]]))


def test_moved_copies_are_those_of_scipy_in_a_fixed_order(small, tmp_path):
    (images, labels), test = sources.torchvision_mnist(tmp_path)[2:4]
    found = moved(tmp_path, count=2)
    both = images[:2].numpy()
    copies = [ndimage.shift(both, (0, *by), order=0) for by in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    wanted = sorted(
        (image.tobytes(), int(label)) for copy in copies for image, label in zip(copy, labels, strict=False)
    )
    pairs = zip(*found.train, strict=True)
    assert sorted((image.numpy().tobytes(), int(label)) for image, label in pairs) == wanted
    assert torch.equal(found.val[0], images[2:])
    assert torch.equal(found.test[0], test[0])
    assert torch.equal(found.train[0], moved(tmp_path, count=2).train[0])


def test_copies_are_those_of_scipy_where_angle_and_side_are_the_same(small, tmp_path):
    (images, labels), test = sources.torchvision_mnist(tmp_path)[2:4]
    found = copied(tmp_path, "MNIST")
    count = len(images)
    assert torch.equal(found.train[0][:count], images)
    assert torch.equal(found.train[1], labels.repeat(3))
    assert torch.equal(found.test[0], test[0])
    assert torch.equal(found.train[0], copied(tmp_path, "MNIST").train[0])
    angles = np.arange(-10, 10.01, 0.05)
    for number, copy in enumerate(found.train[0][count:].numpy()):
        image = images[number % count].numpy()
        turned = [
            ndimage.rotate(each, angle, reshape=False, order=0, mode="nearest")
            for each in (image, image[:, ::-1])
            for angle in angles
        ]
        assert min((each != copy).mean() for each in turned) < 0.05
        assert set(np.unique(copy)) <= set(np.unique(image))


def test_files_that_are_there_need_no_network(small, tmp_path, monkeypatch):
    sources.torchvision_mnist(tmp_path)
    offline(monkeypatch)
    sources.torchvision_mnist(tmp_path)


def test_an_incomplete_download_is_discarded(small, tmp_path, monkeypatch):
    served, _ = small
    file = served / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(download.UnavailableError, match=r"train-labels-idx1-ubyte\.gz is missing .* wrong md5"):
        sources.torchvision_mnist(tmp_path)
    assert [each.name for each in (tmp_path / RAW).iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_what_a_killed_download_left_is_deleted_by_the_next(small, tmp_path):
    folder = tmp_path / RAW
    folder.mkdir(parents=True)
    host = socket.gethostname()
    ended, running, elsewhere = (
        folder / f"train-images-idx3-ubyte.{process}.part"
        for process in (f"{host}:{2**22 - 1}:1700000000", this_process(), "another.host:12:1700000000")
    )
    for part in (ended, running, elsewhere):
        part.write_bytes(b"half")
    with pytest.MonkeyPatch.context() as patch:  # this process has one of another thread
        patch.setattr(download, "this_process", lambda: f"{this_process()}0")
        sources.torchvision_mnist(tmp_path)
    assert set(folder.glob("*.part")) == {running, elsewhere}


def test_a_corrupt_file_is_named_and_fetched_again(small, tmp_path):
    sources.torchvision_mnist(tmp_path)
    file = tmp_path / RAW / "train-images-idx3-ubyte.gz"
    good = file.read_bytes()
    file.write_bytes(good[:100])
    with pytest.warns(UserWarning, match=r"train-images-idx3-ubyte\.gz is corrupt"):
        sources.torchvision_mnist(tmp_path)
    assert file.read_bytes() == good


def test_a_corrupt_file_offline_is_an_error_and_never_a_fallback(small, tmp_path, monkeypatch):
    sources.torchvision_mnist(tmp_path)
    file = tmp_path / RAW / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(b"nonsense")
    offline(monkeypatch)
    with (
        pytest.warns(UserWarning, match="is corrupt"),
        pytest.raises(OSError, match=r"t10k-images-idx3-ubyte\.gz is corrupt and cannot be fetched again") as error,
    ):
        sources.torchvision_mnist(tmp_path)
    assert not isinstance(error.value, download.UnavailableError)
    assert file.read_bytes() == b"nonsense"


def test_no_folder_is_left_behind_without_an_answering_mirror(tmp_path, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(download.UnavailableError, match="cannot be downloaded"):
        sources.torchvision_mnist(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_embedded_set_is_500_mnist_training_images_of_each_digit(mnist):
    embedded = sources.mnist5k()
    assert embedded.train[1].bincount().tolist() == [500] * 10
    assert embedded.test is None
    whole = sources.torchvision_mnist(mnist)
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(*whole.train, strict=True)}
    ours = [(image.numpy().tobytes(), int(label)) for image, label in zip(*embedded.train, strict=True)]
    assert all(pair in pairs for pair in ours)
