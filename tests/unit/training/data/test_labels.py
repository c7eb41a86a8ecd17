"""labels.csv: one reader for the probe and for k-NN during a run."""

import pytest
from small_shards import tile, write_table

from pathencoder.errors import ConfigError
from training.data.labels import LabelRow, read_label_rows
from training.evaluation.probe import part_of, read_labels
from training.monitor.knn import labelled_set

pytestmark = pytest.mark.full


@pytest.fixture
def labels(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(tile(i))

    def written(columns, *rows):
        lines = [f"file {columns}", *(f"{i}.png {row}" for i, row in enumerate(rows))]
        return write_table(tmp_path / "labels.csv", "\n".join(lines))

    return written


def test_rows_are_read_in_their_spellings(labels):
    table = labels(
        "Label GROUP Split", "a g1 Train", "b g1 TRAINING", "a NaN testing", "b unknown Test"
    )
    assert [row.part for row in read_label_rows(table)] == ["train", "train", "test", "test"]
    assert [row.group for row in read_label_rows(table)] == ["g1", "g1", "2.png", "3.png"]
    assert read_label_rows(table, choose=True) == [
        LabelRow("0.png", "a", "g1", "train"),
        LabelRow("1.png", "b", "g1", "train"),
    ]
    assert part_of(read_labels(table)) == "test"
    assert part_of(read_labels(table, choose=True)) is None


def test_rows_without_a_split_are_read_by_folds(labels):
    for rows in (
        ("label", "a", "b"),
        ("label split", "a folds", "b -"),
        ("label split", "a fold1", "b fold2"),
    ):
        assert [row.part for row in read_label_rows(labels(*rows), choose=True)] == [
            "folds",
            "folds",
        ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("group", "g"), "lacks the column 'label'"),
        (("label", "a", "-"), "line 3: every row needs a file and a label"),
        (("label", "a", "NaN"), "line 3: every row needs a file and a label"),
        (("label split", "a train", "a tset"), "line 3: split is 'tset'"),
        (
            ("label", "Positive", "positive"),
            "line 3: the label 'positive' differs from 'Positive' in case",
        ),
        (
            ("label group split", "a g1 train", "b G1 test"),
            "line 3: group 'G1' is in train and in test",
        ),
        (
            ("label split", "a train", "b folds"),
            "some rows have the split train, others none or a fold",
        ),
        (
            ("label split", "a train", "b test", "b -"),
            "some rows have the split test, train, others none or a fold",
        ),
        (("label", "a", "b", "a", "b", "a"), r"line 6: there is no '4\.png'"),
    ],
)
def test_what_cannot_be_right_is_refused(labels, rows, words):
    with pytest.raises(ConfigError, match=words):
        read_label_rows(labels(*rows))


def test_an_image_stands_once(labels, tmp_path):
    labels("label", "a", "b")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("./0.png,b\n")
    with pytest.raises(ConfigError, match=r"line 2 and line 4 are both of '\./0\.png'"):
        read_label_rows(tmp_path / "labels.csv")


def test_files_of_held_out_parts_may_be_elsewhere(labels, tmp_path):
    table = labels("label split", "a train", "b train", "a test", "b test")
    (tmp_path / "3.png").unlink()
    assert len(read_label_rows(table, choose=True)) == 2


def test_a_run_is_watched_on_train_parts_alone(labels, tmp_path):
    from pathencoder import load_encoder

    labels("label split", "a TRAIN", "b Training", "a Test", "b VAL")
    found = labelled_set(tmp_path, load_encoder().spec, px=32)
    assert found.tiles.shape == (2, 3, 32, 32)
    assert found.groups.tolist() == ["0.png", "1.png"]
    labels("label split", "a test", "b test")
    with pytest.raises(ConfigError, match="no rows but of held-out parts"):
        labelled_set(tmp_path, load_encoder().spec, px=32)


def test_of_a_long_table_rows_to_its_end_are_watched(labels, tmp_path):
    from pathencoder import load_encoder

    labels("label split", "a train", "a train", "a train", "b train")
    found = labelled_set(tmp_path, load_encoder().spec, px=32, most=3)
    assert found.groups.tolist() == ["0.png", "2.png", "3.png"]
    assert found.labels.tolist() == [0, 0, 1]


def test_a_watched_set_of_one_group_is_refused(labels, tmp_path):
    from pathencoder import load_encoder

    labels("label group split", "a g train", "b g train")
    with pytest.raises(ConfigError, match="all rows are of one"):
        labelled_set(tmp_path, load_encoder().spec, px=32)


@pytest.mark.parametrize("again", ["link.png", "../{folder}/0.png", "{whole}/0.png"])
def test_one_image_under_two_names_is_refused(labels, tmp_path, again):
    (tmp_path / "link.png").symlink_to("0.png")
    other = again.format(folder=tmp_path.name, whole=tmp_path)
    table = write_table(tmp_path / "labels.csv", f"file label split\n0.png a train\n{other} a test")
    with pytest.raises(ConfigError, match="line 2 and line 3 are both of"):
        read_label_rows(table)


def test_labels_that_differ_in_unicode_composition_are_refused(labels):
    with pytest.raises(ConfigError, match="Unicode composition only"):
        read_label_rows(labels("label", "caf\u00e9", "cafe\u0301"))


@pytest.mark.parametrize("name", ["splits", "patient"])
def test_misnamed_columns_are_refused(labels, name):
    with pytest.raises(ConfigError, match=f"the column '{name}' is not read"):
        read_label_rows(labels(f"label {name}", "a test", "b train"))
