"""Optical density, colour deconvolution of H&E and H-DAB, and a guess of an image's stain.

Optical density (OD) is -log10(I / white): 0 for a clear pixel, 1 for one that transmits a tenth of
the light. The OD of several stains is the sum of theirs (Beer-Lambert law).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, ImageError

Array = NDArray[np.float32]

# Unit-free colour of each stain in OD of red, green, blue: Ruifrok and Johnston, 2001, table 1.
VECTORS: dict[str, tuple[float, float, float]] = {
    "hematoxylin": (0.650, 0.704, 0.286),
    "eosin": (0.072, 0.990, 0.105),
    "dab": (0.268, 0.570, 0.776),
}
HE = ("hematoxylin", "eosin")
H_DAB = ("hematoxylin", "dab")
HED = ("hematoxylin", "eosin", "dab")
TISSUE_OD = 0.15  # mean OD above which a pixel holds stain
_OF_BYTE = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def optical_density(image: NDArray[np.uint8]) -> Array:
    """Optical density of every channel.

    Args:
        image: uint8 [..., 3]; 0 counts as 1, so that OD is finite.

    Returns:
        float32 of the same shape, in 0..2.41.

    Raises:
        ImageError: The image has another dtype or shape.
    """
    if image.dtype != np.uint8 or image.shape[-1:] != (3,):
        raise ImageError(
            f"optical density needs uint8 [..., 3], not {image.dtype} {image.shape}: convert the"
            " image to 8-bit RGB first"
        )
    return _OF_BYTE[image]


def separate(image: NDArray[np.uint8], stains: tuple[str, ...] = HE) -> Array:
    """Colour deconvolution (Ruifrok and Johnston, 2001).

    With two stains the third axis is orthogonal to both, and is dropped.

    Args:
        image: uint8 [..., 3].
        stains: Names in `VECTORS`.

    Returns:
        float32 [..., len(stains)]: the OD of each stain along its vector; may be negative.

    Raises:
        ConfigError: Stains are unknown or repeated.
    """
    return optical_density(image) @ unmixing(stains)


def unmixing(stains: tuple[str, ...]) -> Array:
    """The matrix float32 [3, len(stains)] that maps OD to amounts of stains.

    Raises:
        ConfigError: Stains are unknown or repeated.
    """
    unknown = [s for s in stains if s not in VECTORS]
    if unknown or not 1 <= len(set(stains)) == len(stains) <= 3:
        raise ConfigError(f"stains {stains}: one to three different ones of {tuple(VECTORS)}")
    return unmixing_of(np.array([VECTORS[s] for s in stains], np.float32))


def unmixing_of(vectors: Array) -> Array:
    """The least-squares matrix float32 [3, S] for stain vectors [S, 3] of any norm."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix: Array = np.linalg.pinv(unit).astype(np.float32)
    return matrix


