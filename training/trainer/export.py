"""What a run has trained, as a folder that `load_encoder` reads.

It holds the config, the weights in fp16, a reference tile, and what the run was made from. A method
with its own network writes its folder itself; the record is the same.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pathencoder.spec import STAINS
from training import distributed
from training.backbones import make
from training.backbones.save import write_encoder
from training.config import Config, ExportSettings
from training.data.contents import Scale
from training.files import write_text
from training.methods import Method
from training.provenance.record import Provenance
from training.trainer import parallel

log = logging.getLogger("training")

RECORD = "provenance.json"
STOPPED = "stopped at"  # in the description of a run that did not do all of its steps


def export_method(
    cfg: Config,
    method: Method,
    made_from: Provenance,
    folder: Path,
    *,
    step: int,
    start: Callable[[], nn.Module],
) -> Path:
    """Export what a method trains; all processes must call it together, the first one writes.

    Args:
        cfg: Of the run.
        method: The method; its weights may be sharded.
        made_from: The record of the run.
        folder: Where to write.
        step: Steps that are done.
        start: Makes the backbone with its starting weights, for `export.start_share`.

    Returns:
        The folder.
    """
    if cfg.method.own_network:
        if distributed.rank() == 0:
            method.export(folder, _described(cfg, made_from, [step]))
            write_text(folder / RECORD, json.dumps(made_from.to_json(), indent=1))
        return folder
    network = exported_network(cfg, method, start)
    if network is None:
        return folder
    return export(cfg, network, made_from, folder, steps=[step])


def exported_network(
    cfg: Config, method: Method, start: Callable[[], nn.Module]
) -> nn.Module | None:
    """The network that a method exports, in its own precision; arguments as in `export_method`.

    Returns:
        The network; None in all processes but the first.
    """
    weights = parallel.full_state(method.encoder())
    if distributed.rank() != 0:
        return None
    network = make.make_backbone(cfg.backbone.model_copy(update={"start": None}))
    network.load_state_dict(weights)
    if share := cfg.export.start_share:
        network = make.averaged(network, start(), share)
    return network


def export(
    cfg: Config, network: nn.Module, made_from: Provenance, folder: Path, *, steps: Sequence[int]
) -> Path:
    """Write a network as an encoder; the reference embedding is computed from the fp16 weights.

    Args:
        cfg: Of the run.
        network: The trained backbone.
        made_from: The record of the run: it decides licence, stains and scale.
        folder: Where to write.
        steps: Those of the run; of each run where the network is an average of several.

    Returns:
        The folder.
    """
    spec = make.spec_of(cfg.backbone, cfg.export)
    write_encoder(network, dataclasses.replace(spec, **_described(cfg, made_from, steps)), folder)
    write_text(folder / RECORD, json.dumps(made_from.to_json(), indent=1))
    return folder


def _described(cfg: Config, made_from: Provenance, steps: Sequence[int]) -> dict[str, Any]:
    """The fields of an encoder's description that follow from the record."""
    return {**_what_was_done(cfg, made_from, steps), **_tiles(cfg.export, made_from)}


def _what_was_done(cfg: Config, made_from: Provenance, steps: Sequence[int]) -> dict[str, Any]:
    start, corpus, share = made_from.start, made_from.corpus, cfg.export.start_share
    stains = ", ".join(f"{n.tiles} {name}" for name, n in corpus.contents.stains.items())
    licences = ", ".join(f"{n.tiles} {name}" for name, n in corpus.contents.licences.items())
    stated = f" (as stated by the user: {made_from.stated})" if made_from.stated else ""
    training = (
        f"{cfg.method.name}{_taught_by(made_from)} from {start.name if start else 'random weights'}"
        f", {_length(steps, cfg.optim.steps)} steps of {cfg.data.batch} tiles;"
        f" {corpus.tiles} tiles of {corpus.slides} slides ({stains}; licences: {licences}{stated})"
        + ("; earlier steps on other tiles" if made_from.earlier else "")
        + (f"; averaged with the starting weights ({share:g} of them)" if share else "")
    )
    base = start or made_from.continued
    return {
        "training": training,
        "licence": made_from.licence,
        "commercial": made_from.commercial,
        "base_model": f"{base.name}, sha256 {base.sha256}" if base else None,
        "verified": False,
    }


def _tiles(settings: ExportSettings, made_from: Provenance) -> dict[str, Any]:
    """Stains and scale: as the table of the tiles states them, else as the settings do."""
    contents = made_from.corpus.contents
    stains = tuple(name for name in STAINS if name in contents.stains) or settings.stains
    scale, asked = _trained_at(made_from), settings.mpp
    if scale is None:
        return {"stains": stains, "mpp": asked}
    if asked is not None and not scale.low <= asked <= scale.high:
        log.warning(
            "export.mpp=%g: the run has seen %g to %g um/px (median %g), which the export will say",
            asked,
            scale.low,
            scale.high,
            scale.median,
        )
        asked = None
    narrow = scale.high <= 1.25 * scale.low
    return {
        "stains": stains,
        "mpp": asked or (scale.median if narrow else None),
        "mpp_range": (scale.low, scale.high),
    }


def _trained_at(made_from: Provenance) -> Scale | None:
    """The scale of the pictures that crops were cut from; None where no table states any.

    With data.mpp, all tiles of a stated scale were brought to that one.
    """
    stated, mpp = made_from.corpus.contents.scale, made_from.canvas_mpp
    if stated is None or mpp is None:
        return stated
    return Scale(stated.tiles, mpp, mpp, mpp)


def _taught_by(made_from: Provenance) -> str:
    names = [teacher.name for teacher in made_from.teachers]
    return f" of {', '.join(names)}" if names else ""


def _length(steps: Sequence[int], planned: int) -> str:
    lengths = " or ".join(str(n) for n in sorted(set(steps)))
    if max(steps) < planned:
        lengths = f"{STOPPED} {lengths} of {planned}"
    return lengths if len(steps) == 1 else f"average of {len(steps)} runs of {lengths}"
