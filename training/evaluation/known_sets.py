"""What is known of the labelled sets that figures are measured on, and where each is had.

A set of tiles is a folder with a labels.csv; one of annotated images (cells, nuclei, glands) a
folder with a meta.csv. The files of each set and their hashes are in `splits/NAME.csv.gz`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from training.evaluation.report_rows import Stain


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A public set.

    Attributes:
        name: In tables.
        folder: Below the folder of data.
        cells: Scale in um/px at which tiles are cut around annotated cells; None: tiles, or a set
            for dense figures alone.
        dense: It has figures of the linear decoder.
        title: What it shows, in words.
        stain: Of its images.
        groups: What a group is.
        licence: As its source states it.
        homepage: Where it is had.
        centre: From a group to the centre of its tiles; None: all are of one, or it is not known.
        in_means: It counts in the means over sets.
        notes: What a reader of its figures should know.
    """

    name: str
    folder: str
    cells: float | None = None
    dense: bool = False
    title: str
    stain: Stain
    groups: str
    licence: str
    homepage: str
    centre: Callable[[str], str] | None = None
    in_means: bool = True
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Literal["labels.csv", "meta.csv"]:
        """The table in its folder."""
        return "meta.csv" if self.folder.startswith("nuclei/") else "labels.csv"


_MIDDLE = (
    "the classified object is in the middle of the tile, which favours a readout of the middle"
)


def _archive(group: str) -> str:
    """MIDOG21_002 is of MIDOG21."""
    return group.partition("_")[0]


def _site(group: str) -> str:
    """TCGA-A7-A0D9 is of the tissue source site A7."""
    return group.split("-")[1] if group.startswith("TCGA-") else group


KNOWN = (
    KnownSet(
        name="amibr",
        folder="tiles/amibr",
        title="breast, atypical against normal mitotic figures",
        stain="he",
        groups="slide",
        licence="MIT (repository of the benchmark); terms of TUPAC16 not found",
        homepage="https://github.com/DeepMicroscopy/AMi-Br",
        centre=_archive,
        notes=(_MIDDLE,),
    ),
    KnownSet(
        name="hpylori_ihc",
        folder="tiles/hpylori_ihc",
        title="stomach, H. pylori in immunohistochemistry",
        stain="ihc",
        groups="patient",
        licence="not stated (QuironHelico)",
        homepage="https://github.com/carlosla2802/Detection-of-Helicobacter-pylori",
        notes=("49 positive tiles in test: balanced accuracy moves with the threshold",),
    ),
    KnownSet(
        name="crc_polyp5",
        folder="tiles/crc_polyp5",
        title="colorectum, five classes",
        stain="he",
        groups="inferred",
        licence="not stated",
        homepage="https://github.com/Flagy/Colorectal_Carcinoma_Classifier",
        notes=(
            "groups are clusters of stain, not patients: its interval means little",
            "few slides a class in test, and stain goes with class",
        ),
    ),
    KnownSet(
        name="lymphoma_iicbu",
        folder="tiles/lymphoma_iicbu",
        title="lymphoma, three classes",
        stain="he",
        groups="case",
        licence="not stated (IICBU 2008)",
        homepage="https://github.com/CrocoPops/LymphomAug",
        in_means=False,
        notes=("few cases, and staining differs by case",),
    ),
    KnownSet(
        name="bisque_breast",
        folder="tiles/bisque_breast",
        title="breast, benign or malignant",
        stain="he",
        groups="slide",
        licence="not stated (UCSB)",
        homepage="https://github.com/m24jeczen/Warsztaty-badawcze",
        in_means=False,
        notes=("58 tiles of 10 slides; colour alone reaches an AUROC of .77",),
    ),
    KnownSet(
        name="crchisto",
        folder="nuclei/crchisto",
        cells=0.5,
        dense=True,
        title="cell types, colon (CRCHistoPhenotypes)",
        stain="he",
        groups="image",
        licence="research only",
        homepage="https://github.com/zhuyiche/sfcn-opi",
        notes=(_MIDDLE, "patients are not known; the split is not the official one"),
    ),
    KnownSet(
        name="consep20x_points",
        folder="nuclei/consep20x_points",
        cells=0.5,
        title="cell types, colon (CoNSeP at 20x)",
        stain="he",
        groups="image",
        licence="non-commercial",
        homepage="https://github.com/TopoXLab/MCSpatNet",
        notes=(_MIDDLE, "patients are not known"),
    ),
    KnownSet(
        name="brca_m2c",
        folder="nuclei/brca_m2c",
        cells=0.5,
        title="cell types, breast (BRCA-M2C)",
        stain="he",
        groups="slide",
        licence="MIT (repository); images of TCGA",
        homepage="https://github.com/TopoXLab/MCSpatNet",
        centre=_site,
        notes=(_MIDDLE,),
    ),
    KnownSet(
        name="bcdata_sample",
        folder="nuclei/bcdata_sample",
        cells=0.25,
        title="Ki67 positive or negative cells (BCData)",
        stain="ihc",
        groups="image",
        licence="research only",
        homepage="https://github.com/BioAITeam/ki67-vlm-evaluation-ieee-conf-2025",
        notes=(_MIDDLE, "patients are not known"),
    ),
    KnownSet(
        name="monuseg",
        folder="nuclei/monuseg",
        dense=True,
        title="nuclei, several organs (MoNuSeg)",
        stain="he",
        groups="slide",
        licence="CC BY-NC-SA 4.0",
        homepage="https://github.com/ykrmm/monuseg",
    ),
    KnownSet(
        name="glas",
        folder="nuclei/glas",
        dense=True,
        title="glands, colon (GlaS)",
        stain="he",
        groups="patient",
        licence="research only, non-commercial",
        homepage="https://github.com/teodor-andrei-neacsu/glas_seg",
        notes=("8 of the 9 patients of testA are in train too",),
    ),
)
BY_NAME = {s.name: s for s in KNOWN}
TILE_SETS = tuple(s.name for s in KNOWN if s.table == "labels.csv")
CELL_SETS = tuple(s.name for s in KNOWN if s.cells)
DENSE_SETS = tuple(s.name for s in KNOWN if s.dense)
