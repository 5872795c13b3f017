"""The published sets, from small fixtures in each set's true layout, and counts of Table 1 where they can be made."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahl_train.data.images import load, load_mask, verify
from ahl_train.data.readers import READERS, check, load_dataset
from ahl_train.data.split import split
from ahl_train.data.table1 import MVTEC, SETS
from ahl_train.errors import DataError


def draw(path, width=8, height=8, marks=()):
    """A grey image, 0 but for boxes (left, top, right, bottom) of 255."""
    pixels = np.zeros((height, width), np.uint8)
    for left, top, right, bottom in marks:
        pixels[top:bottom, left:right] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def touch(folder, count, suffix=".png"):
    """Files that are named as they should be; counting does not open them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:04}{suffix}").touch()


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


# AITEX


@pytest.fixture
def aitex(tmp_path):
    """Strips of three squares, one shorter; a mask in two files, an empty mask, and a missing one."""
    for fabric, count in (("2306881-210020u", 2), ("2608691-202020u", 1)):
        for i in range(count):
            draw(tmp_path / "NODefect_images" / fabric / f"{i:04}_000_0{i}.png", 768, 256)
    draw(tmp_path / "Defect_images" / "0001_002_00.png", 768, 256)
    draw(tmp_path / "Mask_images" / "0001_002_00_mask.png", 768, 256, [(250, 9, 260, 20)])  # over two squares
    draw(tmp_path / "Defect_images" / "0044_019_04.png", 768, 256)
    draw(tmp_path / "Mask_images" / "0044_019_04_mask1.png", 768, 256, [(0, 0, 5, 5)])
    draw(tmp_path / "Mask_images" / "0044_019_04_mask2.png", 768, 256, [(600, 0, 605, 5)])
    draw(tmp_path / "Defect_images" / "0094_027_05.png", 700, 256)
    draw(tmp_path / "Mask_images" / "0094_027_05_mask.png", 700, 256, [(650, 0, 660, 9)])
    draw(tmp_path / "Defect_images" / "0100_025_08.png", 768, 256)
    draw(tmp_path / "Defect_images" / "0106_010_03.png", 768, 256)
    draw(tmp_path / "Mask_images" / "0106_010_03_mask.png", 768, 256)
    return tmp_path


def test_aitex_is_cut_into_squares(aitex):
    data = load_dataset(f"aitex:{aitex}")
    assert data.counts() == {"broken_end": 2, "fuzzyball": 2, "good": 9, "knots": 1}
    crops = {(s.kind, s.crop[0], s.crop[2], s.mask.stem[-5:]) for s in data.anomalies}
    assert crops == {
        ("broken_end", 0, 256, "_mask"),
        ("broken_end", 256, 512, "_mask"),
        ("fuzzyball", 0, 256, "mask1"),
        ("fuzzyball", 512, 768, "mask2"),
        ("knots", 512, 700, "_mask"),
    }
    for sample in data.anomalies:
        assert load_mask(sample, load(sample).shape[:2]).any()
    assert {load(s).shape for s in data.normals} == {(256, 256, 3)}
    assert len(data.notes) == 2
    assert "0100_025_08.png is left out: its mask is missing" in data.notes
    assert "0106_010_03.png is left out: its mask is empty" in data.notes
    assert len(verify(data.samples)[0]) == len(data.samples)


def test_aitex_refuses_an_unknown_code(aitex):
    draw(aitex / "Defect_images" / "0200_099_01.png", 768, 256)
    draw(aitex / "Mask_images" / "0200_099_01_mask.png", 768, 256, [(0, 0, 5, 5)])
    with pytest.raises(DataError, match=r"0200_099_01\.png has no known defect code.*002, 006"):
        load_dataset(f"aitex:{aitex}")


def test_aitex_in_full_has_the_normals_of_table_1(tmp_path):
    """141 strips of 4,096 px, 21 of one fabric and 20 of each other: 2,256 squares."""
    draw(tmp_path / "one.png", 4096, 256)
    strip = (tmp_path / "one.png").read_bytes()
    (tmp_path / "Defect_images").mkdir()
    for fabric in range(7):
        folder = tmp_path / "NODefect_images" / f"fabric{fabric}"
        folder.mkdir(parents=True)
        for i in range(21 if fabric == 0 else 20):
            (folder / f"{i:04}_000_0{fabric}.png").write_bytes(strip)
    rows = {r.group: r for r in check("aitex", tmp_path).rows}
    assert rows["normal, train"].found == 1692 == SETS["aitex"].train_normal
    assert rows["normal, test"].found == 564 == SETS["aitex"].test_normal
    assert not rows["anomaly"].ok


