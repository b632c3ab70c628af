"""Flips, crops and erasing of a batch, against torchvision's transforms of single images."""

import pytest
import torch
from scipy.stats import binomtest, chisquare, ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from digitlab.data.augment import Augment
from digitlab.data.datamodule import ImageData
from digitlab.data.sources import Images, mnist5k

# Every pixel another number, none of them black, so that an image tells what was done to it.
NUMBERED = (torch.arange(12 * 10) + 1).view(12, 10).to(torch.uint8)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_flips_and_crops_are_torchvisions_and_every_one_is_as_likely(channels):
    image = NUMBERED[..., None].expand(12, 10, 3) if channels else NUMBERED
    torch.manual_seed(0)
    found = Augment(flip=0.25, crop=2).stored(image.expand(4000, *image.shape))
    counts = torch.zeros(2, 5, 5)
    first = image.permute(2, 0, 1) if channels else image[None]
    padded = functional.pad(first, [2, 2, 2, 2])
    wanted = {}
    for top in range(5):
        for left in range(5):
            cut = functional.crop(padded, top, left, 12, 10)
            for flipped, each in enumerate((cut, functional.horizontal_flip(cut))):
                wanted[each.permute(1, 2, 0).reshape(-1).numpy().tobytes()] = flipped, top, left
    for each in found:
        counts[wanted[each.reshape(-1).numpy().tobytes()]] += 1
    assert chisquare(counts.sum(0).flatten()).pvalue > 1e-3
    assert binomtest(int(counts[1].sum()), 4000, 0.25).pvalue > 1e-3


def rectangles(images: torch.Tensor) -> list[list[int]]:
    """Return top, left, height and width of the zeros in each image; they must be one rectangle."""
    found = []
    for image in images:
        zeros = image[0] == 0
        assert torch.equal(image == 0, zeros.expand_as(image))
        if zeros.any():
            rows, columns = zeros.any(1).nonzero().flatten(), zeros.any(0).nonzero().flatten()
            assert zeros.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            found.append([int(rows[0]), int(columns[0]), len(rows), len(columns)])
    return found


def test_erased_rectangles_are_distributed_as_torchvisions():
    images = torch.ones(2000, 3, 28, 20)
    torch.manual_seed(0)
    ours = torch.tensor(rectangles(Augment(erase=0.6).input(images)))
    theirs = torch.tensor(rectangles(torch.stack([v2.RandomErasing(p=0.6)(image) for image in images])))
    assert binomtest(len(ours), 2000, 0.6).pvalue > 1e-3
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3
    assert images.min() == 1  # they are not changed in place


@pytest.mark.filterwarnings("ignore:white. the images of each class")
def test_black_comes_in_at_the_edges_whatever_the_mean_is():
    def source():
        return Images("white", ("a", "b"), (torch.full((40, 6, 6), 255, dtype=torch.uint8), torch.arange(40) % 2))

    data = ImageData(source, mean=0.5, std=0.25, augment={"crop": 3})
    data.setup()
    images = torch.cat([images for images, _ in data.train_dataloader()])
    assert images.unique().tolist() == [-2, 2]


def test_what_is_not_asked_for_draws_nothing_and_changes_nothing():
    pixels, images = NUMBERED.expand(3, 12, 10), torch.rand(3, 1, 12, 10)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert Augment().stored(pixels) is pixels
    assert Augment().input(images) is images
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_epoch_is_augmented_the_same_and_only_training_images_are():
    data = ImageData(mnist5k, augment={"flip": 0.5, "crop": 2, "erase": 0.5}, batch_size=500, seed=1)
    still = ImageData(mnist5k, batch_size=500, seed=1)
    epochs = []
    for each, seed in ((data, 3), (data, 3), (data, 4), (still, 3)):
        each.setup()
        torch.manual_seed(seed)
        epochs.append(torch.cat([images for images, _ in each.train_dataloader()]))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[3])
    batches = [torch.cat([images for images, _ in each.test_dataloader()]) for each in (data, still)]
    assert torch.equal(*batches)
