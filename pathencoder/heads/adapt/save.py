"""The files of an adapted encoder: a folder that `load_encoder` takes, with a card and a head."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import StoreError
from pathencoder.files import whole_file, whole_folder
from pathencoder.heads import store
from pathencoder.heads.adapt import lora, seen
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.pretrained import catalogue
from pathencoder.pretrained import folder as folders
from pathencoder.pretrained.derived import Story, base_model_lines, licence_lines
from pathencoder.pretrained.load import Loaded
from pathencoder.pretrained.origin import label
from pathencoder.pretrained.save import save as save_encoder
from pathencoder.spec import EncoderSpec

if TYPE_CHECKING:
    from pathencoder.heads.adapt.adapted import Adapted

REPORT, HEAD, ADAPTER = "adaptation.json", store.BESIDE, "adapter"
FILES = (  # all that may be written
    *folders.FILES,
    REPORT,
    seen.FILE,
    *(f"{HEAD}/{name}" for name in store.FILES),
    *(f"{ADAPTER}/{name}" for name in (*lora.FILES, "README.md")),
)
_OF_IMAGES = "The licence of the images that it was adapted to is not known."


def spec_of(
    parent: EncoderSpec, how: str, images: int, groups: int | None, classes: Sequence[str]
) -> EncoderSpec:
    """The description of an adapted encoder: it claims no measurement of its parent."""
    of = "" if groups is None else f" of {groups:,} groups"
    return dataclasses.replace(
        parent,
        name=f"{parent.name}-{how}",
        summary=f"adapted from {parent.name}: {how}",
        training=(
            f"adapted from {label(parent)} ({how}) to {images:,} labelled images{of}"
            f" ({', '.join(classes)})"
        ),
        reference=f"of {parent.name}: {parent.reference}" if parent.reference else "",
        note=" ".join(filter(None, [parent.note, _OF_IMAGES])),
        base_model=label(parent),
        repo=None,
        revision=None,
        sha256=None,
        version=None,
        gate=None,
        config_file=None,
        verified=False,
    )


@dataclass(frozen=True)
class Place:
    """Where on the Hub the folder goes: the repository, and the branch that is not the main one."""

    repo: str
    branch: str | None = None


def save(adapted: Adapted, folder: Path, place: Place | None = None) -> None:
    """Write the folder; errors as in `Adapted.save`.

    Args:
        adapted: The encoder with its head.
        folder: To write.
        place: Where it is uploaded to: the head then names that and no path of this machine.
    """
    encoder = adapted.encoder
    refuse_others(folder)
    refuse_parent(folder, None if encoder.origin is None else encoder.origin.folder)
    save_encoder(
        Loaded(encoder.network, encoder.spec, encoder.origin),
        folder,
        lambda _, tile: encoder.encode(tile, progress=False)[0],
        story=Story(adapted.parent, "finetune", _text(adapted)),
    )
    seen.write(folder, encoder)
    with whole_file(folder / REPORT) as temporary:
        text = json.dumps(adapted.report.to_json(), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    _save_head(adapted, folder, place)
    if adapted.adapter is None:
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
        return
    with whole_folder(folder / ADAPTER) as draft:
        draft.mkdir()
        for name, content in adapted.adapter.files.items():
            (draft / name).write_bytes(content)
        (draft / "README.md").write_text(_adapter_card(adapted), encoding="utf-8")


def refuse_others(folder: Path) -> None:
    """Refuse to write an adapted encoder into a folder of something else.

    Raises:
        StoreError: It holds files that would be replaced or removed.
    """
    if store.is_head(folder):
        raise StoreError(f"{folder} holds a head: choose another folder for the encoder")
    names = (*folders.FILES, REPORT, seen.FILE, ADAPTER)
    folders.refuse_foreign(folder, names, "an encoder", ours=folders.is_encoder(folder))
    store.refuse_others(folder / HEAD)


def refuse_parent(folder: Path, parent: Path | None) -> None:
    """Refuse to write an adapted encoder over the one that it was adapted from.

    Args:
        folder: To write.
        parent: The folder of the parent; None without one.

    Raises:
        StoreError: They are the same.
    """
    if parent is not None and folder.exists() and os.path.samefile(folder, parent):
        raise StoreError(
            f"{folder} holds the encoder that is adapted: choose another folder for the new one"
        )


def _save_head(adapted: Adapted, folder: Path, place: Place | None) -> None:
    """The head, whose record names where the encoder lies now: the folder, or the repository."""
    saved = folders.read_spec(folder)
    record: EncoderRecord = dataclasses.replace(
        adapted.head.record,
        name=saved.name,
        sha256=saved.sha256,
        folder=str(folder.resolve()) if place is None else None,
        repo=None if place is None else place.repo,
        revision=None if place is None else place.branch,
    )
    dataclasses.replace(adapted.head, record=record).save(folder / HEAD)


def _text(adapted: Adapted) -> str:
    """The part of the card that says how the encoder was made, and what that brought."""
    adapter = (
        "`adapter/` holds the LoRA adapter alone, in peft's format, for the network of"
        f" {adapted.parent.name}.\n\n"
        if adapted.adapter
        else ""
    )
    training = adapted.encoder.spec.training
    return (
        f"{training[0].upper()}{training[1:]}. {_OF_IMAGES}\n\n"
        f"```text\n{adapted.report.text()}\n```\n\n"
        f"The metrics of {adapted.parent.name} do not apply to these weights. They have seen the"
        " labels of the images that they were adapted to: figures on these are too good, and"
        f" `pathencoder.fit` says so (`{seen.FILE}`).\n\n"
        f"`{HEAD}/` holds a linear head on this encoder:"
        f' `pathencoder.load_head("THIS FOLDER OR REPOSITORY/{HEAD}")`.\n\n'
        f"{adapter}"
        "To use it:"
    )


def _place_of(parent: EncoderSpec) -> str:
    """What `load_encoder` finds the parent by."""
    return parent.repo or catalogue.find(parent.name) or "FOLDER OF THE PARENT"


def _adapter_card(adapted: Adapted) -> str:
    parent = adapted.parent
    return "\n".join(
        [
            "---",
            *licence_lines(parent),
            *base_model_lines(parent.repo or parent.name),
            "base_model_relation: adapter",
            "library_name: peft",
            "tags: [pathology, histopathology, lora]",
            "---",
            f"# A LoRA adapter of {label(parent)}",
            "",
            f"Rank {adapted.adapter.rank if adapted.adapter else 0}. The folder above holds the"
            " same encoder with the adapter merged, which needs no peft.",
            "",
            "```python",
            "import pathencoder",
            "",
            f'encoder = pathencoder.load_encoder("{_place_of(parent)}")',
            "from peft import PeftModel  # after an encoder was loaded",
            "",
            'merged = PeftModel.from_pretrained(encoder.network, "adapter").merge_and_unload()',
            "encoder.network = merged.eval()",
            "```",
            "",
            f"Licence of the parent: {parent.licence}. {_OF_IMAGES}",
            "",
        ]
    )
