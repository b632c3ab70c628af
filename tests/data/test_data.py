"""The DataModule: splits, pixels, order, augmentation."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from torchvision import datasets, transforms

from digitlab.data import sources
from digitlab.data.augment import affine_augment
from digitlab.data.datamodule import ImageData
from digitlab.data.download import UnavailableError
from digitlab.data.folders import image_folder


def full(mnist, **settings) -> ImageData:
    data = ImageData(sources.torchvision_mnist, root=mnist, **settings)
    data.setup()
    return data


def embedded(**settings) -> ImageData:
    data = ImageData(sources.mnist5k, **settings)
    data.setup()
    return data


def labels_of(batches) -> torch.Tensor:
    return torch.cat([labels for _, labels in batches])


@pytest.fixture(scope="module")
def everything(mnist):
    return sources.torchvision_mnist(mnist)


def test_default_validation_is_the_last_tenth(mnist, everything):
    data = full(mnist)
    assert data.sizes == {"train": 54_000, "val": 6_000, "test": 10_000}
    assert torch.equal(labels_of(data.val_dataloader()), everything.train[1][54_000:])
    assert torch.equal(labels_of(data.test_dataloader()), everything.test[1])
    assert torch.equal(labels_of(data.train_dataloader()).bincount(), everything.train[1][:54_000].bincount())


def test_skip_first_and_validation_on_the_test_set(mnist, everything):
    data = full(mnist, skip_first=5_000, split="test")
    assert data.sizes == {"train": 55_000, "val": 10_000, "test": 10_000}
    assert torch.equal(data.splits["train"][1], everything.train[1][5_000:])
    assert torch.equal(labels_of(data.val_dataloader()), everything.test[1])


def test_a_stratified_split_keeps_class_proportions_and_depends_on_split_seed_only(mnist, everything):
    data = full(mnist, split="stratified", val_fraction=0.2)
    shares = everything.train[1].bincount() / 60_000
    for stage in ("train", "val"):
        labels = data.splits[stage][1]
        assert torch.allclose(labels.bincount() / len(labels), shares, atol=1e-3)
    assert full(mnist, split="stratified", val_fraction=0.2, seed=7).digest == data.digest
    assert full(mnist, split="stratified", val_fraction=0.2, split_seed=7).digest != data.digest


def test_a_class_that_a_part_lacks_is_named_with_what_helps():
    with pytest.warns(UserWarning, match="mnist5k: there is no") as warned:
        ImageData(sources.mnist5k, split="last", val_fraction=0.3).setup()
    said = [str(each.message) for each in warned]
    assert said == [
        "mnist5k: there is no train image of classes 7, 8, 9; split=stratified may give it some",
        "mnist5k: there is no val image of classes 0, 1, 2, 3, 4 and 1 more; split=stratified may give it some",
    ]


def test_sorted_images_without_a_test_set_are_split_stratified():
    data = embedded()
    assert data.sizes == {"train": 4_000, "val": 500, "test": 500}
    for stage, count in [("train", 400), ("val", 50), ("test", 50)]:
        assert data.splits[stage][1].bincount().tolist() == [count] * 10
    seen = [image.numpy().tobytes() for images, _ in data.splits.values() for image in images]
    assert len(set(seen)) == 5_000


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 1)])
def test_blocks_of_classes_are_split_stratified_in_whatever_order(order):
    images = torch.arange(90, dtype=torch.uint8)[:, None, None].expand(90, 4, 4)
    labels = torch.tensor(order).repeat_interleave(30)
    data = ImageData(lambda: sources.Images("blocks", ("a", "b", "c"), (images, labels), (images, labels)))
    data.setup()
    assert data.splits["val"][1].bincount().tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"fold": 3}, "fold=3: is one of folds; give data.folds"),
        (
            {"split": "test", "val_fraction": 0.5},
            "val_fraction=0.5: no validation set is drawn: with split=test it is the test set",
        ),
    ],
)
def test_what_would_be_ignored_of_a_split_is_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        embedded(**settings)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"val_fraction": 0.5}, "val_fraction=0.5: no validation set is drawn: the data has its own"),
        ({"test_fraction": 0.5}, "test_fraction=0.5: no test set is drawn: the data has its own"),
        ({"split_seed": 5}, "split_seed=5: no image is drawn of this data set with split=auto"),
    ],
)
def test_shares_of_data_that_is_divided_already_are_refused(settings, error):
    images = torch.arange(90, dtype=torch.uint8)[:, None, None].expand(90, 4, 4)
    pair = images, torch.arange(90) % 3
    data = ImageData(lambda: sources.Images("divided", ("a", "b", "c"), pair, pair, pair), **settings)
    with pytest.raises(ValueError, match=error):
        data.setup()


def test_validation_on_the_first_images_and_on_a_plain_draw(mnist, everything):
    images, labels = everything.train
    first = full(mnist, split="first", val_fraction=1 / 12)
    assert torch.equal(first.splits["val"][0], images[:5000])
    assert torch.equal(first.splits["train"][1], labels[5000:])
    drawn = [full(mnist, split="random", val_fraction=0.2, split_seed=seed).splits for seed in (0, 0, 1)]
    for splits in drawn:
        val, train = splits["val"][1], splits["train"][1]
        assert (len(val), len(train)) == (12_000, 48_000)
        assert torch.equal(val.bincount() + train.bincount(), labels.bincount())
        shares = val.bincount() / labels.bincount()
        assert 0.002 < shares.std() < 0.01  # of a plain draw sqrt(0.2 * 0.8 / 6000) = 0.005; of a stratified one 0
    assert torch.equal(drawn[0]["val"][1], drawn[1]["val"][1])
    assert not torch.equal(drawn[0]["val"][1], drawn[2]["val"][1])


def test_a_fold_of_the_training_images_stands_for_the_test_set(mnist, everything):
    theirs = KFold(5, shuffle=True, random_state=1).split(np.arange(60_000))
    labels, seen = everything.train[1], []
    for fold, (rest, held_out) in enumerate(theirs):
        data = full(mnist, folds=5, fold=fold + 5 * (fold % 2), split_seed=1, split="test")
        assert torch.equal(data.splits["train"][1], labels[rest])
        assert torch.equal(data.splits["test"][0], everything.train[0][held_out])
        assert torch.equal(data.splits["val"][1], data.splits["test"][1])
        seen += held_out.tolist()
    assert sorted(seen) == list(range(60_000))
    assert full(mnist, folds=6, split="last", val_fraction=0.1).sizes == {"train": 44_000, "val": 6_000, "test": 10_000}


@pytest.mark.filterwarnings("ignore:mnist5k. there is no")
def test_without_shuffling_every_epoch_is_in_the_sources_order():
    data = embedded(batch_size=700, shuffle=False, split="last")
    loader = data.train_dataloader()
    for _ in range(2):
        batches = list(loader)
        assert torch.equal(labels_of(batches), data.splits["train"][1])
        assert [len(labels) for _, labels in batches] == [700, 700, 700, 700, 700, 500]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_last_batch_that_is_smaller_can_be_left_out(shuffle):
    data = embedded(batch_size=700, drop_last=True, shuffle=shuffle)
    loader = data.train_dataloader()
    assert [len(labels) for _, labels in loader] == [700] * 5
    assert (len(loader), data.steps_per_epoch) == (5, 5)
    assert data.batch_sizes("train", torch.device("cpu")) == [700]
    assert len(labels_of(data.test_dataloader())) == data.sizes["test"]
    small = embedded(batch_size=5000, drop_last=True)
    assert [len(labels) for _, labels in small.train_dataloader()] == [small.sizes["train"]]  # the only one


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "middle"}, "split=middle: must be one of auto, first, last, random, stratified, test"),
        ({"val_fraction": 0.95}, "val_fraction=0.95"),
        ({"val_fraction": 0.00001}, "val_fraction=1e-05: gives 0 of"),
        ({"skip_first": 5_000}, "skip_first=5000: leaves none of 5000 images"),
        ({"skip_first": 4_900, "folds": 200}, "folds=200: there are 100 images for training"),
    ],
)
def test_impossible_splits_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        embedded(**settings)


def test_pixels_match_torchvisions_totensor(mnist):
    images, _ = next(iter(full(mnist).test_dataloader()))
    assert images.shape == (128, 1, 28, 28)
    raw = sources.torchvision_mnist(mnist).test[0][:128]
    theirs = torch.stack([transforms.ToTensor()(image.numpy()) for image in raw])
    assert torch.equal(images, theirs)
    unscaled, _ = next(iter(full(mnist, normalize=False).test_dataloader()))
    assert torch.equal(unscaled, raw.unsqueeze(1).float())


def test_order_is_a_function_of_seed_and_epoch():
    def epochs(seed, count):
        loader = embedded(seed=seed).train_dataloader()
        return [labels_of(loader) for _ in range(count)]

    first, second = epochs(0, 2)
    assert not torch.equal(first, second)
    assert torch.equal(first, epochs(0, 1)[0])
    assert not torch.equal(first, epochs(1, 1)[0])
    loader = embedded(seed=0).train_dataloader()
    torch.rand(5)  # the order does not depend on torch's own generator
    loader.sampler.set_epoch(1)
    assert torch.equal(labels_of(loader), second)


def test_every_image_comes_once_an_epoch_with_its_label():
    data = embedded(batch_size=97, normalize=False)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == data.steps_per_epoch == 42
    assert len(batches[-1][1]) == 4_000 - 41 * 97
    images, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    served = sorted((int(y), x.byte().numpy().tobytes()) for x, y in zip(images, labels, strict=True))
    owned = sorted((int(y), x.numpy().tobytes()) for x, y in zip(*data.splits["train"], strict=True))
    assert served == owned


def test_batches_work_in_a_hand_written_loop():
    data = embedded()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, data.num_classes))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader, losses = data.train_dataloader(), []
    for _ in range(3):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_classes_and_shape_come_from_the_data(tmp_path):
    from PIL import Image

    for name, shade in [("a", 0), ("b", 90), ("c", 250)]:
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (20, 20), shade + number % 5).save(tmp_path / name / f"{number}.png")
    data = ImageData(partial(image_folder, size=16), root=tmp_path)
    data.setup()
    assert (data.num_classes, data.classes, data.input_shape) == (3, ("a", "b", "c"), (1, 16, 16))
    assert data.sizes == {"train": 24, "val": 3, "test": 3}


def test_fallback_is_used_with_a_warning_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    data = ImageData(sources.torchvision_mnist, root=tmp_path, fallback=sources.mnist5k)
    with pytest.warns(UserWarning, match="is missing and cannot be downloaded .* Using the embedded mnist5k instead"):
        data.setup()
    assert data.ready.name == "mnist5k"
    assert data.digest == embedded().digest
    with pytest.raises(UnavailableError):
        ImageData(sources.torchvision_mnist, root=tmp_path, fallback=False).setup()


def test_augmentation_by_nothing_whole_pixels_and_quarter_turns_is_exact(monkeypatch):
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(affine_augment(images), images)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))  # always the largest shift and angle
    moved = affine_augment(images, shift=3)
    torch.testing.assert_close(moved[..., :-3, :-3], images[..., 3:, 3:], rtol=1e-4, atol=1e-4)
    assert moved[..., -3:, :].abs().max() < 1e-4
    near = affine_augment(images, shift=3, fill="nearest")
    wanted = torch.nn.functional.pad(images, (0, 3, 0, 3), mode="replicate")[..., 3:, 3:]
    torch.testing.assert_close(near, wanted, rtol=1e-4, atol=1e-4)
    quarter = affine_augment(images, rotate=90)
    torch.testing.assert_close(quarter, images.rot90(1, dims=(2, 3)), rtol=1e-3, atol=1e-3)


def test_augmentation_is_of_training_images_only_and_differs_between_them():
    still, moving = embedded(), embedded(augment={"shift": 2, "rotate": 10})
    torch.manual_seed(0)
    (a, labels), (b, same_labels) = (next(iter(data.train_dataloader())) for data in (still, moving))
    assert torch.equal(labels, same_labels)
    assert not torch.allclose(a, b)
    assert b.min() >= 0
    assert b.max() <= 1 + 1e-6
    means = np.array([(x - y).abs().mean() for x, y in zip(a, b, strict=True)])
    assert len(np.unique(means.round(6))) > 100
    assert torch.equal(next(iter(still.val_dataloader()))[0], next(iter(moving.val_dataloader()))[0])
