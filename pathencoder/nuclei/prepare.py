"""An image at the working scale, with its stain and its thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pathencoder import stain as stains
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, ImageError
from pathencoder.nuclei import instances
from pathencoder.nuclei.maps import WORKING_MPP, Calibration, calibrate
from pathencoder.nuclei.scale import ASSUMED_MPP, COARSEST, FINEST, Score, guess_mpp
from pathencoder.nuclei.scores import mean_stain
from pathencoder.stain import StainGuess

STRIP = 2048  # working rows resampled, or fine rows renumbered, at a time
_GUESSED_FROM = 1200  # px: side of the centre of an image that its scale is estimated from
_STAINS = ("he", "ihc")
_CALIBRATED = 256  # working px: side of the blocks that a slide is calibrated on
NUCLEUS, _COARSE_FROM = 7.0, 1.0  # um: width of a usual nucleus; um/px from which it is too small

_IN_CELLS = (
    "DAB fills cells or membranes, not nuclei alone: nuclei are found by hematoxylin, and positive"
    " ones lie in stained cells"
)
_NO_SCALE = (
    "micrometres per pixel unknown: {} assumed, {}; sizes depend on it, so give it where it is"
    " known"
)
_COARSE = "{:g} um/px is too coarse: a nucleus is {:.0f} px across, and clumps are counted"
_UNIFORM = "every pixel has the same colour, as in a region outside the slide"
_UNDECIDED = (
    "stain: cannot tell, taken as H&E (no brown of DAB, or not the pink and violet of H&E); give"
    " stain ihc if it is DAB and hematoxylin"
)
_UNDECIDED_IHC = (
    "stain: cannot tell, taken as DAB and hematoxylin (some brown, and little pink and violet of"
    " H&E); give stain he if it is H&E"
)


@dataclass(frozen=True)
class Prepared:
    """An image at the working scale, with its stain and thresholds.

    Attributes:
        image: uint8 RGB [H, W, 3].
        working: uint8 RGB [h, w, 3], at 0.5 um per pixel.
        stain: As given or guessed.
        calibration: The thresholds; None for a blank image.
        mpp: Micrometres per pixel of `image`, as given or assumed.
        notes: What was assumed, in sentences.
    """

    image: Pixels
    working: Pixels
    stain: StainGuess
    calibration: Calibration | None
    mpp: float
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class SlideStain:
    """The stain and thresholds that all regions of a slide share.

    Attributes:
        stain: As given or guessed.
        calibration: The thresholds; None if there is nothing but glass.
    """

    stain: StainGuess
    calibration: Calibration | None


def calibrate_slide(
    fields: Iterable[Pixels], *, mpp: float, stain: str | None = None
) -> SlideStain:
    """Measure the stain and thresholds of a slide on some of its fields.

    Args:
        fields: uint8 RGB [H, W, 3] each, with tissue, from all parts of the slide; a few suffice.
        mpp: Their micrometres per pixel.
        stain: "he" or "ihc". None: guessed from all fields together.

    Returns:
        The argument `slide` of `segment_nuclei`.

    Raises:
        ConfigError: There are no fields, or a setting is invalid.
        ImageError: They are fluorescence.
    """
    check_settings(mpp, stain)
    blocks = [b for f in fields for b in _blocks(to_working(f, mpp))]
    if not blocks:
        raise ConfigError("a slide is calibrated on at least one field")
    prepared = prepare(np.concatenate(blocks), mpp=WORKING_MPP, stain=stain)
    return SlideStain(prepared.stain, prepared.calibration)


def _blocks(image: Pixels) -> list[Pixels]:
    """The image in blocks of 256 px, mirrored at its end."""
    missing = [(0, -n % _CALIBRATED) for n in image.shape[:2]]
    whole = np.pad(image, [*missing, (0, 0)], mode="symmetric")
    rows, columns = (n // _CALIBRATED for n in whole.shape[:2])
    parts = whole.reshape(rows, _CALIBRATED, columns, _CALIBRATED, 3).swapaxes(1, 2)
    return list(parts.reshape(-1, _CALIBRATED, _CALIBRATED, 3))


def prepare(
    image: Pixels,
    *,
    mpp: float | None = None,
    stain: str | None = None,
    slide: SlideStain | None = None,
) -> Prepared:
    """Resample an image to the working scale and measure its thresholds.

    Args:
        image: uint8 RGB [H, W, 3].
        mpp: As for `segment_nuclei`.
        stain: As for `segment_nuclei`.
        slide: As for `segment_nuclei`.

    Returns:
        The image with its stain and thresholds.

    Raises:
        ConfigError: `mpp` or `stain` is invalid.
        ImageError: It is fluorescence.
    """
    check_settings(mpp, stain)
    guess = stains.guess_stain(image)
    if guess.stain == "fluorescence":
        raise ImageError(
            "this looks like fluorescence (bright on dark), not bright field: invert it first, or"
            " use a tool for fluorescence"
        )
    taken = StainGuess(stain, 1.0, given=True) if stain and guess.stain != "blank" else guess
    if slide and guess.stain != "blank":
        guess = taken = slide.stain
    scale = mpp or _mpp_of([(image, taken)])
    notes = (
        []
        if mpp
        else [
            _NO_SCALE.format(
                scale, "the usual" if scale == ASSUMED_MPP else "by the size of the nuclei"
            )
        ]
    )
    notes += _stain_notes(image, guess, taken)
    working = to_working(image, scale)
    calibration = None if guess.stain == "blank" else _calibration(working, taken, slide)
    notes += [_COARSE.format(scale, NUCLEUS / scale)] if scale > _COARSE_FROM else []
    notes += [_IN_CELLS] if calibration and calibration.within else []
    return Prepared(image, working, taken, calibration, scale, tuple(notes))


def _calibration(working: Pixels, taken: StainGuess, slide: SlideStain | None) -> Calibration:
    whole = slide.calibration if slide else None
    return whole or calibrate(working, _vectors(taken))


def check_settings(mpp: object, stain: object) -> None:
    """Raises ConfigError for an invalid scale or stain."""
    if mpp is not None:
        number = isinstance(mpp, (int, float, np.integer, np.floating)) and not isinstance(
            mpp, bool
        )
        if not number or not FINEST <= float(mpp) <= COARSEST:  # type: ignore[arg-type]
            raise ConfigError(
                f"mpp {mpp!r}: give the micrometres per pixel as a number between {FINEST:g} and"
                f" {COARSEST:g}"
            )
    if stain is not None and stain not in _STAINS:
        raise ConfigError(
            f"stain {stain!r}: one of {', '.join(_STAINS)}, or none to have it guessed"
        )


def _stain_notes(image: Pixels, guess: StainGuess, taken: StainGuess) -> list[str]:
    """Notes on the stain."""
    if guess.stain == "blank":
        uniform = (image == image[0, 0]).all()
        return ["no tissue found", *([_UNIFORM] if uniform else [])]
    if guess.stain == "grey":
        return ["the image has no colour: stains cannot be distinguished, only darkness is used"]
    if not taken.decided:
        return [_UNDECIDED_IHC if taken.stain == "ihc" else _UNDECIDED]
    if taken.given and guess.decided and guess.stain != taken.stain:
        return [f"its colours look like {guess.text}"]
    return []


def _vectors(guess: StainGuess) -> str:
    """The stains to separate: "ihc", or "he" for all else."""
    return "ihc" if guess.stain == "ihc" else "he"


def common_mpp(images: Iterable[tuple[Pixels, str | None]]) -> float:
    """One scale for images of the same origin, from the nuclei in all of them together.

    Args:
        images: uint8 RGB [H, W, 3] each, whose scale is unknown but the same; and the stain of
            each, "he" or "ihc". None: guessed.

    Returns:
        Micrometres per pixel: 0.25, or another scale where the nuclei are far too large or small
        for it.
    """
    return _mpp_of(
        [(i, StainGuess(s, 1.0, given=True) if s else stains.guess_stain(i)) for i, s in images]
    )


def _mpp_of(images: Iterable[tuple[Pixels, StainGuess]]) -> float:
    """Micrometres per pixel by the size of the nuclei in the centre of images.

    0.25 if that is no evidence. With DAB it never is: DAB may fill cells or their membranes, and
    nuclei then merge.
    """
    scores = [_score_of(i, g) for i, g in images if g.stain in ("he", "grey")]
    return (guess_mpp(scores) if scores else None) or ASSUMED_MPP


def _score_of(image: Pixels, guess: StainGuess) -> Score:
    y, x = (max(0, (n - _GUESSED_FROM) // 2) for n in image.shape[:2])
    middle = image[y : y + _GUESSED_FROM, x : x + _GUESSED_FROM].copy()

    def score(mpp: float) -> instances.Scores:
        working = to_working(middle, mpp)
        return mean_stain(calibrate(working, _vectors(guess)).maps(working))

    return score


def to_working(image: Pixels, mpp: float) -> Pixels:
    """Resample an image to 0.5 um per pixel, one strip at a time.

    Args:
        image: uint8 RGB [H, W, 3].
        mpp: Its micrometres per pixel.

    Returns:
        uint8 RGB [h, w, 3]; by area means when shrinking, bilinear when enlarging.
    """
    factor = mpp / WORKING_MPP
    height, width = (max(1, round(n * factor)) for n in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP):
        out[top : top + STRIP] = _resample(image, (top, min(top + STRIP, height)), out.shape)
    return out


def _resample(image: Pixels, rows: tuple[int, int], shape: tuple[int, ...]) -> Pixels:
    """These rows of the image resampled to `shape`.

    A margin of the source around them is used, so that strips join without a seam.
    """
    how = Image.Resampling.BOX if shape[0] < len(image) else Image.Resampling.BILINEAR
    low, high = (r * len(image) / shape[0] for r in rows)
    first, last = max(0, int(low) - 32), min(len(image), int(high) + 33)
    box = (0.0, low - first, float(image.shape[1]), high - first)
    return np.asarray(
        Image.fromarray(image[first:last]).resize((shape[1], rows[1] - rows[0]), how, box)
    )