# SDD


def test_sdd_is_cut_in_three(tmp_path):
    for item, height, marks in (("kos01", 31, [(0, 9, 4, 12)]), ("kos02", 30, []), ("kos03", 30, [(2, 25, 4, 26)])):
        draw(tmp_path / item / "Part0.jpg", 20, height)
        draw(tmp_path / item / "Part0_label.bmp", 20, height, marks)
    data = load_dataset(f"sdd:{tmp_path}")
    assert data.counts() == {"defect": 3, "good": 6}
    assert [(s.path.parent.name, s.crop) for s in data.anomalies] == [
        ("kos01", (0, 0, 20, 10)),
        ("kos01", (0, 10, 20, 20)),
        ("kos03", (0, 20, 20, 30)),
    ]
    assert [load_mask(s, load(s).shape[:2]).sum() for s in data.anomalies] == [4, 8, 2]
    (tmp_path / "kos02" / "Part0_label.bmp").unlink()
    with pytest.raises(DataError, match=r"Part0\.jpg has no Part0_label\.bmp"):
        load_dataset(f"sdd:{tmp_path}")


def test_sdd_in_full_has_its_counts(tmp_path):
    """399 images, 52 with a defect, two of these defects over a cut: 54 thirds, and 857 / 286 normals."""
    for i in range(399):
        item = tmp_path / f"kos{i // 8 + 1:02}"
        marks = [] if i >= 52 else [(0, 8, 4, 14)] if i < 2 else [(0, 1, 3, 4)]
        draw(item / f"Part{i % 8}.jpg", 6, 30)
        draw(item / f"Part{i % 8}_label.bmp", 6, 30, marks)
    report = check("sdd", tmp_path)
    assert report.ok, report.lines()
    assert any("594" in note for note in report.notes)
    dealt = split(load_dataset(f"sdd:{tmp_path}"), shots=10, seed=0)
    assert len([s for s in dealt.test if s.label == 0]) == 286
    assert len([s for s in dealt.test if s.label == 1]) == 44


# Optical


@pytest.fixture(params=["Class{0}", "Class{0}/Class{0}"])
def optical(tmp_path, request):
    """Two textures, plain or nested as the archives unpack."""
    for number in (1, 10):
        for part in ("Train", "Test"):
            folder = tmp_path / request.param.format(number) / part
            for i in (1, 2, 3):
                draw(folder / f"{i:04}.PNG")
            draw(folder / "Label" / "0003_label.PNG", marks=[(2, 2, 6, 6)])
            text(
                folder / "Label" / "Labels.txt",
                ["1", "1\t0\t0001.PNG\t0\t0", "2\t0\t0002.PNG\t0\t0", "3\t1\t0003.PNG\t1\t0003_label.PNG"],
            )
    return tmp_path


def test_optical_merges_train_and_test(optical):
    data = load_dataset(f"optical:{optical}")
    assert data.counts() == {"Class1": 2, "Class10": 2, "good": 8}
    assert all(s.split is None for s in data.samples)
    assert [load_mask(s, (8, 8)).sum() for s in data.anomalies] == [16] * 4
    rows = {r.group: str(r) for r in check("optical", optical).rows}
    assert "148 missing" in rows["anomaly, Class1"]
    assert "150 missing" in rows["anomaly, Class2"]


def test_optical_refuses_a_broken_table(optical):
    table = next(optical.rglob("Labels.txt"))
    table.write_text("1\n1\t2\t0001.PNG\t0\t0\n")
    with pytest.raises(DataError, match=r"Labels\.txt, line 2"):
        load_dataset(f"optical:{optical}")
    table.unlink()
    with pytest.raises(DataError, match=r"no .*Labels\.txt"):
        load_dataset(f"optical:{optical}")


