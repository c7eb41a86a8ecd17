"""The README of a dense head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathencoder.heads import store
from pathencoder.pretrained import derived
from pathencoder.spec import EncoderSpec

if TYPE_CHECKING:
    from pathencoder.heads.dense.head import DenseHead

_FINDS = {
    "glands": "Glands and other large objects, each with its outline",
    "nuclei": "Nuclei and other small objects that touch, each with its outline",
    "points": "Cells as points",
    "pixels": "A class for each pixel",
}
_USE = """\
```python
import pathencoder

head = pathencoder.load_head("THIS FOLDER OR REPOSITORY")
found = head.predict("tiles/")  # or head.predict("slide.svs", region=(x, y, width, height))
found[0].write("out")
```"""


def of(head: DenseHead, spec: EncoderSpec) -> str:
    """The card of a head.

    Args:
        head: The head.
        spec: Of its encoder.
    """
    parent = head.record.label()
    front = derived.base_model_lines(head.record.repo or head.record.name)
    if head.adapted:
        front += ["base_model_relation: finetune", *derived.licence_lines(spec)]
        more = (
            ", and nothing else has to be loaded."
            if head.cells is None
            else ". The classes of cells need the encoder that it began from, too."
        )
        own = (
            f"The encoder was trained along, from {parent}: its changed weights are here{more}"
            f" Their licence: {spec.licence}." + ("" if spec.commercial else " No commercial use.")
        )
    else:
        own = f"It holds the decoder alone, and needs the encoder that it was fitted on: {parent}."
    cells = ""
    if head.cells is not None:
        cells = f" Classes of cells: {', '.join(head.cells.classes)}."
    classes = f": {', '.join(head.classes)}" if head.classes else ""
    reads = f"Images are read at {head.mpp:g} um per pixel."
    shown = [r.text() for r in (head.report, head.held_out) if r is not None]
    report = "\n\n".join(shown) or "Nothing was evaluated."
    finds = f"{_FINDS[head.kind]}{classes}.{cells} {reads}"
    title = f"A {head.kind} head on {head.record.name}"
    return store.card(front, title, [finds, own, _USE, f"```text\n{report}\n```"])
