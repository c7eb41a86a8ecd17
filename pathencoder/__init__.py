"""pathencoder: embeddings of histopathology tiles and slides, with bundled weights.

    import pathencoder

    encoder = pathencoder.load_encoder()
    rows = encoder.encode("tiles/")  # numpy float32 [N, D]

Importing this package imports neither torch nor timm: names are resolved on first use.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from pathencoder._version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())

# public name -> module that holds it
_PUBLIC = {
    "Encoder": "pathencoder.encoder",
    "EncoderSpec": "pathencoder.spec",
    "Features": "pathencoder.outputs",
    "PathEncoderError": "pathencoder.errors",
    "adapt": "pathencoder.heads.adapt.run",
    "convert_features": "pathencoder.features.convert",
    "draw_features": "pathencoder.pictures.draw",
    "encode_slide": "pathencoder.features.encode",
    "encode_slide_jointly": "pathencoder.features.encode",
    "find_tissue": "pathencoder.slides.tissue",
    "fit": "pathencoder.heads.fit",
    "list_encoders": "pathencoder.pretrained.catalogue",
    "list_images": "pathencoder.images",
    "load_encoder": "pathencoder.encoder",
    "load_head": "pathencoder.heads.fit",
    "load_module": "pathencoder.integrations.modules",
    "open_dataset": "pathencoder.heads.datasets.open",
    "open_slide": "pathencoder.slides.reader",
    "read_features": "pathencoder.features.store",
    "segment_nuclei": "pathencoder.nuclei.segment",
    "segment_slide": "pathencoder.nuclei.slide",
    "to_anndata": "pathencoder.integrations.anndata",
    "write_explore_page": "pathencoder.explore.write",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder as Encoder
    from pathencoder.encoder import load_encoder as load_encoder
    from pathencoder.errors import PathEncoderError as PathEncoderError
    from pathencoder.explore.write import write_explore_page as write_explore_page
    from pathencoder.features.convert import convert_features as convert_features
    from pathencoder.features.encode import encode_slide as encode_slide
    from pathencoder.features.encode import encode_slide_jointly as encode_slide_jointly
    from pathencoder.features.store import read_features as read_features
    from pathencoder.heads.adapt.run import adapt as adapt
    from pathencoder.heads.datasets.open import open_dataset as open_dataset
    from pathencoder.heads.fit import fit as fit
    from pathencoder.heads.fit import load_head as load_head
    from pathencoder.images import list_images as list_images
    from pathencoder.integrations.anndata import to_anndata as to_anndata
    from pathencoder.integrations.modules import load_module as load_module
    from pathencoder.nuclei.segment import segment_nuclei as segment_nuclei
    from pathencoder.nuclei.slide import segment_slide as segment_slide
    from pathencoder.outputs import Features as Features
    from pathencoder.pictures.draw import draw_features as draw_features
    from pathencoder.pretrained.catalogue import list_encoders as list_encoders
    from pathencoder.slides.reader import open_slide as open_slide
    from pathencoder.slides.tissue import find_tissue as find_tissue
    from pathencoder.spec import EncoderSpec as EncoderSpec


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
