"""Name, spec, model card and licence of an encoder that is saved with changes."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from pathencoder.pretrained.folder import LICENCE
from pathencoder.pretrained.origin import Origin, label, rounded_to
from pathencoder.spec import EncoderSpec

_MODEL_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?")  # what the Hub accepts as base_model
# what YAML reads as text without quotes
_PLAIN = re.compile(
    r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z][\w.-]*|.*/.*", flags=re.IGNORECASE
)
# Licences that the Hub knows by name; others are "other" with their name beside it.
_HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "gpl-3.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-sa-4.0",
)


@dataclass(frozen=True)
class Story:
    """How an encoder was made from another one, for its card.

    Attributes:
        parent: The other one.
        relation: To the parent, as the Hub names it: "finetune".
        text: What the card says of it, Markdown.
    """

    parent: EncoderSpec
    relation: str
    text: str


def describe(
    now: EncoderSpec, origin: Origin | None, changes: list[str], story: Story | None = None
) -> tuple[EncoderSpec, str | None, str | None]:
    """Spec, model card and licence text of an encoder that is not copied unchanged.

    Args:
        now: The spec of the encoder to save.
        origin: What it was loaded from; None for one that was built here.
        changes: What was changed since it was loaded, as text; empty for weights that are only
            written in another file format.
        story: How it was made, where that is known: the spec is then written as it is.

    Returns:
        Spec, card and licence. The spec of changed weights claims nothing of its parent; card and
        licence are None for an encoder without a parent.
    """
    if story is not None:
        card = _card(now, story.parent, story.text, story.relation)
        return now, card, _licence(now, origin, story.parent, changed=True)
    if origin is None and not changes:
        return now, None, None
    parent = now if origin is None else origin.spec
    spec = dataclasses.replace(now, **_claims(now, parent, changes)) if changes else now
    card = _card(spec, parent, _changed(parent, changes))
    return spec, card, _licence(now, origin, parent, changed=bool(changes))


def _claims(now: EncoderSpec, parent: EncoderSpec, changes: list[str]) -> dict[str, Any]:
    """The fields in which a changed encoder differs from its parent; the user's values are kept."""
    modified = f"modified from {label(parent)}: {'; '.join(changes)}"
    fresh = {
        "name": f"{parent.name}{_suffix(changes)}",
        "summary": f"modified from {parent.name}",
        "training": modified,
        "reference": f"of {parent.name}: {parent.reference}" if parent.reference else "",
    }
    kept = {
        field: getattr(now, field)
        for field in fresh
        if getattr(now, field) != getattr(parent, field)
    }
    reset = {
        "repo": None,
        "revision": None,
        "gate": None,
        "version": None,
        "config_file": None,
        "verified": False,
        "base_model": label(parent),
    }
    return {**fresh, **kept, **reset}


def _suffix(changes: list[str]) -> str:
    """-bfloat16 for weights that were only rounded, else -modified."""
    rounded = rounded_to("; ".join(changes))
    return f"-{rounded}" if rounded else "-modified"


def _changed(parent: EncoderSpec, changes: list[str]) -> str:
    """What the card of an encoder says that was changed by hand, or not at all."""
    if changes:
        return (
            f"Modified from {label(parent)}: {'; '.join(changes)}.\n\n"
            f"These weights were not evaluated: the metrics of {parent.name} do not apply to them."
        )
    return (
        f"The unchanged weights of {label(parent)}, under timm's key names. Its authors' page"
        " holds its metrics and terms."
    )


def _card(spec: EncoderSpec, parent: EncoderSpec, text: str, relation: str | None = None) -> str:
    parts = [
        _front(spec, parent, relation),
        f"# {spec.name}",
        text,
        _use(spec),
        f"## Licence\n\n{_terms(spec, parent)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front(spec: EncoderSpec, parent: EncoderSpec, relation: str | None) -> str:
    """The front matter that the Hub reads."""
    tags = ", ".join(["histopathology", "pathology", "feature-extraction", *spec.stains])
    lines = [
        *licence_lines(spec),
        *base_model_lines(parent.repo or parent.name),
        *([f"base_model_relation: {relation}"] if relation else []),
        "library_name: timm",
        "pipeline_tag: image-feature-extraction",
        f"tags: [{tags}]",
    ]
    return "\n".join(["---", *lines, "---"])


def licence_lines(spec: EncoderSpec) -> list[str]:
    """The licence in front matter."""
    licence = spec.licence.lower()
    if licence in _HUB_LICENCES:
        return [f"license: {licence}"]
    return ["license: other", f"license_name: {json.dumps(spec.licence, ensure_ascii=False)}"]


def base_model_lines(parent: str) -> list[str]:
    """The parent in front matter, where the Hub accepts its name."""
    if not _MODEL_ID.fullmatch(parent):
        return []
    # "2024" or "on" would not be read as text
    return [f"base_model: {parent if _PLAIN.fullmatch(parent) else json.dumps(parent)}"]


def _use(spec: EncoderSpec) -> str:
    scale = f" at {spec.mpp:g} um per pixel" if spec.mpp else ""
    return (
        "```python\nimport pathencoder\n\n"
        'encoder = pathencoder.load_encoder("./folder")  # this folder, or owner/name on the Hub\n'
        f'rows = encoder.encode("tiles/")  # numpy float32 [N, {spec.dim}]\n```\n\n'
        f"{spec.architecture}; input {spec.input_size} px{scale} ({spec.interpolation}), mean"
        f" {spec.mean}, std {spec.std}; "
        f"embedding: `{spec.embedding}`, {spec.dim} numbers."
    )


def _terms(spec: EncoderSpec, parent: EncoderSpec) -> str:
    """The licence and its owner."""
    page = f" https://huggingface.co/{parent.repo}" if parent.repo else ""
    own = "" if spec.licence == parent.licence else f"{spec.licence}, as set when it was saved. "
    gate = f" Access to them: {parent.gate}." if parent.gate else ""
    use = "" if parent.commercial else " No commercial use."
    return (
        f"{own}The weights are derived from those of {label(parent)}, which are licensed:"
        f" {parent.licence}.{use}{gate}{page}"
    )


def _licence(now: EncoderSpec, origin: Origin | None, parent: EncoderSpec, *, changed: bool) -> str:
    """The licence text of the parent, with its source for changed weights; else the terms."""
    folder = origin.folder if origin is not None else None
    path = folder / LICENCE if folder is not None else None
    if path is None or not path.is_file():
        return _terms(now, parent) + "\n"
    text = path.read_text(encoding="utf-8")
    return (
        f"The licence of {label(parent)}, from which these weights were modified:\n\n{text}"
        if changed
        else text
    )
