"""A whole set is checked before anything is fitted: every bad row is in one message."""

import numpy as np
import pytest
import small_pictures as small
import torch
from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import read_pictures

pytestmark = pytest.mark.full


def test_all_bad_rows_are_in_one_message(tmp_path):
    rows = ["image,labels,group,split,mpp"]

    def row(stem, made=None, *, group, split="train", mpp="0.5"):
        small.pair(tmp_path, stem, made=made, suffix=".npy")
        rows.append(f"images/{stem}.png,masks/{stem}.npy,{group},{split},{mpp}")

    row("good", group="P1")
    row("other_size", small.labels()[:-1], group="P2")
    row("decimals", small.labels() / 3, group="P3")
    row("nan", np.full((48, 48), np.nan), group="P3")
    row("below", -small.labels().astype(int), group="P3")
    row("twice", group="P4")
    rows.append(rows[-1])
    row("damaged", group="P5")
    (tmp_path / "images" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    row("test", group="P1", split="test")
    row("scale", group="P6", mpp="fine")
    rows.append("images/missing.png,masks/good.npy,P7,train,0.5")
    rows.append("images/test.png,,,train,0.5")
    rows.append("images/below.png,masks/missing.npy,P8,train,0.5")
    table = tmp_path / "set.csv"
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(ConfigError) as caught:
        read_pictures(table, task="nuclei")
    said = str(caught.value)
    for words in (
        "line 3: ",
        "other_size.npy is of 48 x 47 px, the image of 48 x 48",
        "decimals.npy: labels that are not whole numbers (0.333333)",
        "nan.npy: labels that are not whole numbers (NaN",
        "below.npy: labels below 0 (-3)",
        "line 8: the same image as",
        "line 12: the same labels as",
        "damaged.png",
        "line 11: mpp is 'fine'",
        "line 12: no such file",
        "line 13: the column 'labels' is empty",
        "line 13: the group is empty",
        "missing.npy: no such file",
        "group 'P1' is in train",
        "nothing was fitted",
    ):
        assert words in said


def test_images_without_a_scale_are_one_problem_that_says_what_to_do(tmp_path):
    for stem in "abc":
        small.pair(tmp_path, stem)
    with pytest.raises(
        ConfigError, match=r"1 problem.*\n.*scale of 3 images is not known.*mpp=0.5"
    ):
        read_pictures(tmp_path, task="nuclei")


def test_the_scale_of_a_file_is_used_and_overruled_aloud(tmp_path):
    small.pair(tmp_path, "a")
    Image.fromarray(small.image()).save(
        tmp_path / "images" / "a.png", dpi=(25_400 / 0.5, 25_400 / 0.5)
    )
    assert read_pictures(tmp_path, task="nuclei").rows[0].mpp == pytest.approx(0.5, rel=1e-3)
    data = read_pictures(tmp_path, task="nuclei", mpp=0.25)
    assert data.rows[0].mpp == 0.25
    assert any("the 0.25 that was given is used" in note for note in data.notes)


@pytest.mark.parametrize("quality", [50, 95])
def test_a_mask_saved_as_jpeg_is_refused(tmp_path, quality):
    small.pair(tmp_path, "a")
    mask = Image.fromarray(((small.labels() > 0) * 255).astype(np.uint8))
    (tmp_path / "masks" / "a.png").unlink()
    mask.save(tmp_path / "masks" / "a.jpg", quality=quality)
    for task in ("nuclei", "pixels"):
        with pytest.raises(ConfigError, match="JPEG, resizing or anti-aliasing has smoothed"):
            read_pictures(tmp_path, task=task, mpp=0.5)


def test_a_mask_with_smoothed_edges_is_refused(tmp_path):
    small.pair(tmp_path, "a")
    large = Image.fromarray(((small.labels() > 0) * 255).astype(np.uint8)).resize((192, 192))
    large.resize((48, 48), Image.Resampling.BOX).save(tmp_path / "masks" / "a.png")
    with pytest.raises(ConfigError, match="anti-aliasing has smoothed"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)


def test_a_mask_of_one_number_is_separated(tmp_path):
    small.pair(tmp_path, "a", made=((small.labels() > 0) * 255).astype(np.uint8))
    data = read_pictures(tmp_path, task="glands", mpp=0.5)
    assert data.rows[0].load().truth.max() == data.rows[0].objects == 3
    assert any("each connected part is one object" in note for note in data.notes)


def test_a_map_of_classes_is_no_map_of_objects(tmp_path):
    disks = [(x, y, 2) for x in range(4, 48, 8) for y in range(4, 48, 8)]
    numbers = small.labels(disks)
    small.pair(tmp_path, "a", made=np.where(numbers > 0, 1 + numbers % 2, 0).astype(np.uint8))
    with pytest.raises(ConfigError, match="numbers of classes, not of objects"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)


def test_empty_masks_are_counted_unless_all_are(tmp_path):
    small.pair(tmp_path, "a", made=np.zeros((48, 48), np.uint8))
    with pytest.raises(ConfigError, match="none of the 1 images of the train part holds an object"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)
    small.pair(tmp_path, "b")
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert "1 of 2 images hold no object" in data.notes


def test_one_group_and_a_group_in_two_parts(tmp_path):
    for stem in ("a", "b"):
        small.pair(tmp_path, stem)
    with pytest.raises(ConfigError, match="all images of the train part are of one group, 'P'"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=["P", "P"])
    only = read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=["P", "P"], to_fit=False)
    assert only.grouped
    with pytest.raises(ConfigError, match="group 'P' is in train"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=["P", "P"], splits=["train", "test"])
    with pytest.raises(ConfigError, match="the group is empty"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=["P", None])


