"""Warnings and log records as plain lines on standard error."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import click


@contextlib.contextmanager
def plain_messages() -> Iterator[None]:
    """Print warnings and log records on standard error without file names and line numbers."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        click.echo(f"note: {message}", err=True)

    handler = logging.StreamHandler()
    logger = logging.getLogger("pathencoder")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            # catch_warnings restores the old one
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        logger.removeHandler(handler)
