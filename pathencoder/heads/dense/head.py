"""A fitted dense head: images and slides to objects, points or classes of pixels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError, HeadMismatch, ImageError, SlideError
from pathencoder.heads import store
from pathencoder.heads.data.pictures import Pictures
from pathencoder.heads.data.read import Groups, Labels
from pathencoder.heads.dense import card, evaluation, sources, weights
from pathencoder.heads.dense.cells import CellClasses
from pathencoder.heads.dense.found import Found
from pathencoder.heads.dense.model import DenseModel, new_network
from pathencoder.heads.dense.options import check_stain
from pathencoder.heads.dense.report import DenseReport
from pathencoder.heads.dense.smp import OURS
from pathencoder.heads.dense.tasks import task_of
from pathencoder.heads.dense.weights import Saved
from pathencoder.heads.digest import digest_of
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.request import AnyLabels
from pathencoder.heads.saved import SavedHead
from pathencoder.images import Images, Key
from pathencoder.nuclei.measure import measure
from pathencoder.nuclei.regions import Region, check_box
from pathencoder.slides.reader import Slide
from pathencoder.views import check_views

log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]
# how far a region of a slide sees beyond itself: half the size of an object that is whole in it
OVERLAP_UM = {"glands": 256.0}


@dataclass
class DenseHead(SavedHead):
    """A dense head on an encoder; `pathencoder.fit` and `load_head` return it.

    Attributes:
        kind: "glands", "nuclei", "points" or "pixels".
        record: The encoder that it was fitted on, and the scale of the images.
        settings: Of the fit, as JSON values.
        mpp: Micrometres per pixel at which images are read.
        sizes: What was measured on the training images, in um or um2.
        adapted: Whether the encoder was trained along: its weights are then the head's own.
        classes: Names of the classes of "pixels", by number.
        report: What it reaches on folds; it says where nothing was evaluated.
        held_out: The same on the part that `fit(evaluate=...)` named.
        cells: Classes of the points that are found; None without, and until a loaded head has read
            its encoder.
        checkpoints: Of its fit; `save` removes them.
    """

    kind: str
    record: EncoderRecord
    settings: dict[str, Any]
    mpp: float
    sizes: dict[str, float]
    adapted: bool
    classes: tuple[str, ...] = ()
    report: DenseReport | None = None
    held_out: DenseReport | None = None
    cells: CellClasses | None = None
    checkpoints: tuple[Path, ...] = field(default=(), repr=False, compare=False)
    _model: DenseModel | None = field(default=None, repr=False)
    _saved: Saved | None = field(default=None, repr=False)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """As every head; then the checkpoints of its fit are removed."""
        saved = super().save(folder)
        for file in self.checkpoints:
            file.unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                file.parent.rmdir()
        return saved

    @property
    def model(self) -> DenseModel:
        """The network and how to read it; its encoder is loaded on first use.

        Raises:
            HeadMismatch: The encoder cannot be loaded, or is another one by now.
        """
        if self._model is None:
            assert self._saved is not None
            self._build(self._saved.encoder_of(self.record))
        assert self._model is not None
        return self._model

    @property
    def encoder(self) -> Encoder:
        """The head's own copy of the encoder; trained along where `adapted`."""
        return self.model.network.encoder

    def use(self, encoder: Encoder) -> None:
        """Use an encoder that is loaded already.

        A head whose encoder was trained along takes its parent, where it has classes of cells.

        Raises:
            HeadMismatch: The head was fitted on another one, or needs none beside its own.
        """
        if self.adapted and not self._has_cells:
            raise HeadMismatch(
                f"this head has its own encoder, trained along from {self.record.label()}: leave"
                " the encoder out"
            )
        self.record.check(encoder)
        if self._saved is None:
            return
        if self.adapted:
            self._build(self._saved.encoder_of(self.record), parent=encoder)
        else:
            self._build(weights.own_copy(encoder))

    def predict(
        self,
        images: Images,
        *,
        region: Sequence[int] | None = None,
        mpp: float | None = None,
        stain: str | None = None,
        views: int | None = None,
        on_error: OnError = "raise",
    ) -> list[Found]:
        """Find objects in images, or in a region of a slide.

            found = head.predict("tiles/", mpp=0.5)
            found = head.predict("slide.svs", region=(20000, 15000, 4000, 4000))
            found[0].write("out")

        Args:
            images: In any form that `Encoder.encode` takes: a folder, paths, arrays, PIL images.
                With `region` one image, or a slide.
            region: x, y, width and height in level-0 pixels.
            mpp: Micrometres per pixel. None: what each file states, else the scale of the images
                that the head was fitted on, which a note then says.
            stain: "he" or "ihc". None: that of the training images.
            views: Views that are averaged: 1, 4 or 8. None: as the head was fitted.
            on_error: "raise" stops at the first image that cannot be read; "skip" leaves it out
                and logs why.

        Returns:
            What was found, in order. `stream` gives the same one by one, `predict_slide` a whole
            slide region by region.

        Raises:
            ImageError: An image cannot be read.
            SlideError: The slide cannot be read.
            ConfigError: A setting does not fit, or the scale of an image is unknown.
            HeadMismatch: The encoder cannot be loaded, or is another one.
        """
        if region is None:
            found = self.stream(images, mpp=mpp, stain=stain, views=views, on_error=on_error)
            return list(found)
        box = check_box(region)
        if sources.is_slide(images):
            path = os.fspath(images)  # type: ignore[arg-type]
            found = self.predict_slide(
                path, regions=[box], mpp=mpp, stain=stain, views=views, on_error=on_error
            )
            return list(found)
        self._check(stain, views, on_error)
        given = list(sources.images(images, mpp, self.record.image_mpp))
        if len(given) != 1:
            raise ConfigError(f"region={box}: of one image or slide, found {len(given)} images")
        read, place = sources.cut(given[0].read(), box)
        part = self.in_region(read.image, place, read.mpp, stain=stain, views=views)
        return [replace(part, notes=(*read.notes, *part.notes))]

    def stream(
        self,
        images: Images,
        *,
        mpp: float | None = None,
        stain: str | None = None,
        views: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Found]:
        """As `predict`, one image after the other, so that memory stays flat."""
        self._check(stain, views, on_error)
        for source in sources.images(images, mpp, self.record.image_mpp):
            try:
                read = source.read()
            except (ImageError, SlideError, ConfigError) as error:  # ConfigError: no scale is known
                if on_error == "raise":
                    raise
                log.warning("%s is skipped: %s", source.item.where, error)
                continue
            found = self.find(read.image, read.mpp, key=source.key, stain=stain, views=views)
            yield replace(found, notes=(*read.notes, *found.notes), name=source.name)

    def predict_slide(
        self,
        slide: Slide | str | os.PathLike[str],
        *,
        regions: Sequence[Sequence[int]] | None = None,
        mpp: float | None = None,
        stain: str | None = None,
        views: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Found]:
        """Find objects in a slide, region by region, so that memory stays flat.

        Args:
            slide: A path, or an open slide (which stays open).
            regions: x, y, width and height of each in level-0 pixels; what reaches over the edge is
                clipped. None: every region with tissue. These overlap, and each object belongs to
                the one that holds its centre.
            mpp: Micrometres per level-0 pixel. None: read from the file.
            stain: As for `predict`, as are the next two.
            views: Views that are averaged.
            on_error: For a region that cannot be read.

        Yields:
            What was found in each region; `offset` is its place.

        Raises:
            SlideError: The slide or a region cannot be read, or it is fluorescence.
            MissingMpp: Its scale is unknown or contradictory.
            ConfigError: A setting does not fit.
            HeadMismatch: The encoder cannot be loaded, or is another one.
        """
        self._check(stain, views, on_error)
        with sources.regions_of(slide, mpp, OVERLAP_UM.get(self.kind)) as opened:
            for region in opened.regions(regions):
                try:
                    image = opened.read(region)
                    yield self.in_region(image, region, opened.mpp, stain=stain, views=views)
                except (ImageError, SlideError) as error:
                    if on_error == "raise":
                        raise
                    log.warning("%s, region %s is skipped: %s", opened.path, region.name, error)

    def in_region(
        self,
        image: Pixels,
        region: Region,
        mpp: float,
        *,
        stain: str | None = None,
        views: int | None = None,
    ) -> Found:
        """What belongs to a region, of the pixels of its box."""
        found = self.find(image, mpp, key=region.name, stain=stain, views=views)
        found = replace(found, offset=region.box[:2], notes=(*region.notes, *found.notes))
        if region.core is None:
            return found
        left, top = region.core[0] - region.box[0], region.core[1] - region.box[1]
        core = (left, top, left + region.core[2], top + region.core[3])
        kept = found.within(core)
        if count := kept.cut_beyond(core):
            said = (
                f"{count} of the {self.kind} reach the edge of what was read, and may be cut there"
            )
            kept = replace(
                kept, notes=(*kept.notes, f"{said}: give a region that holds them whole")
            )
        return kept

    def find(
        self,
        image: Pixels,
        mpp: float,
        *,
        key: Key = 0,
        stain: str | None = None,
        views: int | None = None,
    ) -> Found:
        """What is found in the pixels of one image.

        Args:
            image: uint8 RGB [H, W, 3].
            mpp: Its micrometres per pixel.
            key: What the result is called.
            stain: As for `predict`.
            views: As for `predict`.
        """
        colour = stain or self.settings["stain"]
        views = self.settings["views"] if views is None else views
        found = self.model.predict(image, mpp, stain=colour, views=views)
        made = Found(self.kind, key, image, mpp, colour, classes=self.classes)
        if self.kind == "points":
            return self._points(made, found)
        labels = np.asarray(found, np.int32)
        if self.kind == "pixels":
            return replace(made, labels=labels)
        table = measure(labels, image, mpp=mpp, stain=colour)
        points = np.stack([table.x, table.y], 1).astype(np.float64)
        return replace(made, labels=labels, table=table, points=points)

    def evaluate(
        self,
        data: Pictures,
        *,
        part: str | None = None,
        labels: AnyLabels = None,
        groups: Groups = None,
        splits: Labels = None,
        mpp: float | None = None,
    ) -> DenseReport:
        """Evaluate on labelled images that the head was not fitted on.

        Args:
            data: As for `pathencoder.fit`, as are the others.
            part: The part to evaluate: "test" for example. None: all images.
            labels: The labels.
            groups: Patients, slides or cases: intervals are over them.
            splits: The parts.
            mpp: Micrometres per pixel of the images.

        Returns:
            Scores, with intervals where groups are known.

        Raises:
            ConfigError: The data set has bad rows, or no such part.
        """
        return evaluation.evaluate(
            self, data, part=part, labels=labels, groups=groups, splits=splits, mpp=mpp
        )

    def digest(self) -> str:
        """A hash of all that predictions depend on."""
        return digest_of(self._content(for_hub=True))

    def _points(self, made: Found, found: NDArray[np.generic]) -> Found:
        peaks = np.asarray(found, np.float64).reshape(-1, 3)
        made = replace(made, points=peaks[:, :2] + 0.5, scores=peaks[:, 2])
        if self.cells is None:
            return made
        names, probabilities = self.cells.predict(made.image, peaks[:, :2], made.mpp)
        classes = self.cells.classes
        numbers = np.array([classes.index(name) for name in names], np.int64)
        return replace(made, classes=classes, numbers=numbers, probabilities=probabilities)

    def _check(self, stain: str | None, views: int | None, on_error: str) -> None:
        if stain is not None:
            check_stain(stain)
        if views is not None:
            check_views(views)
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r}: 'raise' or 'skip'")

    @property
    def _has_cells(self) -> bool:
        """Whether it has classes of cells, which the encoder as it was embeds."""
        return self.cells is not None or (self._saved is not None and self._saved.cells is not None)

    def _build(self, encoder: Encoder, parent: Encoder | None = None) -> None:
        """Build the network, and the classes of cells on the encoder as it was before the fit."""
        assert self._saved is not None
        task, maps = task_of(self.kind, self.classes), bool(self.settings["stain_maps"])
        decoder = str(self.settings.get("decoder", OURS))
        network = new_network(encoder, task, stain_maps=maps, decoder=decoder)
        weights.load_decoder(network, self._saved.arrays)
        if self._saved.cells is not None:
            if self.adapted:
                encoder = parent or self.record.load(self._saved.device)
            arrays = self._saved.part(weights.CELLS)
            self.cells = CellClasses.from_arrays(arrays, self._saved.cells, encoder)
        # last: a head whose parent is missing must not find cells without classes later
        self._model = DenseModel(network, task, self.mpp, self.sizes, maps)

    def _content(self, *, for_hub: bool) -> store.Content:
        arrays = weights.arrays_of(self.model.network, adapted=self.adapted)
        spec = self.model.network.encoder.spec
        config = {
            "task": "detection" if self.kind == "points" else "segmentation",
            "head": self.kind,
            "classes": list(self.classes),
            "encoder": self.record.to_json(with_folder=not for_hub),
            "adapted": self.adapted,
            "spec": spec.to_config() if self.adapted else None,
            "settings": self.settings,
            "mpp": self.mpp,
            "sizes": self.sizes,
        }
        if self.cells is not None:
            of_cells, config["cells"] = self.cells.to_arrays()
            arrays |= {f"{weights.CELLS}{name}": value for name, value in of_cells.items()}
        reports = {"folds": self.report, "held_out": self.held_out}
        contents = {name: report and report.to_json() for name, report in reports.items()}
        return store.Content(config, arrays, contents, card.of(self, spec))
