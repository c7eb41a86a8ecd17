"""Made-up small copies of public data sets, in the layouts in which they are published."""

import csv
import json

import h5py
import numpy as np
from PIL import Image

RANDOM = np.random.default_rng
NCT = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
_DISKS = {1: (10, 10), 2: (34, 12), 4: (12, 30), 7: (36, 28)}


def picture(file, seed=0, size=(32, 32)):
    """An image file of noise, width and height `size`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def table(file, header, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def pcam(root, *, parts=("train", "valid", "test"), meta=True, images=8):
    """Half of the images are tumour; slides of four images each."""
    root.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        name = f"camelyonpatch_level_2_split_{part}"
        labels = np.arange(images) % 2
        dark = np.where(labels, 60, 200)[:, None, None, None]
        pixels = dark + RANDOM(number).integers(-30, 30, (images, 96, 96, 3))
        with h5py.File(root / f"{name}_x.h5", "w") as file:
            file["x"] = pixels.astype(np.uint8)
        with h5py.File(root / f"{name}_y.h5", "w") as file:
            file["y"] = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
        if meta:
            rows = [
                [i, 10, 20, bool(t), bool(t), f"camelyon16_{part}_{i // 2:03d}"]
                for i, t in enumerate(labels)
            ]
            header = ["", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
            table(root / f"{name}_meta.csv", header, rows)
    return root


def nct_crc(root, *, folders=("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"), each=2):
    for f, folder in enumerate(folders):
        for c, name in enumerate(NCT):
            for n in range(each):
                file = root / folder / name / f"{name}-AAAH{'ABC'[n]}.tif"
                picture(file, 100 * f + 10 * c + n)
    return root


def bach(root, each=2):
    photos = root / "ICIAR2018_BACH_Challenge" / "Photos"
    for c, (name, short) in enumerate(
        {"Normal": "n", "Benign": "b", "InSitu": "is", "Invasive": "iv"}.items()
    ):
        for n in range(each):
            picture(photos / name / f"{short}{n + 1:03d}.tif", 10 * c + n)
    (photos / "microscopy_ground_truth.csv").write_text("n001.tif,Normal\n")
    return root


BREAKHIS = (
    ("benign", "adenosis", "SOB_B_A", "14-22549AB"),
    ("benign", "adenosis", "SOB_B_A", "14-22549CD"),
    ("benign", "fibroadenoma", "SOB_B_F", "14-9133"),
    ("malignant", "ductal_carcinoma", "SOB_M_DC", "14-13412"),
    ("malignant", "lobular_carcinoma", "SOB_M_LC", "14-13412"),
    ("malignant", "ductal_carcinoma", "SOB_M_DC", "14-2523"),
    ("benign", "tubular_adenoma", "SOB_B_TA", "14-13200"),
    ("malignant", "mucinous_carcinoma", "SOB_M_MC", "14-10147"),
)


def breakhis(root, *, test=("14-9133", "14-2523"), each=2):
    """Two magnifications, and dsfold1.txt with the slides `test` as test part."""
    lines = []
    for s, (side, folder, code, slide) in enumerate(BREAKHIS):
        for factor in (40, 100):
            for n in range(each):
                name = f"{code}-{slide}-{factor}-{n + 1:03d}.png"
                place = root / "BreaKHis_v1/histology_slides/breast" / side / "SOB" / folder
                picture(place / f"{code}_{slide}" / f"{factor}X" / name, 100 * s + 10 * n + factor)
                part = "test" if slide in test else "train"
                lines.append(f"{name}|{factor}|1|{part}")
    (root / "dsfold1.txt").write_text("\n".join(lines) + "\n")
    return root


MHIST = ("Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)")


def mhist(root, *, train=4, test=2):
    rows = []
    for n in range(train + test):
        name, label = f"MHIST_aa{'abcdefghijkl'[n]}.png", ("HP", "SSA")[n % 2]
        picture(root / "images" / name, n)
        rows.append([name, label, 7 * (n % 2), "train" if n < train else "test"])
    table(root / "annotations.csv", [*MHIST, "Partition"], rows)
    return root


def label_map(size=(48, 40), radius=5):
    """Four disks, numbered 1, 2, 4 and 7: int [H, W]."""
    y, x = np.mgrid[: size[1], : size[0]]
    labels = np.zeros((size[1], size[0]), np.int32)
    for number, (cx, cy) in zip(
        (1, 2, 4, 7), ((10, 10), (34, 12), (12, 30), (36, 28)), strict=True
    ):
        labels[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = number
    return labels


def glas(root, *, grade=True):
    """Patients 1 and 2 in train, 2 and 3 in testA, 4 in testB."""
    folder = root / "Warwick_QU_Dataset"
    rows = []
    for part, patients in {"train": (1, 2), "testA": (2, 3), "testB": (4,)}.items():
        for n, patient in enumerate(patients, 1):
            picture(folder / f"{part}_{n}.bmp", n, (48, 40))
            Image.fromarray(label_map().astype(np.uint8)).save(folder / f"{part}_{n}_anno.bmp")
            rows.append([f"{part}_{n}", f" {patient}", " benign", " healthy"])
    if grade:
        header = ["name", " patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)"]
        table(folder / "Grade.csv", header, rows)
    return root


def aperio(file, squares, mpp="0.252"):
    """An XML file of squares: left, top, side."""
    regions = []
    for left, top, side in squares:
        corners = [(0, 0), (side, 0), (side, side), (0, side)]
        vertices = "".join(f'<Vertex X="{left + x}" Y="{top + y}" Z="0"/>' for x, y in corners)
        regions.append(f'<Region Type="0"><Vertices>{vertices}</Vertices></Region>')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'<Annotations MicronsPerPixel="{mpp}"><Annotation Id="1" Name=""><Attributes>'
        f'<Attribute Name="Description" Id="0" Value=""/></Attributes><Regions>{"".join(regions)}'
        "</Regions></Annotation></Annotations>"
    )


def monuseg(root):
    train, test = root / "MoNuSeg 2018 Training Data", root / "MoNuSegTestData"
    for n, name in enumerate(("TCGA-18-5592-01Z-00-DX1", "TCGA-38-6178-01Z-00-DX1")):
        picture(train / "Tissue Images" / f"{name}.tif", n, (48, 40))
        aperio(train / "Annotations" / f"{name}.xml", [(2, 3, 10), (20, 20, 8), (22, 22, 2)])
    picture(test / "TCGA-2Z-A9J9-01A-01-TS1.tif", 9, (48, 40))
    aperio(test / "TCGA-2Z-A9J9-01A-01-TS1.xml", [(5, 5, 4)], mpp="0")
    return root


def pannuke(root, *, folds=(1, 2, 3), images=2):
    """Each image: one neoplastic nucleus and, with the same number, one of connective tissue."""
    for fold in folds:
        place = root / f"Fold {fold}"
        pixels = RANDOM(fold).integers(0, 256, (images, 64, 64, 3)).astype(np.float64)
        masks = np.zeros((images, 64, 64, 6))
        masks[:, 4:12, 4:12, 0] = 3
        masks[:, 30:40, 20:28, 2] = 3
        masks[..., 5] = masks[..., :5].sum(-1) == 0
        for name, array in (
            (f"images/fold{fold}/images.npy", pixels),
            (f"images/fold{fold}/types.npy", np.array(["Breast"] * images)),
            (f"masks/fold{fold}/masks.npy", masks),
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(place / name, array)
    return root


def lizard(root, names=("consep_1", "glas_2", "dpath_3")):
    from scipy.io import savemat

    labels = label_map()
    for n, name in enumerate(names):
        picture(root / f"Lizard_Images{1 + n % 2}" / f"{name}.png", n, (48, 40))
        file = root / "Lizard_Labels" / "Labels" / f"{name}.mat"
        file.parent.mkdir(parents=True, exist_ok=True)
        numbers, kinds = np.array([[7], [1], [2], [4]]), np.array([[6], [2], [2], [3]])
        savemat(file, {"inst_map": labels, "id": numbers, "class": kinds})
    rows = [[name, name.split("_")[0], 1 + n % 3] for n, name in enumerate(names)]
    table(root / "Lizard_Labels" / "info.csv", ["Filename", "Source", "Split"], rows)
    return root


def consep(root, train=2, test=1):
    from scipy.io import savemat

    labels = label_map()
    kinds = np.zeros_like(labels)
    for number, kind in {1: 3, 2: 4, 4: 6, 7: 1}.items():
        kinds[labels == number] = kind
    kinds[10, 10] = 2  # a stray pixel of another class
    for part, count in {"Train": train, "Test": test}.items():
        for n in range(1, count + 1):
            name = f"{part.lower()}_{n}"
            picture(root / "CoNSeP" / part / "Images" / f"{name}.png", n, (48, 40))
            file = root / "CoNSeP" / part / "Labels" / f"{name}.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            maps = {"inst_map": labels.astype(float), "type_map": kinds.astype(float)}
            savemat(file, {**maps, "inst_type": np.array([[3], [4], [6], [1]])})
    return root


def bcdata(root):
    for part, count in {"train": 2, "validation": 1, "test": 1}.items():
        for n in range(count):
            picture(root / "BCData" / "images" / part / f"{n}.png", n, (48, 40))
            points = {"positive": [[5, 7], [30, 20]], "negative": [[12, 30]] if n == 0 else []}
            for name, found in points.items():
                file = root / "BCData" / "annotations" / part / name / f"{n}.h5"
                file.parent.mkdir(parents=True, exist_ok=True)
                with h5py.File(file, "w") as opened:
                    opened["coordinates"] = np.array(found, np.int64).reshape(-1, 2)
    return root


def midogpp(root, *, there=(1, 2, 201), table_too=True):
    about = {
        1: ("train", "human breast cancer", "Hamammatsu XR"),
        2: ("test", "human breast cancer", "Hamammatsu XR"),
        201: ("train", "canine lung cancer", "3D Histech"),
    }
    for number in there:
        picture(root / "images" / f"{number:03d}.tiff", number, (200, 160))
    images = [{"id": n, "file_name": f"{n:03d}.tiff", "width": 200, "height": 160} for n in about]
    boxes = [(1, 1, [10, 20, 60, 70]), (1, 2, [100.5, 80, 150.5, 130]), (201, 1, [20, 20, 70, 70])]
    annotations = [
        {"id": i, "image_id": image, "category_id": kind, "bbox": box, "labels": [kind]}
        for i, (image, kind, box) in enumerate(boxes)
    ]
    (root / "databases").mkdir(parents=True, exist_ok=True)
    (root / "databases" / "MIDOG++.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    if table_too:
        lines = ["Slide;Dataset;Tumor;Scanner;Origin;Species"]
        lines += [f"{n};{d};{t};{s};X;Y" for n, (d, t, s) in about.items()]
        (root / "datasets_xvalidation.csv").write_text("\n".join(lines) + "\n")
    return root


MAKERS = {
    "pcam": pcam,
    "nct-crc": nct_crc,
    "bach": bach,
    "breakhis": breakhis,
    "mhist": mhist,
    "glas": glas,
    "monuseg": monuseg,
    "pannuke": pannuke,
    "lizard": lizard,
    "consep": consep,
    "bcdata": bcdata,
    "midog++": midogpp,
}


_OUTLINE = '<Vertex X="{x}" Y="{y}"/>'
MONUSAC = ("MoNuSAC_images_and_annotations", "MoNuSAC Testing Data and Annotations")


def monusac(root, *, images=(3, 2), kinds=("Epithelial", "Lymphocyte")):
    """Images of 60 x 48 px; squares of 20 px, one of each kind, their XML beside them."""
    for folder, count in zip(MONUSAC, images, strict=True):
        for n in range(count):
            file = root / folder / f"TCGA-{n}" / f"TCGA-{n}_1.tif"
            picture(file, n, (60, 48))
            layers = []
            for number, kind in enumerate(kinds):
                left = 4 + 28 * number
                corners = [(left, 4), (left + 19, 4), (left + 19, 23), (left, 23)]
                vertices = "".join(_OUTLINE.format(x=x, y=y) for x, y in corners)
                layers.append(
                    f'<Annotation Name=""><Attributes><Attribute Name="{kind}"/></Attributes>'
                    f'<Regions><RegionAttributeHeaders/><Region NegativeROA="0"><Attributes/>'
                    f"<Vertices>{vertices}</Vertices></Region></Regions></Annotation>"
                )
            file.with_suffix(".xml").write_text(
                f'<Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>'
            )
    return root


def panda(root, *, slides=60):
    """Slides of PANDA with two grades, one in ten of them marked by a 0; returns the names."""
    rows = [[f"{n:032x}", "karolinska", n % 2, "", 0 if n % 10 == 0 else 1] for n in range(slides)]
    header = ["image_id", "data_provider", "isup_grade", "gleason_score", "noise_ratio_10"]
    table(root / "train_with_noisy_labels.csv", header, rows)
    (root / "train_images").mkdir(parents=True, exist_ok=True)
    return [row[0] for row in rows]
