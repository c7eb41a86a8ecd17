"""Every error a user can meet. Each message says what happened, to what, and what to do next.

PathEncoderError
├── UnknownEncoder       (LookupError)        no encoder of that name
├── GatedEncoder         (PermissionError)    the repository wants a licence accepted or a token
├── OfflineError         (FileNotFoundError)  a file is not on this machine and the network is off
or away ├── ChecksumError        (ValueError)         a file is not the one its publisher released
├── UnsafeWeights        (ValueError)         weights that would run code when read ├──
IncompatibleWeights  (ValueError)         weights whose keys or shapes do not fit the network ├──
ImageError           (ValueError)         an input that is no image, or not one we can take ├──
SlideError           (OSError)            a slide that cannot be opened or read │   └── MissingMpp
(+ ValueError)       a slide that does not say its micrometres per pixel ├── StoreError
(OSError)            an output that cannot be written, or was written by something else ├──
HeadMismatch         (ValueError)         a head fitted on another encoder ├── ConfigError
(ValueError)         a setting that is unknown or does not fit └── MissingExtra
(ImportError)        an optional dependency is not installed
"""


class PathEncoderError(Exception):
    """Base of every error that this package raises on purpose."""


class UnknownEncoder(PathEncoderError, LookupError):
    """No bundled encoder, folder, catalogue row or repository has that name."""


class GatedEncoder(PathEncoderError, PermissionError):
    """The repository exists but asks for an accepted licence, or for a token."""


class OfflineError(PathEncoderError, FileNotFoundError):
    """A file is not on this machine, and the network is switched off or does not answer."""


class ChecksumError(PathEncoderError, ValueError):
    """A file's sha256 is not the one on record."""


class UnsafeWeights(PathEncoderError, ValueError):
    """A weights file that would run code when read (a pickle with more than tensors)."""


class IncompatibleWeights(PathEncoderError, ValueError):
    """Weights whose keys or shapes do not fit the network they are meant for."""


class ImageError(PathEncoderError, ValueError):
    """An input that is not an image, or not one of the forms that `encode` takes."""


class SlideError(PathEncoderError, OSError):
    """A slide that cannot be opened or read."""


class MissingMpp(SlideError, ValueError):
    """A slide that does not say its micrometres per pixel, or says something absurd."""


class StoreError(PathEncoderError, OSError):
    """An output that cannot be written, or a feature file that something else wrote."""


class HeadMismatch(PathEncoderError, ValueError):
    """A head meets embeddings of an encoder that it was not fitted on."""


class ConfigError(PathEncoderError, ValueError):
    """A setting that is unknown, out of range, or contradicts another."""


class MissingExtra(PathEncoderError, ImportError):
    """An optional dependency is needed here and is not installed."""

    @classmethod
    def of(cls, extra: str, purpose: str) -> "MissingExtra":
        """The error for one of our extras: what needs it, and the command that installs it."""
        return cls(f"{purpose} needs an optional dependency: pip install 'pathencoder[{extra}]'")
