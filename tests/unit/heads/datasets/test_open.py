"""What holds for every public set: its description, wrong folders and wrong options."""

import inspect
import re

import pytest
import small_sets

import pathencoder
from pathencoder.errors import ConfigError
from pathencoder.heads.datasets.catalogue import names, public_set
from pathencoder.spec import STAINS

SETS = [public_set(name) for name in names()]
pytestmark = pytest.mark.full  # some labels are .mat files


@pytest.mark.parametrize("public", SETS, ids=names())
def test_descriptions_are_whole(public):
    assert public.task in ("classify", "segment", "detect")
    assert public.stain in STAINS
    assert public.homepage.startswith("https://")
    assert "doi:" in public.citation or "arXiv:" in public.citation
    assert all((public.layout, public.classes, public.parts, public.groups))
    assert public.commercial == (not re.search(r"NC|research|Research", public.licence))
    keywords = [
        name
        for name, parameter in inspect.signature(public.read).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert keywords == list(public.options)


@pytest.mark.parametrize("name", names())
def test_every_set_opens_from_a_copy_of_its_layout(name, tmp_path):
    data = pathencoder.open_dataset(name, small_sets.MAKERS[name](tmp_path))
    assert len(data) > 2
    assert public_set(name).terms() in data.notes
    assert set(public_set(name).notes) <= set(data.notes)


@pytest.mark.parametrize("name", names())
def test_another_folder_is_refused_with_what_was_expected(name, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        pathencoder.open_dataset(name, tmp_path)
    said = str(caught.value)
    assert f"does not hold {public_set(name).title} as it is published" in said
    assert public_set(name).layout[0] in said
    assert "Found: holiday, images.zip" in said
    assert "Unpack images.zip first" in said
    assert public_set(name).homepage in said


def test_names_options_and_folders_that_do_not_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset='mist'.*Did you mean 'mhist'\?"):
        pathencoder.open_dataset("mist", tmp_path)
    with pytest.raises(ConfigError, match="one of pcam, nct-crc"):
        pathencoder.open_dataset(None, tmp_path)
    with pytest.raises(ConfigError, match=r"folds: .*'breakhis' has the options.*mean 'fold'"):
        pathencoder.open_dataset("breakhis", tmp_path, folds=1)
    with pytest.raises(ConfigError, match="magnification: the data set 'mhist' has no options"):
        pathencoder.open_dataset("mhist", tmp_path, magnification=40)
    with pytest.raises(ConfigError, match=r"nowhere: no such folder\. Download: https://"):
        pathencoder.open_dataset("mhist", tmp_path / "nowhere")
    small_sets.breakhis(tmp_path)
    with pytest.raises(ConfigError, match="fold=6: one of None, 1, 2, 3, 4, 5"):
        pathencoder.open_dataset("breakhis", tmp_path, fold=6)