def test_groups_in_two_spellings_are_refused(tmp_path):
    for stem in "abc":
        small.pair(tmp_path, stem)
    with pytest.raises(ConfigError, match="groups 'A' and 'a ' differ in case, spaces"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=["A", "a ", "B"])
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=torch.tensor([1, 2, 2]))
    assert [row.group for row in data] == ["1", "2", "2"]


def points(folder, *names, **arguments):
    """A set with an image for each list of classes of points."""
    for number, classes in enumerate(names):
        small.write(folder / f"{number}.png", small.image())
        rows = "".join(f"{9 + i},20,{name}\n" for i, name in enumerate(classes))
        (folder / f"{number}.csv").write_text(f"x,y,class\n{rows}")
    return read_pictures(folder, task="points", mpp=0.5, **arguments)


def test_classes_in_two_spellings_are_refused_until_they_are_named(tmp_path):
    found = (["Tumor", "Stroma"], ["tumor", "Stroma"], ["Tumor ", ""])
    words = r"the classes 'Tumor' and 'tumor' differ.*labels=\{'Tumor': 'Tumor', 'tumor': 'Tumor',"
    with pytest.raises(ConfigError, match=words):
        points(tmp_path, *found)
    named = {"Tumor": "Tumor", "tumor": "Tumor", "Stroma": "Stroma"}
    assert points(tmp_path, *found, labels=named).classes == ("Tumor", "Stroma")
    assert points(tmp_path, ["None", "a"], ["none", "Ignore*"], ["b", "ignore"]).classes == (
        "a", "b",
    )  # fmt: skip


def test_outlines_in_two_spellings_are_refused_where_classes_count(tmp_path):
    for number, name in enumerate(("Tumor", "tumor")):
        small.write(tmp_path / f"{number}.png", small.image())
        area = small.feature("Polygon", [small.square(5, 5, 20)], name)
        small.geojson(tmp_path / f"{number}.geojson", area)
    with pytest.raises(
        ConfigError, match=r"'tumor': 'Tumor', 'background': 'background', \.\.\.\}"
    ):
        read_pictures(tmp_path, task="pixels", mpp=0.5)
    named = {"Tumor": "Tumor", "tumor": "Tumor", "background": "background"}
    data = read_pictures(tmp_path, task="pixels", mpp=0.5, labels=named)
    assert data.classes == ("Tumor", "background")
    assert np.unique(data.rows[1].load().truth).tolist() == [0, 1]
    assert read_pictures(tmp_path, task="glands", mpp=0.5).classes == ()


@pytest.mark.parametrize("labels", [["neg", "pos"], {0: "neg", 1: "pos"}, {"0": "neg", "1": "pos"}])
def test_numbered_classes_of_points_are_named(tmp_path, labels):
    data = points(tmp_path, ["0", "1"], ["1", "1"], labels=labels)
    assert data.classes == ("neg", "pos")
    assert data.rows[0].load().classes.tolist() == [0, 1]


