"""What settings are made of: their base class, and kinds of values with bounds.

Every number has both bounds: what lies outside is a slip, and would end a run late or never.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)


class Section(BaseModel):
    """Settings that belong together: unknown keys, infinite values and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_yes_and_no(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `on` and `yes` as true, which would be the number 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        inside = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(v, bool) for v in inside) and bool not in (kind, *get_args(kind)):
            raise ValueError("true, false, yes, no, on and off are no value of it")
        return value


def one_of(name: str, known: Collection[str]) -> str:
    """The name, if it is known.

    Raises:
        ValueError: It is not; the message has the nearest name.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise ValueError(
        f"{name!r} is not one of {', '.join(known)}" + (f"; nearest: {near[0]}" if near else "")
    )


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first is the smaller one: give [{pair[1]:g}, {pair[0]:g}]")
    return pair


def _expanded(value: object) -> object:
    """A path with the home folder in place of "~"; other values as they are."""
    if not isinstance(value, str | Path):
        return value
    if "\0" in str(value):
        raise ValueError("a path cannot hold a null character")
    try:
        return str(Path(value).expanduser()) if str(value).startswith("~") else str(value)
    except RuntimeError:
        raise ValueError('there is no user of the name after "~"') from None


Fraction = Annotated[float, Field(ge=0, le=1)]
Fractions = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]  # least and largest
Share = Annotated[float, Field(gt=0, le=1)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
Ratios = Annotated[tuple[Ratio, Ratio], AfterValidator(_ordered)]
Strength = Annotated[float, Field(ge=0, le=10)]  # of a random change
Weight = Annotated[float, Field(ge=0, le=1000)]
Temperature = Annotated[float, Field(ge=0.001, le=10)]
Width = Annotated[int, Field(ge=1, le=65536)]  # channels of a layer
Rate = Annotated[float, Field(ge=0, le=10)]  # of learning, or of weight decay
Count = Annotated[int, Field(ge=0, le=10**9)]  # of steps
Mpp = Annotated[float, Field(ge=0.01, le=100)]  # micrometres per pixel
Name = Annotated[str, Field(min_length=1)]
Place = Annotated[Path, BeforeValidator(_expanded)]
# A file, a folder or a name, as `load_encoder` takes it
EncoderName = Annotated[str, BeforeValidator(_expanded), Field(min_length=1)]
