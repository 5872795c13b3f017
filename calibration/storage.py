"""Calibration files: one npz of plain arrays and a JSON member, without pickle, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import zipfile
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from calibration import frames
from calibration.checks import FloatArray
from calibration.errors import CalibrationFileError
from calibration.promise import KINDS, Promise

FORMAT = 1
_KIND = "ahl-calibration"
_REQUIRED = {"scores", "thresholds"}
_FRAMES = {"frame_template", "frame_values"}
_LIMIT = 1 << 30  # bytes; a calibration is kilobytes


def refuse(source: object, why: str) -> CalibrationFileError:
    """The error for a refused file, with the name of the file and the reason."""
    name = str(source) if isinstance(source, str | PathLike) else "the calibration file"
    return CalibrationFileError(f"{name}: {why}")


def write(
    target: str | PathLike[str] | IO[bytes],
    arrays: dict[str, FloatArray],
    meta: dict[str, Any],
    promise: Promise,
) -> None:
    """Write arrays, meta and promise as one npz. An existing file is replaced only when the new one is complete."""
    header = {"kind": _KIND, "format": FORMAT, **meta, "promise": asdict(promise)}
    text = json.dumps(header, ensure_ascii=False).encode()
    members: dict[str, Any] = {**arrays, "meta": np.frombuffer(text, dtype=np.uint8)}
    if not isinstance(target, str | PathLike):
        try:
            np.savez(target, allow_pickle=False, **members)
        except (OSError, ValueError, TypeError, AttributeError) as error:  # a text file, one open for reading, None
            raise CalibrationFileError(
                f"target is {target!r:.80}: expected a path or a binary file, open for writing ({error})"
            ) from error
        return
    path = Path(target)
    if "\0" in str(path) or not path.name:
        raise CalibrationFileError(f"target is {str(target)!r:.80}: expected the path of a file")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **members)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise refuse(path, f"cannot be written ({error}): check the folder and its free space") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def read(source: str | PathLike[str] | IO[bytes]) -> tuple[dict[str, FloatArray], dict[str, Any], Promise]:
    """Arrays, meta and promise of a file that `write` wrote. CalibrationFileError for anything else."""
    if not isinstance(source, str | PathLike) and not hasattr(source, "seek"):
        raise CalibrationFileError(f"source is {source!r:.80}: expected a path or a binary file")
    try:
        with zipfile.ZipFile(source) as archive:
            infos = archive.infolist()
            if any(i.compress_type != zipfile.ZIP_STORED for i in infos) or sum(i.file_size for i in infos) > _LIMIT:
                raise refuse(source, "not a calibration file (compressed or too large)")
            raw = {i.filename.removesuffix(".npy"): _member(archive, i) for i in infos}
    except OSError as error:
        raise refuse(source, f"cannot be read ({error.strerror or error}): check the path") from error
    except CalibrationFileError:
        raise
    except Exception as error:  # zipfile and numpy raise errors of many types on damaged bytes
        why = str(error) or type(error).__name__
        raise refuse(source, f"not a calibration file or damaged ({why}): calibrate again") from error
    try:
        header: dict[str, Any] = json.loads(raw.pop("meta").tobytes())
        if header.pop("kind") != _KIND:
            raise ValueError("another kind of file")
        version = header.pop("format")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise refuse(source, f"not a calibration file ({error}): expected what Calibration.save wrote") from error
    if version != FORMAT:
        raise refuse(source, f"format {version}, this program reads {FORMAT}: update it or calibrate again")
    try:
        promise = _promise(header.pop("promise"))
        _check(raw, header, promise)
    except (KeyError, ValueError, TypeError) as error:
        raise refuse(source, f"damaged ({error}): calibrate again") from error
    return raw, header, promise


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _promise(raw: dict[str, Any]) -> Promise:
    names = {f.name for f in fields(Promise)}
    if set(raw) != names:
        raise ValueError(f"its promise has other fields: {sorted(set(raw) ^ names)}")
    low, high = raw["interval"]
    return Promise(**{**raw, "interval": (float(low), float(high))})


def _check(arrays: dict[str, Any], meta: dict[str, Any], promise: Promise) -> None:
    if set(arrays) not in (_REQUIRED, _REQUIRED | _FRAMES):
        raise ValueError(f"its members are {sorted(arrays)}")
    if set(meta) != {"unsure_alpha", "subject", "folds"} or not isinstance(meta["subject"], str):
        raise ValueError(f"its settings are {sorted(meta)}")
    if meta["folds"] and sum(meta["folds"]) != promise.n:
        raise ValueError(f"its folds {meta['folds']} do not hold {promise.n} scores")
    scores, thresholds = arrays["scores"], arrays["thresholds"]
    if any(a.dtype != np.float64 for a in arrays.values()):
        raise ValueError("its arrays are not float64")
    if scores.ndim != 1 or scores.size < 2 or scores.size != promise.n or not np.isfinite(scores).all():
        raise ValueError(f"its scores are not {promise.n} finite numbers")
    if (np.diff(scores) < 0).any():
        raise ValueError("its scores are not sorted")
    if thresholds.shape != (2,) or np.isnan(thresholds).any() or thresholds[1] > thresholds[0]:
        raise ValueError("its thresholds are not in order")
    if set(arrays) >= _FRAMES:
        template, values = arrays["frame_template"], arrays["frame_values"]
        if template.shape != (2, frames.GRID) or values.ndim != 2 or values.shape[1] != len(frames.NAMES):
            raise ValueError("its frame statistics have other shapes")
        if len(values) < frames.FEWEST or not (np.isfinite(template).all() and np.isfinite(values).all()):
            raise ValueError("its frame statistics are too few or not finite")
    rates = (promise.alpha, promise.confidence, meta["unsure_alpha"])
    if promise.kind not in KINDS or not all(math.isfinite(r) and 0 < r < 1 for r in rates):
        raise ValueError("its rates are outside 0 to 1")
