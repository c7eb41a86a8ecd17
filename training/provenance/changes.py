"""Whether a run resumes on the tiles that it started with."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

from pathencoder.errors import ConfigError
from training.provenance.record import CorpusRecord, Provenance

log = logging.getLogger("training")


def resumed(checkpoint: Path, now: Provenance, *, allowed: bool) -> Provenance:
    """The record of a run that resumes, with the tiles that it was trained on before.

    Args:
        checkpoint: That it resumes from.
        now: The record of the resumed run.
        allowed: Whether the tiles may have changed (`run.accept_changed_tiles`).

    Returns:
        `now`, completed.

    Raises:
        ConfigError: The tiles are others than those of the checkpoint and that is not allowed.
    """
    about = json.loads((checkpoint / "run.json").read_text())
    if "provenance" not in about:
        log.warning(
            "%s does not say which tiles it was trained on: whether they are the same is not known",
            checkpoint,
        )
        return now
    before = Provenance.from_json(about["provenance"])
    for step, corpus in before.earlier:
        now = now.after(step, corpus)
    continued = now.continued or before.continued
    now = dataclasses.replace(now, continued=continued, changed=before.changed)
    if before.corpus.digest == now.corpus.digest:
        if before.corpus.content is None:
            log.info("%s names its tiles, not their content: only names were compared", checkpoint)
            return now
        if before.corpus.content == now.corpus.content:
            return now
    counts = _difference(before.corpus, now.corpus, about["step"])
    if not allowed:
        raise ConfigError(
            f"the tiles of data.root are not those of {checkpoint}: {counts}. Restore them, give"
            " another out=, or go on with the new ones by run.accept_changed_tiles=true, which is"
            " recorded"
        )
    log.warning("the tiles have changed (%s), which run.accept_changed_tiles allows", counts)
    return now.after(int(about["step"]), before.corpus)


def _difference(before: CorpusRecord, now: CorpusRecord, step: int) -> str:
    if before.digest == now.digest:
        return (
            f"{now.tiles:,} tiles of the same names, but some are other images than at step {step}"
        )
    return (
        f"{before.tiles:,} tiles of {before.slides:,} slides at step {step}, now {now.tiles:,} of"
        f" {now.slides:,}"
    )
