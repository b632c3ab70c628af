"""torchvision's data sets by name: small files in each format, against its own classes."""

import bz2
import gzip
import hashlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from digitlab.data import sources
from digitlab.data.download import UnavailableError
from digitlab.data.idx import fetch_idx, read_idx
from digitlab.data.torchvision_sets import emnist, torchvision_set

DRAWN = np.random.default_rng(0)
LABELS = {"train": [3, 0, 9, 1, 2, 2], "test": [7, 4, 0]}


def pixels(*shape: int) -> np.ndarray:
    return DRAWN.integers(0, 256, shape, dtype=np.uint8)


def md5(file) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def idx(array: np.ndarray) -> bytes:
    kind, form = {"uint8": (8, ">u1"), "int32": (12, ">i4")}[array.dtype.name]
    header = bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(form).tobytes()


def as_theirs(part) -> tuple[torch.Tensor, list[int]]:
    """Return what torchvision's class gives, image by image: uint8 (N, H, W) or (N, H, W, 3), and labels."""
    images = torch.stack([pil_to_tensor(image) for image, _ in part])
    return images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1), [label for _, label in part]


def check(pair, theirs) -> None:
    images, labels = as_theirs(theirs)
    assert torch.equal(pair[0], images)
    assert pair[1].tolist() == labels
    assert (pair[0].dtype, pair[1].dtype) == (torch.uint8, torch.int64)
    assert pair[0].is_contiguous()


def write_cifar(root, monkeypatch, source=datasets.CIFAR10, key="labels") -> dict[str, np.ndarray]:
    """Write a set's archive into `root` and make its checksums those of torchvision's class."""
    base = root.parent / "made" / source.base_folder
    base.mkdir(parents=True)
    root.mkdir()
    rows = {"train": pixels(6, 3072), "test": pixels(3, 3072)}
    for part, files in (("train", source.train_list), ("test", source.test_list)):
        cuts = np.array_split(np.arange(len(rows[part])), len(files))  # CIFAR-10's come in five files
        for cut, (file, _) in zip(cuts, files, strict=True):
            content = {"data": rows[part][cut], key: [LABELS[part][row] for row in cut]}
            (base / file).write_bytes(pickle.dumps(content, protocol=2))
    names = {source.meta["key"]: [f"class {number}" for number in range(10)]}
    (base / source.meta["filename"]).write_bytes(pickle.dumps(names, protocol=2))
    with tarfile.open(root / source.filename, "w:gz") as tar:
        tar.add(base, source.base_folder)
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(source, attribute, [[file, md5(base / file)] for file, _ in getattr(source, attribute)])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(base / source.meta["filename"])})
    monkeypatch.setattr(source, "tgz_md5", md5(root / source.filename))
    return rows


@pytest.mark.parametrize("dataset", ["CIFAR10", "CIFAR100"])
def test_cifar_is_unpacked_once_and_read_as_torchvision_does(dataset, tmp_path, monkeypatch):
    source, root = getattr(datasets, dataset), tmp_path / "data"
    written = write_cifar(root, monkeypatch, source, "labels" if dataset == "CIFAR10" else "fine_labels")
    found = torchvision_set(root, dataset, "cifar")
    check(found.train, source(root, train=True))
    check(found.test, source(root, train=False))
    assert torch.equal(found.train[0].permute(0, 3, 1, 2).reshape(6, -1), torch.from_numpy(written["train"]))
    assert found.classes == tuple(f"class {number}" for number in range(10))
    assert sorted(each.name for each in root.iterdir()) == sorted([source.base_folder, source.filename])
    (root / source.filename).unlink()
    assert torch.equal(torchvision_set(root, dataset, "cifar").train[0], found.train[0])