def test_numbered_classes_that_are_not_learned_or_are_names_themselves(tmp_path):
    data = points(tmp_path, ["0", "1"], ["2", "1"], labels={0: "neg", 1: "pos", 2: None})
    assert len(data.rows[1].load().truth) == 1
    assert "classes that are not learned (2 1)" in " ".join(data.notes)
    swapped = points(tmp_path, ["0", "1"], ["1", "1"], labels=["1", "0"])
    assert swapped.classes == ("1", "0")
    assert swapped.rows[0].load().classes.tolist() == [1, 0]
    with pytest.raises(ConfigError, match=r"1\.png: labels beyond the classes \('2'\)"):
        points(tmp_path, ["0", "1"], ["2", "1"], labels=["neg", "pos"])


def test_points_outside_or_without_a_number(tmp_path):
    for stem, text in (("a", "1,2\nnan,3"), ("b", "1,2\n99,3"), ("c", "1,two"), ("d", "-1,48")):
        small.write(tmp_path / f"{stem}.png", small.image())
        (tmp_path / f"{stem}.csv").write_text(f"x,y\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        read_pictures(tmp_path, task="points", mpp=0.5)
    said = str(caught.value)
    assert "3 problems" in said
    assert "a.csv: 1 of 2 points have a coordinate that is NaN" in said
    assert "b.csv: 1 of 2 points lie outside the image of 48 x 48 px, the first at (99, 3)" in said
    assert "c.csv, line 2: y is 'two', not a number" in said


def test_images_of_mixed_size_are_read(tmp_path):
    small.pair(tmp_path, "a")
    small.write(tmp_path / "images" / "b.png", small.image(side=60))
    small.write(tmp_path / "masks" / "b.png", small.labels(side=60))
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert [row.load().truth.shape for row in data] == [(48, 48), (60, 60)]


def classes(folder, *maps, **arguments):
    for number, made in enumerate(maps):
        small.pair(folder, f"{number}", made=np.asarray(made, np.uint8))
    return read_pictures(folder, task="pixels", mpp=0.5, **arguments)


def test_numbers_of_classes_and_their_names(tmp_path):
    made = small.labels()
    made[0] = 255
    data = classes(tmp_path, made)
    assert data.classes == ("0", "1", "2", "3")
    assert np.array_equal(data.rows[0].load().truth, made)
    assert "pixels of the number 255 are not learned" in data.notes
    data = classes(tmp_path, made, labels={0: "rest", 1: "gland", 2: "gland", 3: None})
    assert data.classes == ("rest", "gland")
    found = data.rows[0].load().truth
    assert np.array_equal(found, np.array([0, 1, 1, 255])[np.where(made == 255, 3, made)])
    assert data.rows[0].load().names == data.classes


def test_values_beyond_the_classes(tmp_path):
    with pytest.raises(ConfigError, match=r"0.png: labels beyond the classes \(2, 3\)"):
        classes(tmp_path, small.labels(), small.labels() > 0, labels=["rest", "gland"])


def test_a_mask_of_0_and_255_has_two_classes(tmp_path):
    data = classes(tmp_path, (small.labels() > 0) * 255)
    assert data.classes == ("background", "object")
    assert data.rows[0].load().truth.max() == 1


def test_a_class_that_no_train_image_has_is_refused(tmp_path):
    maps = [small.labels() > 0, small.labels()]
    with pytest.raises(ConfigError, match="the class '2' occurs in no image of the train part"):
        classes(tmp_path, *maps, splits=["train", "test"])
    with pytest.raises(ConfigError, match="the class 'other' occurs in no image"):
        classes(tmp_path, maps[0], maps[0], labels=["rest", "gland", "other"])
    with pytest.raises(ConfigError, match="the class '0' alone: at least two"):
        classes(tmp_path, np.zeros((48, 48)), np.zeros((48, 48)))


def test_numbers_of_objects_are_no_classes(tmp_path):
    maps = [small.labels([(x, 10, 2) for x in range(4, last, 4)]) for last in (40, 46)]
    with pytest.raises(ConfigError, match=r"1 to 9, or to 11: numbers of objects, as it seems"):
        classes(tmp_path, *maps)
    grid = (3 * np.arange(72)).reshape(6, 12).repeat(8, 0).repeat(4, 1)
    with pytest.raises(ConfigError, match="more than there are classes"):
        classes(tmp_path / "many", grid)
