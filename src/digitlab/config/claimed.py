"""What a claim file may say of a published number."""

from typing import Annotated, Literal

from pydantic import Field

from digitlab.config.fields import Accuracy, Count, Keys, Name, Positive, Text


class Statement(Keys):
    says: Text = Field(description="what the document says of two networks' parameters")
    of: Name = Field(description="the network that it speaks of, a choice of model")
    to: Name = Field(description="the network that it compares that to, a choice of model")
    low: float = Field(description="lowest ratio of their parameters with which the statement is true")
    high: Annotated[float, Field(allow_inf_nan=True)] = Field(description="highest such ratio; .inf: any")


class Claim(Keys):
    document: Name = Field(description="what says so: the number of a tutorial, an address, a title")
    data: Name = Field(
        default="mnist", description="the data set that it is claimed of; for an image folder the folder's name"
    )
    accuracy: Accuracy | None = Field(
        default=None, description="claimed on all test images, with the digits that the document gives"
    )
    decimals: Annotated[int, Field(ge=1, le=9)] | None = Field(
        default=None, description="of the accuracy as the document gives it, where the last is a 0: 4 of 0.9840"
    )
    images: Literal["test", "train"] = Field(
        default="test", description="what the accuracy is of; train: the running mean of the last epoch, train/acc"
    )
    runs: Count = Field(default=1, description="how many runs the accuracy is made of")
    statistic: Literal["mean", "best"] = Field(
        default="mean", description="what the accuracy is of so many runs: their mean, or the best of them"
    )
    loss: Annotated[float, Field(ge=0)] | None = Field(default=None, description="claimed on all test images")
    parameters: Count | None = Field(
        default=None, description="of the network by the document: their sum as printed, or of its layers"
    )
    seconds: Positive | None = Field(default=None, description="an epoch took then, as printed")
    unstated: Text = Field(default="", description="what the document leaves open of its recipe, and how it was filled")
    contradicted: Text = Field(
        default="", description="what its own log, text or code, or a table that quotes it, says against the number"
    )
    otherwise: Text = Field(default="", description="what the document states and this recipe does otherwise")
    caveat: Text = Field(default="", description="what else a reader should know before taking the number as it stands")
    tested_once: bool = Field(
        default=False,
        description="true: the document reads the test images once, at the end; else data.split=test says that it "
        "validates on them",
    )
    diverges: bool = Field(
        default=False,
        description="true: the printed numbers are those of a network that names one class for everything",
    )
    printed: dict[Literal["train/loss", "train/acc", "val/loss", "val/acc"], list[float]] = Field(
        default={}, description="metrics by epoch, as the document prints them"
    )
    layers: list[Count] = Field(
        default=[],
        description="parameters of the network's first layers that have any, where the document prints no more",
    )
    counts: dict[str, Count] = Field(
        default={}, description="parameters that the document prints of networks that it claims no accuracy of"
    )
    statements: list[Statement] = Field(
        default=[],
        description="{says, of, to, low, high}: what is said of two networks' parameters; "
        "true where of's number lies from low to high times to's",
    )
