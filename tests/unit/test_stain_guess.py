"""The command that fits the guess of an image's stain, on a synthetic corpus."""

import io
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.stain import StainGuess
from training.evaluation import stain_guess

pytestmark = pytest.mark.full
COLUMNS = "shard,key,src,stain,stain_class,use"


def corpus(folder, sources=12):
    """A manifest and a shard: per source one tile of H&E, DAB and a blue stain.

    One row is not to be used.
    """
    rows = [COLUMNS, "a.tar,gone,x,H&E,he,0", "a.tar,both,x,H&E / IHC,mixed,1"]
    with tarfile.open(folder / "a.tar", "w") as tar:
        for source in range(sources):
            for kind, positive in (("he", 0.0), ("ihc", 0.5), ("special", 0.0)):
                image, _, _ = tissue(
                    stain="ihc" if kind == "special" else kind, positive=positive, seed=source
                )
                data = io.BytesIO()
                Image.fromarray(image).save(data, "PNG")
                member = tarfile.TarInfo(f"{kind}{source}.png")
                member.size = len(data.getvalue())
                tar.addfile(member, io.BytesIO(data.getvalue()))
                rows.append(f"a.tar,{kind}{source},s{kind}{source},{kind},{kind},1")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def test_the_command_fits_and_reports_by_source(tmp_path):
    (tmp_path / "pretrain").mkdir()
    corpus(tmp_path / "pretrain")
    result = CliRunner().invoke(stain_guess.main, ["--data", str(tmp_path)], catch_exceptions=False)
    assert "| set | right | undecided |" in result.output.replace("| wrong: he ", "").replace(
        "| wrong: ihc ", ""
    )
    assert "| ihc | 12 |" in result.output  # with their sources held out
    assert "weights [[" in result.output


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    result = CliRunner().invoke(stain_guess.main, ["--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "manifest.csv cannot be read" in result.output


def test_what_counts_as_right():
    assert stain_guess.verdict(StainGuess("he", 0.8), "he") == "right"
    assert stain_guess.verdict(StainGuess("he", 0.4, decided=False), "he") == "undecided"
    assert stain_guess.verdict(StainGuess("ihc", 0.95), "neither") == "wrong: ihc"
    assert stain_guess.verdict(StainGuess("blank", 1.0), "ihc") == "blank"


def test_chromogens_that_are_not_brown_are_no_ihc_here():
    row = {"stain_class": "ihc", "src": "a", "stain": "IHC CD34"}
    assert stain_guess.class_of(row) == 2
    assert stain_guess.class_of({**row, "stain": "IHC CD34 (DAB)"}) == 1


def test_large_sources_count_by_their_root():
    weights = stain_guess.weights_of(np.zeros(10, int), ["a"] * 9 + ["b"])
    assert weights[:9].sum() == pytest.approx(3 * weights[9])
