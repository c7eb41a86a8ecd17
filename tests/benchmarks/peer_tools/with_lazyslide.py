"""A slide with LazySlide, from tissue to the written store: SLIDE OUT FOLDER|default."""

from __future__ import annotations

from pathencoder import compat

compat.import_timm()  # torchvision may not fit torch
import lazyslide as zs  # noqa: E402
from wsidata import open_wsi  # noqa: E402

from tests.benchmarks.peer_tools import networks  # noqa: E402


def main() -> None:
    """Embed the slide."""
    asked = networks.asked()
    wsi = open_wsi(str(asked.slide))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, networks.SIDE, mpp=networks.MPP)
    if asked.folder is None:
        from pathencoder.integrations.lazyslide import EncoderModel

        model, options = EncoderModel(), {}
    else:
        model = networks.resnet18(asked.folder)
        options = {"transform": networks.transform()}
    zs.tl.feature_extraction(
        wsi,
        model,
        batch_size=networks.BATCH,
        key_added="features",
        device="cpu",
        pbar=False,
        **options,
    )
    wsi.write(asked.out / "slide.zarr")
    networks.report(wsi["features"].X)


if __name__ == "__main__":
    main()