def macenko(image: NDArray[np.uint8], *, angle: float = 1.0, most: int = 100_000) -> Array | None:
    """Estimate the hematoxylin and eosin vectors of an image (Macenko et al., 2009).

    Args:
        image: uint8 [..., 3].
        angle: Percentile of the extreme angles.
        most: About the largest number of evenly spaced pixels that are used.

    Returns:
        float32 [2, 3], hematoxylin first; None where the image does not show two stains.
    """
    pixels = image.reshape(-1, 3)
    od = optical_density(pixels[:: max(1, len(pixels) // most)])
    od = od[(od > TISSUE_OD).all(1)]
    if len(od) < 100:
        return None
    _, axes = np.linalg.eigh(np.cov(od.T.astype(np.float64)))
    plane = axes[:, :0:-1] * np.sign(axes[:, :0:-1].sum(0) + 1e-12)
    phi = np.arctan2(*(od @ plane).T[::-1])
    ends = [plane @ (np.cos(a), np.sin(a)) for a in np.percentile(phi, [angle, 100 - angle])]
    ends.sort(key=lambda v: -v[0] / np.linalg.norm(v))  # hematoxylin absorbs more red light
    found = np.stack(ends).astype(np.float32)
    apart = abs(float(found[0] @ found[1])) < 0.995 * float(
        np.linalg.norm(found[0]) * np.linalg.norm(found[1])
    )
    return found if apart and bool((found > -0.2).all()) else None


def otsu(values: NDArray[np.floating], *, bins: int = 256) -> float:
    """Otsu's threshold (1979): the largest variance between the two sides of the histogram."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    low = np.cumsum(counts)[:-1].astype(float)
    high = counts.sum() - low
    mass = np.cumsum(counts * centres)
    between = (
        low
        * high
        * (mass[:-1] / np.maximum(low, 1) - (mass[-1] - mass[:-1]) / np.maximum(high, 1)) ** 2
    )
    best = np.flatnonzero(between == between.max())
    return float(edges[1 + int(best[len(best) // 2])])


_STAIN_NAMES = {"he": "H&E", "ihc": "IHC"}


@dataclass(frozen=True)
class StainGuess:
    """The probable stain of an image.

    Attributes:
        stain: "he", "ihc" (DAB and hematoxylin), "fluorescence" (bright on dark), "grey" (no
            colour) or "blank" (one uniform tone).
        confidence: Probability (0..1) that `stain` is right.
        decided: False where the colours are ambiguous; `stain` is then the assumed one: "ihc" with
            some brown and H&E unlikely, else "he".
        given: True where the user gave the stain and nothing was guessed.
    """

    stain: str
    confidence: float
    decided: bool = True
    given: bool = False

    @property
    def text(self) -> str:
        """As text: "IHC (98 % sure)", "H&E (as given)", "cannot tell, taken as H&E", "blank"."""
        name = _STAIN_NAMES.get(self.stain, self.stain)
        if self.given or self.stain == "blank":
            return f"{name} (as given)" if self.given else name
        if not self.decided:
            return f"cannot tell, taken as {name}"
        return f"{name} ({min(100 * self.confidence, 99):.0f} % sure)"


# Multinomial logistic regression on `stain_evidence`, in the order he, ihc, neither (special
# stains, cytology, chromogens that are not brown), fitted by
# `python -m training.evaluation.stain_guess` on the tiles of 41 sources; that command prints its
# accuracy with whole sources held out.
_WEIGHTS = np.array(
    [
        [-1.99, 3.41, 5.77, 1.24, -1.48, -0.36, 0.23],
        [3.07, -8.20, -9.04, -1.12, 1.03, -2.57, -1.30],
        [-1.08, 4.79, 3.27, -0.12, 0.45, 2.93, 1.06],
    ],
    np.float32,
)
_BIAS = np.array([-1.37, 0.61, 0.75], np.float32)
_LEAST_BROWN = 0.003  # share of the stained pixels; with less the guess is never IHC
# Where the colours are ambiguous, IHC is assumed from this share of brown and this ratio of
# probabilities: 92 of 508 such IHC tiles and 1 of 320 such H&E tiles of pretrain/manifest.csv.
_SOME_BROWN, _IHC_LIKELIER = 0.0005, 9
_IHC_SURE, _HE_SURE = 0.9, 0.7  # probabilities from which a stain counts as recognised
_HE_MOST = 0.87  # highest confidence of H&E: PAS and some silver stains look the same
_FEWEST = 64  # stained pixels; fewer are ignored
_LEAST_STAINED, _LEAST_FAINT = 0.002, 0.01  # shares of stained and of pale pixels; less is blank
_FAINT_OD, _FAINT_STEP = 0.06, 0.05  # mean OD, and above the background, of pale tissue


def guess_stain(image: NDArray[np.uint8]) -> StainGuess:
    """Guess the stain of an image from its colours.

    The guess is IHC only with the brown of DAB on hematoxylin, and H&E only with pink and violet.
    For everything else (few positive cells or none, special stains, cytology, very pale stains)
    `decided` is False, and the assumed stain is "ihc" with some brown and H&E unlikely, else "he".
    PAS is not distinguished from H&E.

    Args:
        image: uint8 RGB [H, W, 3]; at most about 65,000 of its pixels are used.

    Returns:
        The guess.
    """
    pixels, od = _sample(image)
    level = od.mean(1)
    low, middle, high = np.percentile(level, [0.5, 50, 99.9])
    faint = level > max(_FAINT_OD, low + _FAINT_STEP)
    stained = (level > TISSUE_OD).mean()
    if high - low < 0.03 or (stained < _LEAST_STAINED and faint.mean() < _LEAST_FAINT):
        return StainGuess("blank", 1.0)
    if middle > 0.8:
        return StainGuess("fluorescence", float(np.clip(middle - 0.3, 0.5, 1)))
    tissue = faint if faint.any() else level > TISSUE_OD
    spread = float(np.percentile(np.ptp(pixels[tissue].astype(np.int16), axis=1), 90))
    if spread < 12:
        return StainGuess("grey", 1 - spread / 24)
    shares = _shares(od)
    return StainGuess("he", 0.5, decided=False) if shares is None else guess_of_shares(shares)


def guess_of_shares(shares: Array, weights: Array = _WEIGHTS, bias: Array = _BIAS) -> StainGuess:
    """The guess from `colour_shares` [6], by weights [3, 7] and bias [3] of a regression."""
    scores = weights @ stain_evidence(shares) + bias
    he, ihc, _ = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    if ihc > _IHC_SURE and shares[0] > _LEAST_BROWN:
        return StainGuess("ihc", float(ihc))
    if he <= _HE_SURE and ihc > _IHC_LIKELIER * he and shares[0] > _SOME_BROWN:
        return StainGuess("ihc", float(ihc), decided=False)
    return StainGuess("he", min(float(he), _HE_MOST), decided=bool(he > _HE_SURE))


def colour_shares(image: NDArray[np.uint8]) -> Array | None:
    """Shares of colours among the stained pixels of an image, by hue and chroma in OD.

    Hue is the angle of ((r - m) / m, (g - b) / (sqrt(3) m)) with m the mean of r, g, b: eosin is
    at 122 degrees, hematoxylin from 30 to 70, DAB at 204 with a chroma of 0.55.

    Args:
        image: uint8 RGB [H, W, 3].

    Returns:
        float32 [6], shares of all stained pixels (0..1): brown as DAB, more saturated yellow and
        red, pink, violet, blue, green. None where almost nothing is stained.
    """
    return _shares(_sample(image)[1])


def _sample(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Array]:
    """About 65,000 evenly spaced pixels [N, 3], and their OD."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / 65_536)))
    pixels = image[::step, ::step].reshape(-1, 3)
    return pixels, optical_density(pixels)


def _shares(od: Array) -> Array | None:
    mean = od.mean(1)
    stained = mean > TISSUE_OD
    if stained.sum() < max(_FEWEST, _LEAST_STAINED * len(mean)):
        return None
    od, mean = od[stained], mean[stained]
    x, y = od[:, 0] / mean - 1, (od[:, 1] - od[:, 2]) / (np.sqrt(3) * mean)
    hue, chroma = np.degrees(np.arctan2(y, x)) % 360, np.hypot(x, y)
    colour = chroma >= 0.15
    masks = (
        (hue >= 190) & (hue < 230) & colour & (chroma < 0.57) & (mean > 0.2),
        (hue >= 165) & (hue < 260) & (chroma >= 0.57),
        (hue >= 90) & (hue < 190) & colour,
        (hue >= 55) & (hue < 90) & colour,
        (hue < 55) & colour,
        (hue >= 260) & colour,
    )
    return np.array([mask.mean() for mask in masks], np.float32)


def stain_evidence(shares: Array) -> Array:
    """The inputs [..., 7] of the regression from `colour_shares` [..., 6].

    They include the logarithm of the share of brown and its ratio to pink: collagen and red blood
    cells in H&E are partly brown, but mostly pink.
    """
    brown, strong, pink, *others = np.moveaxis(shares, -1, 0)
    roots = (np.sqrt(strong), np.sqrt(pink))
    ratio = np.log10((brown + 0.01) / (pink + 0.01))
    found: Array = np.stack([np.log10(brown + 1e-3) + 3, *roots, *others, ratio], -1)
    return found
