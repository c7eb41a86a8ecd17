"""Seeds of random numbers that every library used here takes."""

from __future__ import annotations

from numbers import Integral

from pathencoder.errors import ConfigError

HIGHEST = 2**32 - 1  # of NumPy's older generator, which scikit-learn uses


def checked_seed(seed: object) -> int:
    """The seed as a Python number, so that it can be recorded.

    Raises:
        ConfigError: It is not a whole number from 0 to 4,294,967,295.
    """
    # NumPy's whole numbers are Integral, too; True and False are taken for a mistake.
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= HIGHEST:
        raise ConfigError(f"seed={seed!r}: a whole number from 0 to {HIGHEST}")
    return int(seed)
