"""Build a strongly typed TensorRT plan from an ONNX graph and a recipe: TensorRT 10 and 11, TensorRT for RTX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahl_runtime.core.errors import EngineError

Shape = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Recipe(BaseModel):
    """How to build a plan, as the manifest stores it. Shapes are (N, H, W): the profile that the engine is tuned for.

    `version_compatible`: the plan contains the lean runtime, and runs in it and in later versions of TensorRT.
    `hardware_compatible`: the other GPUs on which the plan runs: none, Ampere and later, or those of the same compute
    capability.
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
    """A built plan. `types`: the number of convolutions and matrix products of the network for each output type.

    `weights`: bytes of weights in the plan as the builder reports them, None if it does not. `timing`: the timing
    cache after the build, empty if the library has none.
    """

    data: bytes
    types: Mapping[str, int]
    weights: int | None
    timing: bytes


def recipe(fields: object) -> Recipe:
    """The recipe in a manifest's `extras`. EngineError for a recipe that this version cannot read."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise EngineError(
            f"its TensorRT recipe cannot be read ({wrong}): update ahl-runtime or export again"
        ) from error


def build(trt: Any, model: bytes, recipe: Recipe, *, targets: tuple[str, ...] = (), timing: bytes = b"") -> Plan:
    """Build a plan with the module `trt`, `tensorrt` or `tensorrt_rtx`.

    `targets`: compute capabilities, SM89 and so on; empty for the GPU of this machine. Only TensorRT for RTX can build
    for targets without a GPU. `timing`: the timing cache of an earlier build. EngineError, in one line, if the library
    refuses the graph, or if the parsed network does not have the recipe's precision.
    """
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        message = parser.get_error(0).desc() if parser.num_errors else log.first_error()
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot read the graph: {line(message)}")
    types = _types(trt, network)
    _check_precision(recipe, types, f"{trt.__name__} {trt.__version__}'s network")
    config = _config(trt, builder, recipe, targets)
    cache = config.create_timing_cache(timing) if not targets else None
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(f"{trt.__name__} {trt.__version__} cannot build the engine: {line(log.first_error())}")
    kept = config.get_timing_cache() if cache is not None else None
    return Plan(bytes(data), types, log.weights, bytes(kept.serialize()) if kept is not None else b"")


def _config(trt: Any, builder: Any, recipe: Recipe, targets: tuple[str, ...]) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and has a mantissa of 10 bits instead of 23
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector needs it to list the layers
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
    """Count convolutions and matrix products by output type. A strongly typed network is built in exactly these."""
    wanted = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    layers = (network.get_layer(i) for i in range(network.num_layers))
    names = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
    given = (layer.get_output_type(0) for layer in layers if layer.type in wanted)
    return dict(Counter(names.get(kind, str(kind)) for kind in given))


def _check_precision(recipe: Recipe, types: Mapping[str, int], whose: str) -> None:
    if recipe.precision not in types or (recipe.precision == "float32" and len(types) > 1):
        found = ", ".join(f"{n} in {t}" for t, n in types.items()) or "missing"
        raise EngineError(
            f"the recipe asks for {recipe.precision}, but {whose} convolutions and matrix products are {found}: "
            "export again"
        )


def logger(trt: Any) -> Any:
    """A logger that keeps errors and the size of the weights that the builder reports. It prints nothing."""

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

        def first_error(self) -> str:
            """The first error since the last call. It is the cause of the others."""
            first, self.errors = self.errors[:1], []
            return first[0] if first else "the library gave no reason"

    return Log()


def line(text: str) -> str:
    """The text as one line of at most 300 characters, plus "..." if it was cut."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 300 else joined[:300] + "..."
