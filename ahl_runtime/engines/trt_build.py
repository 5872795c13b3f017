"""From an ONNX graph and a recipe to a TensorRT plan: strongly typed, in TensorRT 10, 11 and TensorRT for RTX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahl_runtime.core.errors import EngineError

Shape = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Recipe(BaseModel):
    """How to build, as it lies in the manifest. Shapes are (N, H, W): the profile that the engine is tuned for.

    `version_compatible`: the plan carries the lean runtime, and runs in it and in later versions of TensorRT;
    `hardware_compatible`: on which other GPUs it runs too, Ampere and later or those of the same compute capability.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["float16", "float32"]
    least: Shape
    usual: Shape
    most: Shape
    version_compatible: bool = False
    hardware_compatible: Literal["none", "ampere", "same"] = "none"


@dataclass(frozen=True, eq=False)
class Plan:
    """A built plan. `types`: how many of the network's convolutions and matrix products give each type.

    `weights`: bytes of weights that the builder says are in it, None where it does not say. `timing`: the timing
    cache after the build, empty where the library keeps none.
    """

    data: bytes
    types: Mapping[str, int]
    weights: int | None
    timing: bytes


def recipe(fields: object) -> Recipe:
    """The recipe of a manifest's `extras`. EngineError for one that this version does not read."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise EngineError(
            f"its TensorRT recipe cannot be read ({wrong}): update ahl-runtime or export again"
        ) from error


def build(trt: Any, model: bytes, recipe: Recipe, *, targets: tuple[str, ...] = (), timing: bytes = b"") -> Plan:
    """Build a plan with the module `trt`, `tensorrt` or `tensorrt_rtx`.

    `targets`: compute capabilities, SM89 and so on, which TensorRT for RTX alone can build for without a GPU; empty
    for the GPU that is here. `timing`: an earlier build's timing cache. EngineError, in one line, if the library
    refuses the graph, or if the network that it made of the graph does not have the recipe's precision.
    """
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        said = parser.get_error(0).desc() if parser.num_errors else log.said()
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot read the graph: {line(said)}")
    types = _types(trt, network)
    _check_precision(recipe, types, f"{trt.__name__} {trt.__version__}'s network")
    config = _config(trt, builder, recipe, targets)
    cache = config.create_timing_cache(timing) if not targets else None
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot build the engine: {line(log.said())}")
    kept = config.get_timing_cache() if cache is not None else None
    return Plan(bytes(data), types, log.weights, bytes(kept.serialize()) if kept is not None else b"")


def _config(trt: Any, builder: Any, recipe: Recipe, targets: tuple[str, ...]) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; 10 bits of mantissa in what calls itself float32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the engine can be asked what it runs
    if recipe.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.hardware_compatible != "none":
        level = {"ampere": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}[recipe.hardware_compatible]
        config.hardware_compatibility_level = _known(trt, trt.HardwareCompatibilityLevel, level)
    if targets:
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(_known(trt, trt.ComputeCapability, target), i)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *((*shape, 3) for shape in (recipe.least, recipe.usual, recipe.most)))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{trt.__name__} refuses the profile {recipe.least}, {recipe.usual}, {recipe.most}")
    return config


def _known(trt: Any, kind: Any, name: str) -> Any:
    found = getattr(kind, name, None)
    if found is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} has no {kind.__name__}.{name}: install another version")
    return found


def _types(trt: Any, network: Any) -> dict[str, int]:
    """What convolutions and matrix products give. A strongly typed network is built in these types or not at all."""
    wanted = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    layers = (network.get_layer(i) for i in range(network.num_layers))
    names = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
    given = (layer.get_output_type(0) for layer in layers if layer.type in wanted)
    return dict(Counter(names.get(kind, str(kind)) for kind in given))


def _check_precision(recipe: Recipe, types: Mapping[str, int], whose: str) -> None:
    if recipe.precision not in types or (recipe.precision == "float32" and len(types) > 1):
        found = ", ".join(f"{n} in {t}" for t, n in types.items()) or "none at all"
        raise EngineError(
            f"{recipe.precision} was asked for, and {whose} convolutions and products are {found}: export again"
        )


def logger(trt: Any) -> Any:
    """A logger that keeps errors for our own message, and what the builder says of weights; nothing is printed."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the class comes with the library
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.weights: int | None = None

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(text)
            words = text.partition("Total Weights Memory:")[2].split()
            if words and words[0].isdecimal():
                self.weights = int(words[0])

        def said(self) -> str:
            """The first error since the last time, which the others follow from."""
            first, self.errors = self.errors[:1], []
            return first[0] if first else "it gave no reason"

    return Log()


def line(text: str) -> str:
    """In one line, at most 300 characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 300 else joined[:300] + "..."
