"""The errors that this package raises. Each message says what happened, to what, and what to do.

| error | also a | raised for |
|---|---|---|
| `UnknownEncoder` | `LookupError` | a name that no encoder has |
| `GatedEncoder` | `PermissionError` | a repository that requires an accepted licence or a token |
| `OfflineError` | `FileNotFoundError` | a file that is not on this machine, without a network |
| `ChecksumError` | `ValueError` | a file that is not the one its publisher released |
| `UnsafeWeights` | `ValueError` | weights that would run code when read |
| `IncompatibleWeights` | `ValueError` | weights whose keys or shapes do not fit the network |
| `ImageError` | `ValueError` | an input that is not an image, or not a supported one |
| `SlideError` | `OSError` | a slide that cannot be opened or read |
| `MissingMpp` | `SlideError`, `ValueError` | a slide without micrometres per pixel |
| `StoreError` | `OSError` | an output that cannot be written, or that another program wrote |
| `HeadMismatch` | `ValueError` | a head that was fitted on another encoder |
| `ConfigError` | `ValueError` | a setting that is unknown or does not fit |
| `MissingExtra` | `ImportError` | an optional dependency that is not installed |

All are subclasses of `PathEncoderError`.
"""

from pathencoder.redact import hide_secrets


class PathEncoderError(Exception):
    """Base class of every error that this package raises."""

    def __str__(self) -> str:
        """The message, without the secrets of URLs in it."""
        return hide_secrets(super().__str__())


class UnknownEncoder(PathEncoderError, LookupError):
    """No bundled encoder, folder, catalogue row or repository has that name."""


class GatedEncoder(PathEncoderError, PermissionError):
    """The repository exists but requires an accepted licence, or a token."""


class OfflineError(PathEncoderError, FileNotFoundError):
    """A file is not on this machine, and the network is disabled or does not answer."""


class ChecksumError(PathEncoderError, ValueError):
    """A file's sha256 is not the recorded one."""


class UnsafeWeights(PathEncoderError, ValueError):
    """A weights file that would run code when read (a pickle with more than tensors)."""


class IncompatibleWeights(PathEncoderError, ValueError):
    """Weights whose keys or shapes do not fit the network."""


class ImageError(PathEncoderError, ValueError):
    """An input that is not an image, or not in one of the forms that `encode` accepts."""


class SlideError(PathEncoderError, OSError):
    """A slide that cannot be opened or read."""


class MissingMpp(SlideError, ValueError):
    """A slide that does not state its micrometres per pixel, or states an implausible value."""


class StoreError(PathEncoderError, OSError):
    """An output that cannot be written, or a feature file that another program wrote."""


class HeadMismatch(PathEncoderError, ValueError):
    """A head is used with embeddings of an encoder that it was not fitted on."""


class ConfigError(PathEncoderError, ValueError):
    """A setting that is unknown, out of range, or contradicts another."""


class MissingExtra(PathEncoderError, ImportError):
    """An optional dependency is needed here and is not installed."""

    @classmethod
    def of(cls, extra: str, purpose: str) -> "MissingExtra":
        """The error for a missing extra, with the command that installs it.

        Args:
            extra: Name of the extra.
            purpose: What needs it; the subject of the sentence.
        """
        return cls(f"{purpose} needs an optional dependency: pip install 'pathencoder[{extra}]'")