def test_a_pickle_that_is_not_cifars_is_never_loaded(tmp_path, monkeypatch):
    root, trap = tmp_path / "data", tmp_path / "sprung"
    write_cifar(root, monkeypatch)
    torchvision_set(root, "CIFAR10", "cifar10")
    batch = root / datasets.CIFAR10.base_folder / "data_batch_2"
    good = batch.read_bytes()
    batch.write_bytes(b"cbuiltins\nopen\n(V%s\nVw\ntR." % str(trap).encode())  # opens it for writing
    with pytest.warns(UserWarning, match=r"cifar-10-batches-py lacks files, or has corrupt ones; unpacking"):
        torchvision_set(root, "CIFAR10", "cifar10")
    assert batch.read_bytes() == good
    assert not trap.exists()
    pickle.loads(b"cbuiltins\nopen\n(V%s\nVw\ntR." % str(trap).encode()).close()
    assert trap.exists()  # the trap is one


def test_svhn_is_read_as_torchvision_does(tmp_path, monkeypatch):
    files = {}
    for part, count in (("train", 6), ("test", 3)):
        file = tmp_path / f"{part}_32x32.mat"
        labels = np.array([[label or 10] for label in LABELS[part]], np.uint8)  # 10 is the digit 0
        savemat(file, {"X": pixels(32, 32, 3, count), "y": labels})
        files[part] = ["http://127.0.0.1:9/", file.name, md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)
    found = torchvision_set(tmp_path, "SVHN", "svhn")
    for part in ("train", "test"):
        check(getattr(found, part), datasets.SVHN(tmp_path, part))
        assert getattr(found, part)[1].tolist() == LABELS[part]
    assert found.classes == tuple("0123456789")


def test_usps_is_read_as_torchvision_does(tmp_path, monkeypatch):
    files = {}
    for part, file in (("train", tmp_path / "usps.bz2"), ("test", tmp_path / "usps.t.bz2")):
        lines = []
        for label in LABELS[part]:
            values = DRAWN.uniform(-1, 1, 256).round(4)
            lines.append(" ".join([str(label + 1), *(f"{at}:{value}" for at, value in enumerate(values, 1))]))
        file.write_bytes(bz2.compress("\n".join([*lines, ""]).encode()))
        files[part] = ["http://127.0.0.1:9/", file.name, md5(file)]
    monkeypatch.setattr(datasets.USPS, "split_list", files)
    found = torchvision_set(tmp_path, "USPS", "usps")
    check(found.train, datasets.USPS(tmp_path, train=True))
    check(found.test, datasets.USPS(tmp_path, train=False))
    assert found.test[1].tolist() == LABELS["test"]
    assert found.train[0].shape == (6, 16, 16)


def write_emnist(folder, monkeypatch, split: str, first: int) -> dict[str, bytes]:
    files = {}
    for part, labels in LABELS.items():
        files[f"emnist-{split}-{part}-images-idx3-ubyte"] = idx(pixels(len(labels), 28, 28))
        files[f"emnist-{split}-{part}-labels-idx1-ubyte"] = idx(np.array(labels, np.uint8) + np.uint8(first))
    archive = folder / "EMNIST" / "raw" / "gzip.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in files.items():
            target.writestr(f"gzip/{name}.gz", gzip.compress(content))
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(archive))
    return files


@pytest.mark.parametrize(("split", "first", "classes"), [("letters", 1, 26), ("balanced", 0, 47), ("digits", 0, 10)])
def test_emnist_stands_upright_and_counts_from_0(tmp_path, monkeypatch, split, first, classes):
    root = tmp_path / "data"
    files = write_emnist(root, monkeypatch, split, first)
    found = emnist(root, split)
    assert (found.name, len(found.classes)) == (f"emnist_{split}", classes)
    raw = root / "EMNIST" / "raw"
    assert [each.name for each in raw.iterdir()] == ["gzip.zip"]
    for name, content in files.items():  # as torchvision unpacks them
        (raw / name).write_bytes(content)
    for part in ("train", "test"):
        theirs = datasets.EMNIST(root, split, train=part == "train")
        images, labels = as_theirs(theirs)
        assert torch.equal(getattr(found, part)[0], images.transpose(1, 2))
        assert [label + first for label in getattr(found, part)[1].tolist()] == labels
        names = [found.classes[label] for label in getattr(found, part)[1]]
        assert names == [theirs.classes[label] for label in labels]
    (raw / "gzip.zip").unlink()
    assert torch.equal(emnist(root, split).train[0], found.train[0])


