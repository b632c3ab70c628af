"""What the keys of the configuration are made of: numbers with their ranges, names, and mappings of known keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Natural = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Accuracy = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, strict=False, coerce_numbers_to_str=True)]
Text = Annotated[str, Field(strict=False, coerce_numbers_to_str=True)]
Pixels = Annotated[float, Field(ge=0, le=28, json_schema_extra={"unit": "pixels"})]
Margin = Annotated[int, Field(ge=0, le=28, json_schema_extra={"unit": "pixels"})]
Time = Annotated[
    str,
    Field(
        pattern=r"^(0{0,5}[1-9][0-9]{0,5}(\.[0-9]{1,5})?|0\.0{0,4}[1-9][0-9]{0,4})(s|min|h)$",
        json_schema_extra={"form": "a time above 0 such as 90s, 30min or 1.5h"},
    ),
]
Recorded = Annotated[
    str, Field(pattern=r"^(params|tags)\.[^,]*[^,\s]$", json_schema_extra={"form": "params.NAME or tags.NAME"})
]
Several = Annotated[
    str,
    Field(
        pattern=r"^(params|tags)\.[^,]*[^,\s](, ?(params|tags)\.[^,]*[^,\s])*$",
        json_schema_extra={"form": "params.NAME or tags.NAME, or several of these with commas"},
    ),
]
Metric = Annotated[str, Field(pattern=r"^metrics\.[^,]*[^,\s]$", json_schema_extra={"form": "metrics.NAME"})]
Address = Annotated[
    str, Field(pattern=r"^(auto|[^\s/]+:[0-9]{1,5})$", json_schema_extra={"form": "HOST:PORT, or auto"})
]
Probability = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=180, json_schema_extra={"unit": "degrees"})]


class Keys(BaseModel):
    """A mapping all of whose keys are known. Types are strict: true is no number, and neither is "1"."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Built(Keys):
    """A node that is built: besides the keys here it has any that its `_target_` takes."""

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_", description="the class or function that is built, by its dotted name")
    partial: bool = Field(
        default=False,
        alias="_partial_",
        description="true: the rest of its arguments follows, as an optimizer's parameters do",
    )
