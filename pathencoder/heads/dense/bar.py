"""The progress of a fit: a bar with the time left, or a function of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from pathencoder.errors import ConfigError
from pathencoder.heads.request import FitProgress

Tick = Callable[[int, float | None], None]  # steps that are done, and the last loss


@contextmanager
def watching(total: int, progress: FitProgress) -> Iterator[Tick]:
    """Show the steps of a fit.

    Args:
        total: Steps of all fits together.
        progress: "auto" (a bar on a terminal), True or False, or a function of the steps that are
            done and their number.

    Yields:
        What is called with the steps that are done, and the loss.

    Raises:
        ConfigError: `progress` is something else.
    """
    if callable(progress):
        yield lambda done, _: progress(done, total)
        return
    if not isinstance(progress, bool) and progress != "auto":
        raise ConfigError(f"progress={progress!r}: 'auto', True, False or a function")
    hidden = None if progress == "auto" else not progress
    with tqdm(total=total, desc="fit", unit="step", disable=hidden) as bar:

        def tick(done: int, loss: float | None) -> None:
            if loss is not None:
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        yield tick
