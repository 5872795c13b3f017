"""The schema of manifest.json, format 1: how a bundle describes itself."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FIRST = "onnxruntime"

# JSON has no infinity: null in the file is +inf in memory. Such a threshold rejects nothing.
Threshold = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    PlainSerializer(lambda value: None if value == math.inf else value, return_type=float | None),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Graph(_Part):
    """The names of inputs, outputs and heads (columns of `head_scores`), the same for every artefact."""

    opset: Annotated[int, Field(ge=1)]
    inputs: list[Name]
    outputs: list[Name]
    heads: list[Name]


class DecisionRule(_Part):
    """`score > threshold`: reject. `unsure_threshold < score <= threshold`: unsure. A null threshold: never."""

    alpha: Rate
    confidence: Rate
    threshold: Threshold
    unsure_threshold: Threshold
    promise: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not -math.inf < self.unsure_threshold <= self.threshold:
            raise ValueError(f"unsure_threshold {self.unsure_threshold:g} is not at most threshold {self.threshold:g}")
        return self


class CalibrationPart(_Part):
    """The file of the calibration and its number of normals."""

    file: Name
    n: Annotated[int, Field(ge=1)]


class Reference(_Part):
    """A normal frame in the bundle, and the score that the artefact gave it at export."""

    file: Name
    score: Finite


class Parity(_Part):
    """How an artefact compared with the trained model at export.

    Compared with the model in torch, on `frames` frames of many sizes and kinds: the differences `score_max`,
    `score_mean`, `map_max` and `map_mean`. A map difference is relative if the model's value is above 1, a score
    difference if it is above `unit` of `extras.bounds`. Compared with the bundle's first artefact, on `compared`
    held-out normals and pseudo anomalies: Spearman's `rank_correlation`, and `flips`, the number of decisions (reject
    or not) that differ, each by its own threshold. The first artefact is compared with torch on the `frames` instead.
    `ms_p50`, `ms_p99`: time of one frame of the training images' size on `threads` threads of `cpu`. `size`: bytes of
    the artefact's files.
    """

    frames: Count
    score_max: Finite
    score_mean: Finite
    map_max: Finite
    map_mean: Finite
    compared: Count
    rank_correlation: Annotated[float, Field(ge=-1, le=1)]
    flips: Annotated[int, Field(ge=0)]
    ms_p50: Finite
    ms_p99: Finite
    threads: Count
    cpu: str
    size: Count


class Artefact(_Part):
    """The graph in the format of one engine, and how this format scored at export.

    `engine`: the engine that runs the artefact, see `ahl_runtime.engines`. `files`: members, in the order that the
    engine needs. `precision`: of weights and arithmetic, in words. `tolerance`: the largest allowed difference of a
    reference frame's score on a device, relative if the score is above 1. `decision`, `calibration`, `map_range` and
    `reference` come from the artefact's own scores and maps. If the artefact could not run at export, they are those
    of the first artefact, and `parity` is null. `extras`: free JSON, the engine's own facts.
    """

    engine: Name
    files: list[Name]
    precision: Name
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    decision: DecisionRule
    calibration: CalibrationPart
    map_range: Annotated[tuple[Finite, Finite], Field(strict=False)]
    reference: list[Reference]
    parity: Parity | None
    extras: dict[str, Any]

    @model_validator(mode="after")
    def _range(self) -> Self:
        low, high = self.map_range
        if not low < high:
            raise ValueError(f"map_range [{low:g}, {high:g}] is not in order")
        return self

    @property
    def members(self) -> tuple[Name, ...]:
        """Every member that the artefact names."""
        return (*self.files, self.calibration.file, *(r.file for r in self.reference))


class Member(_Part):
    """The expected bytes of a member. `sha256`: 64 hex digits. `size`: in bytes."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Manifest(_Part):
    """manifest.json. `artefacts`: the ONNX graph in float32 comes first. `provenance`: free JSON."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    name: Name
    created: Annotated[AwareDatetime, Field(strict=False)]
    graph: Graph
    artefacts: Annotated[list[Artefact], Field(min_length=1)]
    provenance: dict[str, Any]
    members: dict[str, Member]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        engines = [a.engine for a in self.artefacts]
        if len(set(engines)) < len(engines):
            raise ValueError(f"artefacts name an engine twice: {', '.join(engines)}")
        if engines[0] != FIRST:
            raise ValueError(f"the first artefact is for {engines[0]}, expected {FIRST}")
        missing = sorted({name for a in self.artefacts for name in a.members} - set(self.members))
        if missing:
            raise ValueError(f"the artefacts name {', '.join(missing)}, which members does not list")
        for own in (MANIFEST, SIGNATURE):
            if own in self.members:
                raise ValueError(f"members lists {own}, but {MANIFEST} cannot hold the digest of {own}")
        return self

    @property
    def first(self) -> Artefact:
        """The ONNX graph in float32. Every device can run it, and the other artefacts are compared with it."""
        return self.artefacts[0]

    def artefact(self, engine: str) -> Artefact | None:
        """The artefact of that engine, or None if the bundle has none."""
        return next((a for a in self.artefacts if a.engine == engine), None)