def test_optical_names_absent_files(optical):
    next(optical.rglob("0002.PNG")).unlink()
    rows = {r.group: r for r in check("optical", optical).rows}
    assert rows["files named but absent"].found == 1


@pytest.mark.slow
def test_optical_in_full_is_table_1(tmp_path):
    """Classes 1 to 6: 575 images a side, 150 defects in all; classes 7 to 10: 1,150 a side, 300 defects."""
    for number in range(1, 11):
        total, defects = (575, 75) if number <= 6 else (1150, 150)
        for part in ("Train", "Test"):
            folder = tmp_path / f"Class{number}" / part
            touch(folder, total, ".PNG")
            lines = [f"{i}\t0\t{i:04}.PNG\t0\t0" for i in range(defects, total)]
            lines += [f"{i}\t1\t{i:04}.PNG\t1\t{i:04}.PNG" for i in range(defects)]
            touch(folder / "Label", defects, ".PNG")
            text(folder / "Label" / "Labels.txt", ["1", *lines])
    report = check("optical", tmp_path)
    assert report.ok, report.lines()


# Mastcam


def bands(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).integers(0, 256, (64, 64, 6)).astype(np.float64))


@pytest.fixture
def mastcam(tmp_path):
    """Its own split; `all` repeats the classes; one frame stands under two of them."""
    for folder, count in (("train_typical", 6), ("validation_typical", 2), ("test_typical", 3)):
        for i in range(count):
            bands(tmp_path / folder / f"mcam{i:05}_MR_0_sol0003_{i}.npy", i)
    for kind, names in {"drt": "ab", "dump-pile": "bc", "veins": "d", "all": "abcd"}.items():
        for name in names:
            bands(tmp_path / "test_novel" / kind / f"mcam_{name}.npy", ord(name))
    return tmp_path


def test_mastcam_keeps_its_split_and_leaves_the_copies(mastcam):
    data = load_dataset(f"mastcam:{mastcam}")
    assert data.counts() == {"drt": 2, "dump-pile": 2, "good": 9, "veins": 1}
    dealt = split(data, shots=1, seed=0, calibration=0)
    assert len(dealt.train_normal) == 6
    assert len([s for s in dealt.test if s.label == 0]) == 3
    assert data.notes[0].startswith("1 frames are in two classes")


def test_mastcam_pixels_are_the_first_three_bands(mastcam):
    sample = load_dataset(f"mastcam:{mastcam}").samples[0]
    np.testing.assert_array_equal(load(sample), np.load(sample.path)[..., :3])
    assert load(sample).dtype == np.uint8


def test_a_frame_of_two_classes_is_not_tested_once_it_was_shown(mastcam):
    """Shots of drt are a and b; b is also a dump pile: only c and d are left to test."""
    dealt = split(load_dataset(f"mastcam:{mastcam}"), setting="hard", seen_class="drt", shots=2, seed=0)
    assert sorted(s.path.stem[-1] for s in dealt.test if s.label == 1) == ["c", "d"]


def test_mastcam_files_that_are_no_arrays_are_refused(mastcam):
    broken = mastcam / "train_typical" / "mcam00000_MR_0_sol0003_0.npy"
    broken.write_bytes(broken.read_bytes()[:5000])
    flat = mastcam / "train_typical" / "mcam00001_MR_0_sol0003_1.npy"
    np.save(flat, np.zeros((64, 64)))
    _, bad = verify(load_dataset(f"mastcam:{mastcam}").samples)
    assert [u.sample.path for u in bad] == [broken, flat]
    assert "3 or more bands" in bad[1].reason


@pytest.mark.slow
def test_mastcam_in_full_is_table_1(tmp_path):
    touch(tmp_path / "train_typical", 9302, ".npy")
    touch(tmp_path / "test_typical", 426, ".npy")
    for i in range(11):
        touch(tmp_path / "test_novel" / f"kind{i}", 41, ".npy")
    touch(tmp_path / "test_novel" / "all", 430, ".npy")
    report = check("mastcam", tmp_path)
    assert report.ok, report.lines()


# Medical


