"""A batch decided together: Benjamini-Hochberg's rejects, on every line, in every map, without holding the maps."""

import json
import math
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import calibration
from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError, OutputError
from ahl_runtime.score import batch
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.overlay import COLOURS
from ahl_runtime.score.scoring import Scorer

Q = 0.2


def rule(normals: list[float]) -> DecisionRule:
    fitted = calibration.fit(normals, 0.1, 0.9)
    return DecisionRule(fitted.threshold, fitted.unsure_threshold, fitted.promise.sentence, fitted, "digest")


@given(
    st.lists(st.integers(0, 12).map(float), min_size=30, max_size=60),
    st.lists(st.integers(-1, 14).map(float) | st.floats(-1, 14), max_size=40),
    st.sampled_from([0.04, 0.05, 0.1, 0.3, 0.9]),
)
@settings(max_examples=300, deadline=None)
def test_its_threshold_rejects_just_what_benjamini_hochberg_rejects(
    normals: list[float], scores: list[float], q: float
) -> None:
    """Ties included."""
    ours = rule(normals)
    batched = ours.for_batch(scores, q)
    expected = calibration.benjamini_hochberg(ours.calibration.p_values(scores), q)
    assert [batched.verdict(s) == "reject" for s in scores] == expected.tolist()
    assert batched.unsure_threshold <= min(batched.threshold, ours.unsure_threshold)


def test_the_false_discoveries_are_bounded_and_defects_found() -> None:
    """200 batches of 90 normals and 10 defects, each against its own 400 normals."""
    rng = np.random.default_rng(0)
    shares, found = [], []
    for _ in range(200):
        batched = rule(rng.normal(size=400).tolist()).for_batch(
            scores := [*rng.normal(size=90), *rng.normal(5, 1, size=10)], Q
        )
        rejected = np.array([batched.verdict(s) == "reject" for s in scores])
        shares.append(rejected[:90].sum() / max(1, rejected.sum()))
        found.append(rejected[90:].mean())
    error = np.std(shares) / math.sqrt(len(shares))
    assert np.mean(shares) <= 0.9 * Q + 3 * error and np.mean(shares) > 0.05
    assert np.mean(found) > 0.9


@pytest.mark.parametrize(("n", "q", "needs"), [(40, 0.01, 99), (40, 0.001, 999), (18, 0.05, 19)])
def test_too_few_normals_to_reject_anything(n: int, q: float, needs: int) -> None:
    with pytest.raises(calibration.ScoresError, match=f"{n} calibration normals .* needs {needs} or more"):
        rule(np.arange(n, dtype=float).tolist()).for_batch([1.0], q)
    assert rule(np.arange(needs, dtype=float).tolist()).for_batch([1e9], q).verdict(1e9) == "reject"


@pytest.mark.parametrize("q", [0.0, 1.0, -1.0, math.nan])
def test_a_rate_that_is_none(q: float) -> None:
    with pytest.raises(calibration.SettingsError):
        rule([1.0, 2.0, 3.0]).for_batch([1.0], q)


# --- the command


@pytest.fixture(scope="module")
def frames(cells: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 normal cells, 6 nearly black ones, a damaged file."""
    folder = tmp_path_factory.mktemp("batch")
    for i, cell in enumerate(cells[:20]):
        (folder / f"a{i:02d}.png").symlink_to(cell)
    for i, cell in enumerate(cells[:6]):
        Image.fromarray(decode(cell) // 20).save(folder / f"b{i}.png")
    (folder / "c.png").write_bytes(cells[0].read_bytes()[:5000])
    return folder


def score(*arguments: object) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


def test_lines_and_maps_of_a_batch(bundle_path: Path, frames: Path, tmp_path: Path) -> None:
    done, lines = score("--bundle", bundle_path, "--fdr", Q, "--maps", tmp_path / "maps", frames)
    assert done.returncode == 2 and "1 of 27 images could not be scored" in done.stderr
    *scored, damaged = lines
    assert "cannot be decoded" in str(damaged["error"])
    assert {line["fdr"] for line in scored} == {Q} and len({line["threshold"] for line in scored}) == 1
    expected = calibration.benjamini_hochberg([line["p_value"] for line in scored], Q)
    assert [line["decision"] == "reject" for line in scored] == expected.tolist()
    assert expected[20:].all() and not expected[:20].all()
    alone = score("--bundle", bundle_path, frames)[1]
    assert [line["score"] for line in alone[:-1]] == [line["score"] for line in scored]
    for line in scored:
        drawn = np.asarray(Image.open(tmp_path / "maps" / Path(str(line["image"])).name))
        assert tuple(drawn[-1, -1]) == COLOURS[line["decision"]][0]  # type: ignore[index]


def test_the_map_drawn_is_the_images_own(bundle_path: Path, frames: Path, tmp_path: Path) -> None:
    """Passed frames look the same, decided alone or together: the same map over the same pixels."""
    _, together = score("--bundle", bundle_path, "--fdr", 0.05, "--maps", tmp_path / "a", frames)
    _, alone = score("--bundle", bundle_path, "--maps", tmp_path / "b", frames)
    same = [
        a for a, b in zip(together, alone, strict=True) if "score" in a and a["decision"] == b["decision"] == "pass"
    ]
    assert len(same) > 5
    for line in same:
        name = Path(str(line["image"])).name
        a, b = (np.asarray(Image.open(tmp_path / folder / name)) for folder in "ab")
        band = 40  # the words above differ in their threshold
        np.testing.assert_array_equal(a[band:], b[band:])


@pytest.mark.parametrize(("q", "said"), [(0, "above 0 and below 1"), (1.5, "below 1"), (0.001, "needs 999 or more")])
def test_errors_come_before_the_work(bundle_path: Path, cells: list[Path], q: float, said: str) -> None:
    done, lines = score("--bundle", bundle_path, "--fdr", q, cells[0])
    assert (done.returncode, lines) == (2, []) and said in done.stderr and done.stderr.count("\n") == 1


def test_memory_stays_flat(bundle_path: Path, cells: list[Path]) -> None:
    """400 frames of 270 kB of pixels, and maps: nothing of that size is kept."""
    scorer = Scorer(open_bundle(bundle_path), threads=1)
    paths = [cells[i % 40] for i in range(400)]
    tracemalloc.start()
    results = batch.decide_together(scorer, batch.score_files(scorer, paths), Q, maps=True)
    first = next(results)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(first, batch.ScoredFile) and first.decision.anomaly_map.shape == (16, 16)
    assert first.image is None and held < 1_500_000 and peak < 12_000_000
    assert sum(1 for _ in results) == 399


def test_paths_that_give_no_image_stay_in_their_place(cells: list[Path], tmp_path: Path) -> None:
    gone = batch.FailedFile(tmp_path / "gone", f"{tmp_path}/gone: no such file or folder: check the path")
    assert batch.find_files([cells[0], gone.path, cells[1]]) == [cells[0], gone, cells[1]]
    with pytest.raises(ImageError, match=r"gone: no such file .*; .*: no images in this folder"):
        batch.find_files([gone.path, tmp_path])


def test_maps_wait_in_a_temporary_file_only_where_they_are_wanted(
    bundle_path: Path, cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    scorer = Scorer(open_bundle(bundle_path), threads=1)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"no temporary file can be made .*set TMPDIR"):
        next(batch.decide_together(scorer, [], Q, maps=True))
    decided = batch.decide_together(scorer, batch.score_files(scorer, cells[:2]), Q, maps=False)
    assert [result.path for result in decided] == cells[:2]
