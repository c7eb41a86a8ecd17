"""The stain that a file's name states."""

import pytest

from training.archive.stains import NOTHING, stain_in


@pytest.mark.parametrize(
    ("name", "stain_class", "stain"),
    [
        ("case12_HE.svs", "he", "H&E"),
        ("12-H&E.ndpi", "he", "H&E"),
        ("S1_hes.tif", "he", "H&E"),
        ("case12_Ki-67.svs", "ihc", "Ki-67"),
        ("case12_MIB1.svs", "ihc", "Ki-67"),
        ("A1 CD3 CD20.mrxs", "ihc", "CD3 + CD20"),
        ("a_CD79a_x.svs", "ihc", "CD79a"),
        ("b_PD-L1 22C3.svs", "ihc", "PD-L1"),
        ("b_her2neu.svs", "ihc", "HER2"),
        ("c_PAS-D.svs", "special", "PAS"),
        ("c_Grocott.svs", "special", "Silver"),
        ("d_pap.svs", "cytology", "Papanicolaou"),
        ("e_IHC.svs", "ihc", ""),
        ("f_CD8_HE.svs", "ihc", "CD8"),
    ],
)
def test_a_name_states_a_stain(name, stain_class, stain):
    found = stain_in(name)
    assert (found.stain_class, found.stain) == (stain_class, stain)
    assert 0.5 < found.confidence < 1


@pytest.mark.parametrize("name", ["slide_17.svs", "shepherd.svs", "TCGA-AB-1234-01Z-00-DX1.svs"])
def test_other_names_state_none(name):
    assert stain_in(name) is NOTHING


def test_two_kinds_of_stain_in_one_name_decide_nothing():
    assert stain_in("a_CD3_PAS-giemsa.svs").stain_class == "unknown"


def test_a_short_marker_is_less_sure_than_a_long_one():
    assert stain_in("a_ER.svs").confidence < stain_in("a_Ki67.svs").confidence
    assert stain_in("a_er_ki67.svs").stain == "ER + Ki-67"


def test_the_first_text_that_names_a_stain_decides():
    assert stain_in("", "17.svs", "CD3", "HE").stain == "CD3"