def test_qmnist_has_the_digit_of_each_label(tmp_path, monkeypatch):
    root = tmp_path / "data"
    raw = root / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    resources, contents = {}, {}
    for part, labels in LABELS.items():
        columns = np.array([[label, 17, 5, 0, 0, 0, 0, 0] for label in labels], np.int32)
        resources[part] = []
        for name, array in ((f"{part}-images-idx3-ubyte", pixels(len(labels), 28, 28)), (f"{part}-int", columns)):
            file = raw / f"qmnist-{name}.gz"
            file.write_bytes(gzip.compress(idx(array)))
            resources[part].append((f"http://127.0.0.1:9/{file.name}", md5(file)))
            contents[file.stem] = idx(array)
    monkeypatch.setattr(datasets.QMNIST, "resources", resources | {"nist": []})
    found = sources.torchvision_mnist(root, "QMNIST", "qmnist")
    for name, content in contents.items():
        (raw / name).write_bytes(content)
    check(found.train, datasets.QMNIST(root, train=True))
    check(found.test, datasets.QMNIST(root, train=False))
    assert found.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "emnist", "kmnist", "qmnist", "usps"])
def test_a_set_that_cannot_be_had_is_one_line(harness, tmp_path, monkeypatch, name):
    for source in (datasets.CIFAR10, datasets.CIFAR100, datasets.EMNIST):
        monkeypatch.setattr(source, "url", "http://127.0.0.1:9/x.tgz")
    for source in (datasets.SVHN, datasets.USPS):
        monkeypatch.setattr(source, "split_list", {"train": ["http://127.0.0.1:9/x", "x", "0"]})
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(datasets.QMNIST, "resources", {"train": [("http://127.0.0.1:9/x", "0")], "test": []})
    root = tmp_path / "data"
    error = str(harness.main(f"data={name}", f"data.root={root}"))
    assert error.startswith(f"error: data: {root}/")
    assert "is missing and cannot be downloaded (http://127.0.0.1:9/" in error
    assert "\n" not in error
    assert not root.exists()


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (
            ["data=emnist", "data.source.split=caps"],
            "error: data: source.split=caps: must be one of byclass, bymerge, ",
        ),
        (
            ["data=cifar10", "data.source.dataset=Food101"],
            "error: data: source.dataset=Food101: must be one of CIFAR10",
        ),
        (["data=kmnist", "data.source.dataset=FakeData"], "error: data: source.dataset=FakeData: must be one of MNIST"),
    ],
)
def test_an_unknown_set_is_one_line(harness, overrides, error):
    assert str(harness.main(*overrides)).startswith(error)


def test_idx_files_are_known_by_their_content_however_they_are_packed(mnist, tmp_path, recwarn):
    names = [name for name, _ in datasets.FashionMNIST.resources]
    for name, packing in ((names[2], lambda content: gzip.compress(content, 1)), (names[3], None)):
        theirs, file = mnist / "FashionMNIST" / "raw" / name, tmp_path / name
        content = gzip.decompress(theirs.read_bytes())
        (file if packing else file.with_suffix("")).write_bytes(packing(content) if packing else content)
        checksum = dict(datasets.FashionMNIST.resources)[name]
        assert torch.equal(fetch_idx(file, checksum, []), read_idx(theirs))
    assert not recwarn.list
    plain = file.with_suffix("")
    plain.write_bytes(content[:-1] + b"\x09")  # the last label is 5
    with pytest.raises(OSError, match=r"t10k-labels-idx1-ubyte is corrupt .*, and .*\.gz is missing") as error:
        fetch_idx(file, checksum, [])
    assert not isinstance(error.value, UnavailableError)  # for which the embedded images would stand in
    file.write_bytes(gzip.compress(content[:-1] + b"\x09"))
    with pytest.warns(UserWarning, match="is corrupt"), pytest.raises(OSError, match="cannot be fetched again"):
        fetch_idx(file, checksum, [])
    plain.write_bytes(content)
    assert torch.equal(fetch_idx(file, checksum, []), read_idx(theirs))  # the good one of both
