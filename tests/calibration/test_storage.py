"""Calibration files: they come back whole, and anything else is refused."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import calibration
from calibration import Calibration, CalibrationFileError


@pytest.fixture
def fitted() -> Calibration:
    return calibration.fit(np.random.default_rng(1).normal(size=40), subject="bundle-1")


def same(a: Calibration, b: Calibration) -> bool:
    return (
        np.array_equal(a.scores, b.scores)
        and (a.threshold, a.unsure_threshold, a.unsure_alpha) == (b.threshold, b.unsure_threshold, b.unsure_alpha)
        and (a.promise, a.subject) == (b.promise, b.subject)
    )


@pytest.mark.parametrize("n", [2, 40, 120, 500])
def test_a_path_comes_back_whole(n: int, tmp_path: Path) -> None:
    c = calibration.fit(np.random.default_rng(1).normal(size=n))
    c.save(tmp_path / "c.npz")
    assert same(c, Calibration.load(str(tmp_path / "c.npz")))
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_the_name_is_kept_as_given(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path / "side.calibration")
    assert [p.name for p in tmp_path.iterdir()] == ["side.calibration"]


def test_a_binary_file_comes_back_whole(fitted: Calibration) -> None:
    a, b = io.BytesIO(), io.BytesIO()
    fitted.save(a)
    fitted.save(b)
    assert a.getvalue() == b.getvalue()
    assert same(fitted, Calibration.load(io.BytesIO(a.getvalue())))


def test_any_npz_reader_can_open_it(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as z:
        assert np.array_equal(z["scores"], fitted.scores)
        assert json.loads(z["meta"].tobytes())["promise"]["n"] == 40


def test_another_subject_is_refused(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path / "c.npz")
    assert Calibration.load(tmp_path / "c.npz", subject="bundle-1").subject == "bundle-1"
    with pytest.raises(CalibrationFileError, match="belongs to bundle-1, not to bundle-2"):
        Calibration.load(tmp_path / "c.npz", subject="bundle-2")


def test_a_failed_save_leaves_the_old_file(
    fitted: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.npz"
    fitted.save(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CalibrationFileError, match="No space left"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_a_reader_of_the_old_file_never_sees_half_of_the_new(fitted: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    fitted.save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        fitted.at(0.3).save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_a_missing_folder_or_file_is_said(fitted: Calibration, tmp_path: Path) -> None:
    with pytest.raises(CalibrationFileError, match="cannot be written"):
        fitted.save(tmp_path / "no" / "c.npz")
    with pytest.raises(CalibrationFileError, match="cannot be read"):
        Calibration.load(tmp_path / "no.npz")
    with pytest.raises(CalibrationFileError, match="cannot be read"):
        Calibration.load(tmp_path)


def test_every_truncation_is_refused(fitted: Calibration) -> None:
    whole = io.BytesIO()
    fitted.save(whole)
    data = whole.getvalue()
    for end in range(0, len(data), 97):
        with pytest.raises(CalibrationFileError):
            Calibration.load(io.BytesIO(data[:end]))


def test_flipped_bytes_never_give_another_answer(fitted: Calibration) -> None:
    whole = io.BytesIO()
    fitted.save(whole)
    data = whole.getvalue()
    for at in range(0, len(data), 41):
        try:
            loaded = Calibration.load(io.BytesIO(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]))
        except CalibrationFileError:
            continue
        assert same(loaded, fitted)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = {
        "text": b"score,threshold\n",
        "pickle": pickle.dumps({"scores": [1]}),
        "empty": b"",
    }
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CalibrationFileError, match="not a calibration file"):
            Calibration.load(tmp_path / name)
    np.save(tmp_path / "a.npy", np.arange(3.0))
    np.savez(tmp_path / "a.npz", scores=np.arange(3.0))
    np.savez_compressed(tmp_path / "b.npz", scores=np.arange(3.0))
    np.savez(tmp_path / "c.npz", scores=np.array([{}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "a.npz", "b.npz", "c.npz"):
        with pytest.raises(CalibrationFileError, match="not a calibration file"):
            Calibration.load(tmp_path / name)


def rewrite(fitted: Calibration, **changes: object) -> io.BytesIO:
    whole = io.BytesIO()
    fitted.save(whole)
    whole.seek(0)
    with np.load(whole) as z:
        members = {name: z[name] for name in z.files}
    header = json.loads(members["meta"].tobytes())
    for name, value in changes.items():
        if name in members:
            members[name] = np.asarray(value)
        elif name in header["promise"]:
            header["promise"][name] = value
        else:
            header[name] = value
    members["meta"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **members)
    out.seek(0)
    return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2, this program reads 1"),
        ({"kind": "other"}, "damaged|not a calibration file"),
        ({"scores": np.arange(40.0)[::-1]}, "not sorted"),
        ({"scores": np.arange(39.0)}, "40 finite"),
        ({"scores": np.full(40, np.nan)}, "40 finite"),
        ({"scores": np.arange(40)}, "float64"),
        ({"thresholds": np.array([0.0, 1.0])}, "order"),
        ({"thresholds": np.array([np.nan, 1.0])}, "order"),
        ({"alpha": 1.0}, "rates"),
        ({"alpha": "0.1"}, "damaged"),
        ({"interval": None}, "damaged"),
        ({"extra": 1}, "settings"),
        ({"unsure_alpha": 2.0}, "rates"),
        ({"folds": [20, 21]}, "folds"),
        ({"folds": 3}, "damaged"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(fitted: Calibration, change: dict[str, object], words: str) -> None:
    assert same(fitted, Calibration.load(rewrite(fitted)))
    with pytest.raises(CalibrationFileError, match=words):
        Calibration.load(rewrite(fitted, **change))
