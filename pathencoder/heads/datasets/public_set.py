"""What is known of a public data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathencoder.heads.data.dataset import Dataset
    from pathencoder.heads.data.pictures import PictureSet

Counts: TypeAlias = Mapping[str, Mapping[str, int]]  # part -> what is counted -> how many


@dataclass(frozen=True)
class Contents:
    """What a reader found in a folder.

    Attributes:
        data: The images and their labels.
        found: How many of each class, or of images and objects, each part holds.
        published: The same as its authors state it; {} where they do not.
    """

    data: Dataset | PictureSet
    found: Counts
    published: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        name: What `pathencoder.open_dataset` calls it.
        title: What its authors call it.
        task: "classify" (one class an image), "segment" (outlines) or "detect" (points).
        classes: The labels, each with its meaning.
        size: How many images, and of which size.
        layout: The files that the folder holds, one line each.
        marks: Patterns of paths below the folder, any of which is there in every copy.
        parts: Its parts, and which names they have here.
        groups: Which images are known to be of one patient, and by what.
        licence: Its licence, or its terms of use.
        commercial: Whether they allow commercial use.
        homepage: Where it is described and downloaded.
        citation: The publication that its authors ask to cite.
        mpp: Micrometres per pixel as published. None: several, or not stated.
        stain: As in `EncoderSpec.stains`.
        read: Reads the folder that holds the marks; its keyword-only arguments are the options.
        options: The options, each with its meaning.
        notes: What a reader of a figure on this set should know.
    """

    name: str
    title: str
    task: str
    classes: Mapping[str, str]
    size: str
    layout: tuple[str, ...]
    marks: tuple[str, ...]
    parts: str
    groups: str
    licence: str
    commercial: bool
    homepage: str
    citation: str
    mpp: float | None
    stain: str
    read: Callable[..., Contents]
    options: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def terms(self) -> str:
        """Licence and commercial use in one line."""
        allowed = "commercial use is allowed" if self.commercial else "no commercial use"
        return f"{self.title}: {self.licence}; {allowed}"


def option(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """A value of an option, which may have come as text.

    Args:
        name: Of the option.
        value: The value.
        allowed: The values that it may have.

    Returns:
        The allowed value that it means.

    Raises:
        ConfigError: It is none of them.
    """
    from pathencoder.errors import ConfigError

    for one in allowed:
        if value is one or (type(value) is type(one) and value == one) or str(value) == str(one):
            return one
    shown = ", ".join(map(repr, allowed))
    raise ConfigError(f"{name}={value!r}: one of {shown}")
