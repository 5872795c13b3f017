"""The run folder: the settings, the state and the results of a run."""

import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ahl_train.config import TrainConfig
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.errors import ConfigError, RunError
from ahl_train.features import Extractor
from ahl_train.features.backbone import BackboneSpec
from ahl_train.systems import system
from ahl_train.unified import Unified

_VERSIONED = ("ahl", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow")
SCORES = "scores.json"
_GROUPS = ("train_normal", "calibration_normal", "train_anomaly", "test")


@dataclass(frozen=True)
class Fold:
    """`normals`: indices of train normals; `scores`: their scores from a fit or a training without them."""

    normals: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """A finished run, loaded. `folds`: out-of-fold scores of all train normals, or () if some were held out."""

    folder: Path
    config: TrainConfig
    record: dict[str, Any]  # run.json: settings, versions, backbone digest, images left out
    split: Split
    model: Unified
    folds: tuple[Fold, ...] = ()

    @property
    def calibration_normals(self) -> tuple[Sample, ...]:
        """The normals that set the thresholds: the held-out ones, or all of them if they were scored out of fold."""
        return self.split.train_normal if self.folds else self.split.calibration_normal


class RunFolder:
    """Files of a run. Each is written to a temporary file and renamed: a kill leaves the old or the new file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, config: TrainConfig, split: Split, extra: dict[str, Any]) -> None:
        """Write the run's settings and split. RunError if the folder already holds a run."""
        if (self.path / "run.json").exists():
            raise RunError(f"{self.path} holds a run: continue with --resume, or choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path} cannot be created: {error.strerror}; choose another --out") from error
        groups = {name: [_sample_to_json(s) for s in getattr(split, name)] for name in _GROUPS}
        self.save_json(
            "split.json",
            {**groups, **{k: getattr(split, k) for k in ("setting", "seen_class", "shots", "seed")}},
        )
        self.save_json("run.json", {"settings": config.to_json(), "versions": _versions(), **extra})

    def require_same(self, config: TrainConfig) -> TrainConfig:
        """The recorded settings, with "auto" resolved. RunError unless the folder holds a run with these settings."""
        recorded = self.read_json("run.json")["settings"]
        wanted = json.loads(json.dumps(config.to_json()))
        if config.calibrate == "auto":
            wanted["calibrate"] = recorded.get("calibrate")
        if config.folds is None:
            wanted["folds"] = recorded.get("folds")
        different = [
            f"{k}: {recorded.get(k)!r} in the folder, {wanted[k]!r} requested"
            for k in wanted
            if recorded.get(k) != wanted[k]
        ]
        if different:
            raise RunError(f"{self.path} holds a run of other settings ({'; '.join(different)}): choose another --out")
        return TrainConfig.checked(recorded)

    def require_weights(self, spec: BackboneSpec) -> None:
        """RunError unless the run was made with these backbone weights: with others its scores mean nothing."""
        if self.read_json("run.json")["backbone_digest"] != spec.digest:
            given = spec.file or "those that timm downloads"
            raise RunError(
                f"{self.path} was made with other weights of {spec.name} than {given}: restore those, or train again"
            )

    def require_precision(self, wanted: str) -> str:
        """The precision of the run's features. RunError if another precision than this or "auto" is wanted."""
        recorded = str(self.read_json("run.json").get("precision", "float32"))  # older runs have no such entry
        if wanted not in ("auto", recorded):
            raise RunError(f"{self.path} holds a run on {recorded} features, {wanted} requested: choose another --out")
        return recorded

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; RunError if it is missing or broken."""
        file = self.path / name
        try:
            data = json.loads(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} is not a run folder: {name} is missing; train with --out {self.path}"
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read ({error}): train again") from error
        if not isinstance(data, dict):
            raise RunError(f"{file} is not a JSON object: train again")
        return data

    def fold(self, k: int) -> "RunFolder":
        """The folder of the k-th fold. It holds the fold's checkpoint until the fold has scores. RunError."""
        path = self.path / f"fold-{k}"
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be created ({error.strerror}): free space, then --resume") from error
        return RunFolder(path)

    def load_fold(self, k: int) -> Fold | None:
        """The k-th fold, or None if it is not finished. RunError if it is damaged."""
        name = f"fold-{k}/{SCORES}"
        if not (self.path / name).exists():
            return None
        data = self.read_json(name)
        try:
            found = Fold(tuple(int(i) for i in data["normals"]), tuple(float(s) for s in data["scores"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / name} is damaged ({error!r}): delete it, then --resume") from error
        if len(found.normals) != len(found.scores) or not all(math.isfinite(s) for s in found.scores):
            raise RunError(f"{self.path / name} is damaged (not one score per normal): delete it, then --resume")
        return found

    def save_fold(self, k: int, fold: Fold) -> None:
        """Save the k-th fold. RunError."""
        self.fold(k).save_json(SCORES, asdict(fold))

    def load_split(self) -> Split:
        """The run's split."""
        data = self.read_json("split.json")
        try:
            groups = {name: tuple(_sample_from_json(s) for s in data[name]) for name in _GROUPS}
            return Split(**data | groups)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path / 'split.json'} is damaged ({error!r}): train again") from error

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Save tensors."""
        self._write(name, lambda file: torch.save(state, file))

    def load(self, name: str) -> dict[str, Any] | None:
        """Load tensors, or None if they have not been saved yet. No code is unpickled."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises pickle, zip and runtime errors alike
            raise RunError(f"{file} cannot be read ({type(error).__name__}): train again") from error
        return state

    def log(self, line: dict[str, Any]) -> None:
        """Append to metrics.jsonl. A resumed run logs an epoch again if it was logged but not checkpointed."""
        file = self.path / "metrics.jsonl"
        try:
            with file.open("a") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError as error:
            raise RunError(f"{file} cannot be written ({error}): free space, then --resume") from error

    def save_json(self, name: str, data: dict[str, Any]) -> None:
        """Save a JSON object."""
        self._write(name, lambda file: file.write(json.dumps(data, indent=1).encode()))

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        target = self.path / name
        aside = target.with_name(f".{name}.part")  # always the same name: the next write overwrites what a kill left
        try:
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise RunError(f"{target} cannot be written ({error}): free space, then --resume") from error
        finally:
            aside.unlink(missing_ok=True)


def load_run(path: Path) -> Run:
    """Load a finished run. RunError if the folder holds none."""
    folder = RunFolder(path)
    record = folder.read_json("run.json")
    absent = [key for key in ("settings", "supersample", "versions", "backbone_digest") if key not in record]
    if absent:
        raise RunError(f"{path / 'run.json'} is damaged (it has no {absent[0]!r}): train again")
    try:
        config = TrainConfig.checked(record["settings"])
    except ConfigError as error:
        raise RunError(f"{path / 'run.json'}: {error}; a newer version of ahl may have made it: update ahl") from error
    state = folder.load("model.pt")
    if state is None:
        raise RunError(f"{path} holds a run that has not finished: run the same ahl train again, with --resume")
    spec = BackboneSpec(config.backbone, config.backbone_weights)
    folder.require_weights(spec)
    extractor = Extractor(spec, record["supersample"])
    split = folder.load_split()
    base = system(config.system).base(extractor, len(split.train_anomaly))
    try:
        base.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(
            f"{path} was made by another version of ahl, whose heads had other shapes: train again"
        ) from error
    folds = tuple(fold for k in range(config.fold_count) if (fold := folder.load_fold(k)))
    if config.fold_count and sorted(i for f in folds for i in f.normals) != list(range(len(split.train_normal))):
        raise RunError(f"{path} lacks the out-of-fold scores of some normals: train again")
    return Run(path, config, record, split, Unified(extractor, base), folds)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _sample_to_json(sample: Sample) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(sample).items() if v is not None}


def _sample_from_json(data: dict[str, Any]) -> Sample:
    read = {"path": Path, "mask": Path, "crop": tuple}
    return Sample(**{name: read[name](value) if name in read else value for name, value in data.items()})
