"""`pathencoder info`: all facts about one encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import debug_option, echo_json, json_option, spec_of
from pathencoder.cli.list_ import scale, size
from pathencoder.pooling import stage_rule

if TYPE_CHECKING:
    from pathencoder.pretrained.listed import ListedEncoder
    from pathencoder.spec import EncoderSpec

_READOUTS = {
    "cls": "the class token",
    "mean": "the mean over the patch tokens",
    "cls_mean": "the class token and the mean over the patch tokens, joined",
    "pool": "the network's own pooled output",
    "head": "the network's own pooled output through its projection",
}
_STAINS = {
    "he": "H&E",
    "ihc": "immunohistochemistry",
    "special": "special stains",
    "cytology": "cytology",
}
_WIDTH = 15


@click.command(short_help="Show one encoder.")
@click.argument("name", required=False)
@click.option("--revision", default=None, help="Revision on the Hub.")
@json_option
@debug_option
def command(*, name: str | None, revision: str | None, as_json: bool) -> None:
    """Show all facts about an encoder: NAME, a folder or owner/repo.

    Without a name, the default encoder.

    \b
    pathencoder info
    pathencoder info uni2-h
    """
    from pathencoder.pretrained import catalogue, listed

    other = listed.find(name) if name else None
    if other is not None:
        facts = {**dataclasses.asdict(other), "loads": False}
        echo_json(facts) if as_json else click.echo(_describe_listed(other))
        return
    spec = spec_of(name, revision)
    if as_json:
        bundled = spec.name in catalogue.bundled()
        echo_json({**dataclasses.asdict(spec), "loads": True, "bundled": bundled})
        return
    click.echo(describe(spec, bundled=spec.name in catalogue.bundled()))


def describe(spec: EncoderSpec, *, bundled: bool) -> str:
    """A spec as text, one fact on each line."""
    facts = [
        ("Network", f"{spec.architecture}{_parameters(spec)}"),
        ("Embedding", f"{spec.dim} numbers: {_readout(spec)}"),
        (
            "Dense features",
            f"{spec.width} channels" + (f" after {spec.dense_stage}" if spec.dense_stage else ""),
        ),
        ("Input", _preprocessing(spec)),
        ("Normalisation", f"mean {_triple(spec.mean)}, std {_triple(spec.std)}"),
        ("Scale", _scale(spec)),
        ("Stains", ", ".join(_STAINS.get(s, s) for s in spec.stains)),
        ("Made from", spec.base_model),
        ("Training", spec.training),
        ("Expects", spec.expects and f"{spec.expects}; pathencoder does not do this"),
        ("Licence", _licence(spec)),
        ("Gate", spec.gate or "none"),
        ("Weights", _weights(spec, bundled=bundled)),
        ("Version", f"{spec.version} (of the weights)" if spec.version else ""),
        ("sha256", spec.sha256 or "not on record"),
        ("Checked", _checked(spec)),
        ("Note", spec.note),
        ("Reference", spec.reference),
    ]
    return _facts(f"{spec.name}: {spec.summary}" if spec.summary else spec.name, facts)


def _describe_listed(one: ListedEncoder) -> str:
    """A listed encoder as text, one fact on each line."""
    facts = [
        ("Loads", "no: pathencoder lists it only"),
        ("Needs", one.needs),
        ("Takes", f"the tile vectors of {one.tiles}" if one.tiles else "tiles"),
        ("Embedding", f"{one.dim} numbers" if one.dim else "not known to us"),
        ("Parameters", size(one.parameters) if one.parameters else "not known to us"),
        ("Stains", ", ".join(_STAINS[s] for s in one.stains) or "not known to us"),
        ("Licence", _licence(one)),
        ("Gate", one.gate or "none"),
        ("Weights", one.place),
        ("Note", one.note),
        ("Reference", one.reference),
    ]
    return _facts(f"{one.name}: {one.title}", facts)


def _facts(title: str, facts: Iterable[tuple[str, str | None]]) -> str:
    return "\n".join([title, *(_line(what, fact) for what, fact in facts if fact)])


def _licence(one: EncoderSpec | ListedEncoder) -> str:
    return f"{one.licence}; {'commercial use allowed' if one.commercial else 'no commercial use'}"


def _line(what: str, fact: str) -> str:
    """One fact; further lines are indented to its first word."""
    text = click.wrap_text(
        fact, width=100, initial_indent=" " * (_WIDTH + 2), subsequent_indent=" " * (_WIDTH + 2)
    )
    return f"  {what.ljust(_WIDTH)}{text[_WIDTH + 2 :]}"


def _parameters(spec: EncoderSpec) -> str:
    if not spec.parameters:
        return ""
    return (
        f", {spec.parameters / 1e6:.1f} million parameters"
        if spec.parameters < 1e9
        else f", {spec.parameters / 1e9:.2f} billion parameters"
    )


def _readout(spec: EncoderSpec) -> str:
    rule = stage_rule(spec.embedding)
    return str(rule) if rule else _READOUTS.get(spec.embedding, spec.embedding)


def _preprocessing(spec: EncoderSpec) -> str:
    size = f"{spec.input_size} x {spec.input_size} px"
    if spec.resize == "shortest":
        return (
            f"shortest side to {spec.resize_size or spec.input_size} px ({spec.interpolation}),"
            f" then the centre {size}"
        )
    return (
        f"the whole tile to {size} ({spec.interpolation}); with --mpp resampled to scale, then"
        " cropped or padded with white"
    )


def _scale(spec: EncoderSpec) -> str:
    if spec.mpp is None and spec.mpp_range is None:
        return "not known: tiles are resized whole, slides need --target-mpp"
    covered = (
        f"; training covered {spec.mpp_range[0]:g} to {spec.mpp_range[1]:g}"
        if spec.mpp and spec.mpp_range
        else ""
    )
    return f"{scale(spec)} um per pixel{covered}"


def _weights(spec: EncoderSpec, *, bundled: bool) -> str:
    if bundled:
        return "part of the package, no network needed"
    return f"{spec.repo}, revision {spec.revision or 'main'}" if spec.repo else "in its folder"


def _checked(spec: EncoderSpec) -> str:
    if spec.verified:
        return (
            "its embedding was recomputed from its published weights (`pathencoder verify`"
            " repeats this)"
        )
    return "not checked against its weights: name, sizes and preprocessing are as published"


def _triple(values: tuple[float, float, float]) -> str:
    return " ".join(f"{v:.4g}" for v in values)
