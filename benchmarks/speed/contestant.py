"""One of the programs that the bench compares with, in its own process.

python -m benchmarks.speed.contestant KIND [FILE] [SIDE] [PRECISION]
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ahl_runtime.core.errors import RuntimeFault
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning import measure

_FRAME = 300  # px, as ELPV's cells
Score = Callable[[], object]


def _frame(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def paper(threads: int | None) -> Score:
    """The model of the paper, in torch, from pixels to the score."""
    import torch

    from benchmarks.speed.models import Paper

    model, image, wanted = Paper(), torch.from_numpy(_frame(_FRAME))[None], cores(threads)

    def score() -> object:
        if torch.get_num_threads() != wanted:  # torch has this setting per thread
            torch.set_num_threads(wanted)
        with torch.inference_mode():
            return model(image)

    return score


def anomalib(threads: int | None, path: Path, side: int, precision: str = "") -> Score:
    """An anomalib export, run by anomalib's inferencer. The pixels have the network's size, so there is no resize.

    `precision`: OpenVINO's name of the precision to compute in. If it is empty, OpenVINO chooses it for the CPU.
    """
    os.chdir(path.parent)  # anomalib leaves files in the working directory
    from anomalib.deploy import OpenVINOInferencer

    settings: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    inferencer, image = OpenVINOInferencer(path, "CPU", settings), _frame(side)
    return lambda: inferencer.predict(image)


def _scales() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((1, 3, side, side), np.float32) for name, side in (("fine", 448), ("coarse", 224))
    }


def onnxruntime(threads: int | None, path: Path) -> Score:
    """A graph of both scales in ONNX Runtime, with the same session options as ours."""
    from ahl_runtime.engines.ort import session
    from ahl_runtime.engines.tuned import SessionOptions

    loaded, scales = session(path.read_bytes(), cores(threads), False, SessionOptions()), _scales()
    return lambda: loaded.run(None, scales)


def openvino(threads: int | None, path: Path) -> Score:
    """A graph of both scales in OpenVINO, with the same settings as our engine."""
    from ahl_runtime.engines.openvino import compiled, read

    request, scales = compiled(read(path.read_bytes(), b""), cores(threads)).create_infer_request(), _scales()
    return lambda: request.infer(scales, share_inputs=True)


def main(kind: str, *arguments: str) -> None:
    """Answer the requests of the bench."""
    makes: dict[str, Callable[[int | None], Score]] = {
        "paper": paper,
        "anomalib": lambda threads: anomalib(threads, Path(arguments[0]).absolute(), int(arguments[1]), *arguments[2:]),
        "onnxruntime": lambda threads: onnxruntime(threads, Path(arguments[0])),
        "openvino": lambda threads: openvino(threads, Path(arguments[0])),
    }
    measure.serve(makes[kind], RuntimeFault)


if __name__ == "__main__":
    main(*sys.argv[1:])
