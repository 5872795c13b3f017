"""What a bundle says of itself: the schema of manifest.json, format 1."""

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

# JSON has no infinity: null in the file is +inf in memory, a threshold that rejects nothing.
Threshold = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    PlainSerializer(lambda value: None if value == math.inf else value, return_type=float | None),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Graph(_Part):
    """The ONNX graph: its file, and the names of its inputs, outputs and heads (columns of `head_scores`)."""

    file: Name
    opset: Annotated[int, Field(ge=1)]
    inputs: list[Name]
    outputs: list[Name]
    heads: list[Name]


class DecisionRule(_Part):
    """`score > threshold` rejects, `unsure_threshold < score <= threshold` is unsure; null: never."""

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
    """The calibration's file and its number of normals."""

    file: Name
    n: Annotated[int, Field(ge=1)]


class Reference(_Part):
    """A normal frame that the bundle carries, and the score that the graph gave it where it was exported."""

    file: Name
    score: Finite


class Member(_Part):
    """What a member's bytes must be. `sha256`: 64 hex digits; `size`: bytes."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Manifest(_Part):
    """manifest.json. `map_range`: [low, high], anomaly-map values of normal frames; `provenance`: free JSON."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    name: Name
    created: Annotated[AwareDatetime, Field(strict=False)]
    graph: Graph
    decision: DecisionRule
    calibration: CalibrationPart
    map_range: Annotated[tuple[Finite, Finite], Field(strict=False)]
    reference: list[Reference]
    provenance: dict[str, Any]
    members: dict[str, Member]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        low, high = self.map_range
        if not low < high:
            raise ValueError(f"map_range [{low:g}, {high:g}] is not in order")
        named = [self.graph.file, self.calibration.file, *(r.file for r in self.reference)]
        missing = sorted(set(named) - set(self.members))
        if missing:
            raise ValueError(f"members lacks {', '.join(missing)}")
        if "manifest.json" in self.members:
            raise ValueError("members names manifest.json, which cannot hold its own digest")
        return self
