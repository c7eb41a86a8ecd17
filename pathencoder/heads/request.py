"""The arguments of `pathencoder.fit`, for every family of heads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from pathencoder.errors import ConfigError
from pathencoder.heads.data.read import Data, Groups, Labels
from pathencoder.seeds import checked_seed
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.heads.data.pictures import PictureSet

AnyData: TypeAlias = "Data | PictureSet"
# of a dense head: stored number or name of a class to its name, None for what is not learned
AnyLabels: TypeAlias = "Labels | Mapping[int, str | None] | Mapping[str, str | None]"
ClassWeight: TypeAlias = "Mapping[str, float] | Literal['balanced'] | None"
OnBad: TypeAlias = Literal["raise", "skip"]
# a bar, or a function that is called with the steps that are done and their number
FitProgress: TypeAlias = "Progress | Callable[[int, int], None]"


@dataclass(frozen=True)
class Request:
    """What `pathencoder.fit` was called with; see there for each argument."""

    kind: str
    encoder: Encoder | str | os.PathLike[str] | None
    data: AnyData
    labels: AnyLabels = None
    groups: Groups = None
    splits: Labels = None
    mpp: float | None = None
    output: str = "embedding"
    views: int = 1
    evaluate: str | None = None
    class_weight: ClassWeight = "balanced"
    calibrate: bool = True
    max_error: float | None = None
    on_error: OnBad = "raise"
    seed: int = 0
    cache: bool = True
    progress: FitProgress = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError for a seed that NumPy or scikit-learn does not take."""
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def refuse(self, *names: str) -> None:
        """Refuse arguments that heads of this kind do not take.

        Raises:
            ConfigError: One of them has another value than the default.
        """
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        for name in names:
            if (value := getattr(self, name)) != defaults[name]:
                raise ConfigError(
                    f"{name}={value!r}: the head {self.kind!r} does not take it. Leave it out"
                )


class Arguments(TypedDict, total=False):
    """Keyword arguments of `pathencoder.fit` for every kind of head, for type checkers."""

    groups: Groups
    splits: Labels
    mpp: float | None
    evaluate: str | None
    seed: int


class ClassifierArguments(Arguments, total=False):
    """Those of classifiers."""

    labels: Labels
    output: str
    views: int
    class_weight: ClassWeight
    calibrate: bool
    max_error: float | None
    on_error: OnBad
    cache: bool
    progress: Progress
    c: float
    hidden: int
    dropout: float
    learning_rate: float
    epochs: int
    k: int
    shots: int


class DenseArguments(Arguments, total=False):
    """Those of dense heads: "glands", "nuclei", "points" and "pixels"."""

    labels: AnyLabels
    progress: FitProgress
    stain: str
    steps: int
    batch: int
    side: int
    lr: float
    encoder_lr: float
    frozen: bool
    read_mpp: float | None
    stain_maps: bool
    cells: bool
    views: int
    folds: int
    checkpoint: str | os.PathLike[str] | None


class SlideArguments(TypedDict, total=False):
    """Keyword arguments of `pathencoder.fit` for heads of slides."""

    features: str | os.PathLike[str]
    labels: str | None
    groups: str | None
    splits: str | None
    evaluate: str | None
    seed: int
    output: str
    class_weight: ClassWeight
    calibrate: bool
    max_error: float | None
    on_error: OnBad
    progress: Progress
    bag: Literal["slide", "patient"]
    hidden: int
    attention: int
    dropout: float
    learning_rate: float
    tiles: int
    seeds: int
    epochs: int | None
    device: str
