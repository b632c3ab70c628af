"""Every key of the data: its type, its range, its default and its meaning."""

from typing import Annotated, Literal

from pydantic import Field

from digitlab.config.fields import (
    Built,
    Count,
    Degrees,
    Keys,
    Margin,
    Natural,
    Pixels,
    Positive,
    Probability,
    Seed,
    Share,
)


class Augment(Keys):
    shift: Pixels = Field(default=0, description="shift each training image at random by up to so many pixels")
    rotate: Degrees = Field(default=0, description="turn each training image at random by up to so many degrees")
    fill: Literal["zero", "nearest"] = Field(
        default="zero",
        description="what comes in where images are shifted or turned: zeros, or the nearest pixel of the edge",
    )
    flip: Probability = Field(default=0, description="mirror a training image, left to right, with this probability")
    crop: Margin = Field(
        default=0, description="put so many pixels of black around each training image, and cut its size out at random"
    )
    erase: Probability = Field(
        default=0, description="set a random rectangle to 0 with this probability, of torchvision's default sizes"
    )


class Data(Built):
    source: Built = Field(
        description="the function that reads the images, of digitlab.data or of your own, with its arguments"
    )
    root: str | None = Field(
        default=None, description="folder of the files; null: the repository's data/; $DIGITLAB_DATA by default"
    )
    file: str | None = Field(default=None, description="file of the images, of data=arrays and sources that take one")
    size: Count | None = Field(
        default=None,
        description="width and height of the images in pixels; null: their own, of a folder at most 64",
    )
    color: bool | None = Field(
        default=None, description="three channels or one; null: as the images are, a folder in colour if any image is"
    )
    fallback: Built | Literal[False] | None = Field(
        default=None,
        description="source taken, loudly, where the first one is unavailable; false or null: an error instead",
    )
    batch_size: Count = Field(default=128, description="images of one optimizer step")
    steps_per_execution: Count | None = Field(
        default=None,
        description="optimizer steps that Lightning takes as one batch, for speed only; null: as suits the device",
    )
    shuffle: bool = Field(default=True, description="false: every epoch takes the images in the source's order")
    drop_last: bool = Field(default=False, description="true: leave out a last training batch that is not full")
    split: Literal["auto", "first", "last", "random", "stratified", "test"] = Field(
        default="auto",
        description="where validation comes from: the first or last training images, a plain draw of them, one that "
        "keeps the classes' shares, or the test set; "
        "auto: the source's own, else the last, or a draw if they are sorted by class or there is no test set",
    )
    val_fraction: Share = Field(default=0.1, description="share for validation, of the images for training")
    test_fraction: Share = Field(
        default=0.1, description="share for the test, of the images for training, where the source has no test set"
    )
    skip_first: Natural = Field(default=0, description="training images left out at the start")
    folds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        default=None, description="test on one of so many parts of the images for training, not on the test set"
    )
    fold: Natural = Field(default=0, description="which part that is, modulo folds, so that it can be the seed")
    split_seed: Seed = Field(
        default=0, description="draws the splits; not the seed of the run, so runs over seeds share their test images"
    )
    seed: Seed = Field(default=0, description="order of the images in each epoch; the run's seed unless it is given")
    normalize: bool = Field(default=True, description="pixels in 0..1; false leaves 0..255")
    mean: float | list[float] | None = Field(
        default=None, description="subtracted from the pixels after that: one number, or one for each channel"
    )
    std: Positive | list[Positive] | None = Field(
        default=None, description="the pixels are divided by it after that: one number, or one for each channel"
    )
    augment: Augment = Field(default_factory=Augment)