@pytest.mark.parametrize("inside", ["", "brain_tumor_dataset"])
def test_brainmri_in_full_is_table_1(tmp_path, inside):
    touch(tmp_path / inside / "no", 98, ".jpg")
    touch(tmp_path / inside / "yes", 155, ".JPG")
    report = check("brainmri", tmp_path)
    assert report.ok, report.lines()
    dealt = split(load_dataset(f"brainmri:{tmp_path}"), shots=10, seed=2)
    assert (len(dealt.train_normal), len(dealt.calibration_normal)) == (49, 24)
    assert len(dealt.test) == 25 + 145


@pytest.mark.parametrize("inside", ["head_ct", "head_ct/head_ct"])
def test_headct_in_full_is_table_1(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    for i in range(200):
        (folder / f"{i:03}.png").touch()
    text(tmp_path / "labels.csv", ["id, hemorrhage", *(f"{i},{int(i < 100)}" for i in range(200))])
    report = check("headct", tmp_path)
    assert report.ok, report.lines()
    data = load_dataset(f"headct:{tmp_path}")
    assert data.samples[7].path.name == "007.png"
    assert data.samples[7].kind == "haemorrhage"
    (folder / "150.png").unlink()
    assert not check("headct", tmp_path).ok
    text(tmp_path / "labels.csv", ["id, hemorrhage", "0,maybe"])
    with pytest.raises(DataError, match="line 2"):
        load_dataset(f"headct:{tmp_path}")


@pytest.mark.parametrize("inside", ["", "labeled-images"])
def test_hyperkvasir_in_full_is_table_1(tmp_path, inside):
    upper = tmp_path / inside / "upper-gi-tract"
    for place, count in {"pylorus": 999, "retroflex-stomach": 764, "z-line": 932}.items():
        touch(upper / "anatomical-landmarks" / place, count, ".jpg")
    for finding, count in SETS["hyperkvasir"].by_class.items():
        touch(upper / "pathological-findings" / finding, count, ".jpg")
    touch(tmp_path / inside / "lower-gi-tract" / "pathological-findings" / "polyps", 3, ".jpg")
    report = check("hyperkvasir", tmp_path)
    assert report.ok, report.lines()
    (upper / "pathological-findings" / "barretts" / "0000.jpg").unlink()
    report = check("hyperkvasir", tmp_path)
    assert not report.ok
    assert any("1 missing" in line for line in report.lines())
    assert "2 of" in report.lines()[-1]


# MVTec AD


def test_mvtec_in_full_is_table_1(tmp_path):
    for category, row in MVTEC.items():
        touch(tmp_path / category / "train" / "good", row.train_normal)
        touch(tmp_path / category / "test" / "good", row.test_normal)
        for kind in range(row.classes):
            share = row.anomaly // row.classes + (kind < row.anomaly % row.classes)
            touch(tmp_path / category / "test" / f"kind{kind}", share)
    assert check("mvtec", tmp_path).ok
    assert check("mvtec", tmp_path / "wood").ok
    (tmp_path / "wood" / "train" / "good" / "0000.png").unlink()
    report = check("mvtec", tmp_path)
    assert [r.group for r in report.rows if not r.ok] == ["wood: normal, train"]
    (tmp_path / "wood" / "train" / "good").rename(tmp_path / "elsewhere")
    assert [r.found for r in check("mvtec", tmp_path).rows if r.group == "wood: anomaly"] == [0]


def test_table_1_sums():
    """The table's own MVTec AD line: 73 classes, 3,629 and 467 normals, 1,258 anomalies."""
    rows = MVTEC.values()
    assert sum(r.train_normal for r in rows) == 3629
    assert sum(r.test_normal for r in rows) == 467
    assert sum(r.anomaly for r in rows) == 1258
    assert sum(r.classes for r in rows) == 73
    assert {*SETS, "mvtec"} == set(READERS)
    for name, row in SETS.items():
        assert not row.by_class or sum(row.by_class.values()) == row.anomaly, name


def test_elpv_is_table_1():
    report = check("elpv")
    assert report.ok, report.lines()


@pytest.mark.parametrize("name", READERS)
def test_a_folder_without_the_set_gives_one_line(tmp_path, name):
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError) as caught:
            load_dataset(f"{name}:{root}")
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_an_unknown_set_or_no_folder():
    with pytest.raises(DataError, match="choose one of aitex, brainmri"):
        check("cats", Path())
    with pytest.raises(DataError, match="give the folder"):
        check("aitex")
