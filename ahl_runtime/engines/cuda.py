"""Find the NVIDIA GPU and its properties through the driver's library. Needs no package."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from ahl_runtime.core.errors import EngineError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Device:
    """The first GPU. `capability`: SM89 and so on. `driver`: the newest CUDA that the driver runs, 13020 for 13.2."""

    name: str
    capability: str
    driver: int


def missing() -> str | None:
    """Why no NVIDIA GPU can be used, in words; None if one can."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"no NVIDIA driver here ({_LIBRARY} is missing)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU"
    return None


def device() -> Device:
    """The GPU that engines run on. EngineError if there is none."""
    problem = missing()
    if problem:
        raise EngineError(problem)
    driver = ctypes.CDLL(_LIBRARY)
    handle, version = ctypes.c_int(0), ctypes.c_int(0)
    numbers = [ctypes.c_int(0), ctypes.c_int(0)]
    name = ctypes.create_string_buffer(256)
    failed = driver.cuDeviceGet(ctypes.byref(handle), 0)
    failed = failed or driver.cuDeviceGetName(name, len(name), handle)
    failed = failed or driver.cuDriverGetVersion(ctypes.byref(version))
    for number, attribute in zip(numbers, (_MAJOR, _MINOR), strict=True):
        failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, handle)
    if failed:
        raise EngineError(f"the NVIDIA driver does not describe its GPU (error {failed}): check it with nvidia-smi")
    major, minor = (number.value for number in numbers)
    return Device(name.value.decode(errors="replace"), f"SM{major}{minor}", version.value)
