"""Errors: subclasses of PathEncoderError and of the fitting builtin, with their text."""

import inspect

import pytest

import pathencoder
from pathencoder import errors

FAMILY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]
BUILTINS = {
    "UnknownEncoder": LookupError,
    "GatedEncoder": PermissionError,
    "OfflineError": FileNotFoundError,
    "ChecksumError": ValueError,
    "UnsafeWeights": ValueError,
    "IncompatibleWeights": ValueError,
    "ImageError": ValueError,
    "SlideError": OSError,
    "MissingMpp": ValueError,
    "StoreError": OSError,
    "HeadMismatch": ValueError,
    "ConfigError": ValueError,
    "MissingExtra": ImportError,
}


def test_one_family():
    assert {kind.__name__ for kind in FAMILY} == {"PathEncoderError", *BUILTINS}
    assert all(issubclass(kind, pathencoder.PathEncoderError) for kind in FAMILY)
    assert all(kind.__doc__ for kind in FAMILY)


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_caught_as_the_builtin_and_says_its_text(name, builtin):
    error = getattr(errors, name)("what happened, to what, what to do")
    assert isinstance(error, builtin)
    assert str(error) == "what happened, to what, what to do"


def test_a_missing_extra_names_its_command():
    assert "pip install 'pathencoder[wsi]'" in str(errors.MissingExtra.of("wsi", "reading .svs"))
