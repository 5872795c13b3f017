"""Cameras through Aravis and ctypes. The system provides the library; its errors become SourceError.

Reference: Aravis 0.8, the classes ArvCamera, ArvStream and ArvBuffer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self

from ahl_runtime.core.errors import SourceError

LIBRARY = "libaravis-0.8.so.0"
_BUFFERS = 8  # frames that Aravis can receive while the line reads one
_CONTINUOUS = 0  # ARV_ACQUISITION_MODE_CONTINUOUS
_DONE = 0  # ArvBufferStatus
_CHECK = 1  # ARV_RANGE_CHECK_POLICY_ENABLE
_NO_PACKET_SOCKET = 1  # ArvGvStreamOption
_DAMAGE = {2: "packets were late", 3: "packets are missing", 4: "packets came out of order", 5: "its size is wrong"}


class _GError(ctypes.Structure):
    _fields_ = (("domain", c_uint32), ("code", c_int), ("message", c_char_p))


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise SourceError(f"GigE Vision needs Aravis ({LIBRARY}): apt install libaravis-0.8-0") from error
    # Functions that may fail: name, result type, argument types without the last one, the error.
    pointer, text, number = c_void_p, c_char_p, c_int
    raising: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("arv_camera_new", pointer, (text,)),
        ("arv_camera_create_stream", pointer, (pointer, pointer, pointer)),
        ("arv_camera_get_payload", c_uint32, (pointer,)),
        ("arv_camera_get_region", None, (pointer, *[POINTER(c_int)] * 4)),
        ("arv_camera_set_region", None, (pointer, *[number] * 4)),
        ("arv_camera_set_pixel_format_from_string", None, (pointer, text)),
        ("arv_camera_set_acquisition_mode", None, (pointer, number)),
        ("arv_camera_set_trigger", None, (pointer, text)),
        ("arv_camera_clear_triggers", None, (pointer,)),
        ("arv_camera_software_trigger", None, (pointer,)),
        ("arv_camera_start_acquisition", None, (pointer,)),
        ("arv_camera_stop_acquisition", None, (pointer,)),
        ("arv_device_set_features_from_string", number, (pointer, text)),
    ]
    plain: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("arv_camera_get_device", pointer, (pointer,)),
        ("arv_camera_set_range_check_policy", None, (pointer, number)),
        ("arv_camera_is_gv_device", number, (pointer,)),
        ("arv_camera_gv_set_stream_options", None, (pointer, number)),
        ("arv_stream_push_buffer", None, (pointer, pointer)),
        ("arv_stream_timeout_pop_buffer", pointer, (pointer, c_uint64)),
        ("arv_stream_get_statistics", None, (pointer, *[POINTER(c_uint64)] * 3)),
        ("arv_buffer_new_allocate", pointer, (c_size_t,)),
        ("arv_buffer_get_status", number, (pointer,)),
        ("arv_buffer_get_system_timestamp", c_uint64, (pointer,)),
        ("arv_buffer_get_data", pointer, (pointer, POINTER(c_size_t))),
        ("arv_buffer_get_image_pixel_format", c_uint32, (pointer,)),
        ("arv_buffer_get_image_width", number, (pointer,)),
        ("arv_buffer_get_image_height", number, (pointer,)),
        ("g_object_unref", None, (pointer,)),
        ("g_error_free", None, (pointer,)),
    ]
    where = (POINTER(POINTER(_GError)),)
    for name, result, takes in [*plain, *((name, result, takes + where) for name, result, takes in raising)]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, takes
    return library


def _call(name: str, *values: Any) -> Any:
    """Call a function of Aravis. SourceError with the message of Aravis."""
    library, error = _library(), POINTER(_GError)()
    result = getattr(library, name)(*values, byref(error))
    if error:
        message = (error.contents.message or b"").decode(errors="replace")
        library.g_error_free(error)
        raise SourceError(message or f"{name} failed")
    return result


@dataclass(frozen=True, eq=False)
class Buffer:
    """A received frame. `format`: a code of the Pixel Format Naming Convention. `damage`: why it is incomplete, or ''.

    `system_ns`: nanoseconds since 1970, by this computer's clock. `data` copies the pixels; call it before the next
    call of `Camera.next`.
    """

    width: int
    height: int
    format: int
    system_ns: int
    damage: str
    data: Callable[[], bytes]


class Camera:
    """A camera, by its address or its name. A context manager. SourceError from every method.

    Call the setters before `start`. Any thread may call `trigger` and `region`.
    """

    def __init__(self, name: str) -> None:
        self._library = _library()
        self._stream: int | None = None
        self._held: int | None = None
        self._camera: int | None = _call("arv_camera_new", name.encode())
        self._library.arv_camera_set_range_check_policy(self._camera, _CHECK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._stream and (error is None or isinstance(error, GeneratorExit)):
                _call("arv_camera_stop_acquisition", self._camera)
        except SourceError:
            pass  # the camera is disconnected and stops by itself
        finally:
            self._give_back()
            for thing in (self._stream, self._camera):
                if thing:
                    self._library.g_object_unref(thing)
            self._stream = self._camera = None

    def set_feature(self, name: str, value: str) -> None:
        """Set a GenICam feature of any type."""
        device = self._library.arv_camera_get_device(self._camera)
        if not _call("arv_device_set_features_from_string", device, f"{name}={value}".encode()):
            raise SourceError(f"{name} cannot be set to {value}")

    def set_pixel_format(self, name: str) -> None:
        """Set the pixel format by its GenICam name, such as BayerRG8."""
        _call("arv_camera_set_pixel_format_from_string", self._camera, name.encode())

    def set_region(self, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Set the region that the camera sends, in pixels of its sensor; returns the region as the camera set it."""
        _call("arv_camera_set_region", self._camera, x, y, width, height)
        return self.region()

    def set_trigger(self, source: str | None) -> None:
        """Set the trigger, such as Software or Line1 (rising edge); None: the camera runs freely."""
        if source is None:
            _call("arv_camera_clear_triggers", self._camera)
        else:
            _call("arv_camera_set_trigger", self._camera, source.encode())

    def start(self) -> None:
        """Start the acquisition of frames."""
        _call("arv_camera_set_acquisition_mode", self._camera, _CONTINUOUS)
        size = _call("arv_camera_get_payload", self._camera)
        if self._library.arv_camera_is_gv_device(self._camera):
            # A packet socket needs root, and receives each loopback packet twice.
            self._library.arv_camera_gv_set_stream_options(self._camera, _NO_PACKET_SOCKET)
        self._stream = _call("arv_camera_create_stream", self._camera, None, None)
        for _ in range(_BUFFERS):
            self._library.arv_stream_push_buffer(self._stream, self._library.arv_buffer_new_allocate(size))
        _call("arv_camera_start_acquisition", self._camera)

    def next(self, timeout: float) -> Buffer | None:
        """The next frame, or None after `timeout` seconds. Returns the buffer of the frame before to Aravis."""
        self._give_back()
        library = self._library
        self._held = found = library.arv_stream_timeout_pop_buffer(self._stream, int(timeout * 1e6))
        if not found:
            return None
        status = library.arv_buffer_get_status(found)
        return Buffer(
            library.arv_buffer_get_image_width(found) if status == _DONE else 0,
            library.arv_buffer_get_image_height(found) if status == _DONE else 0,
            library.arv_buffer_get_image_pixel_format(found) if status == _DONE else 0,
            library.arv_buffer_get_system_timestamp(found),
            "" if status == _DONE else _DAMAGE.get(status, f"Aravis buffer status {status}"),
            lambda: self._copied(found),
        )

    def underruns(self) -> int:
        """The number of frames since the start that were lost because Aravis had no free buffer."""
        done, failed, missed = c_uint64(), c_uint64(), c_uint64()
        self._library.arv_stream_get_statistics(self._stream, byref(done), byref(failed), byref(missed))
        return missed.value

    def trigger(self) -> None:
        """Trigger one frame; the trigger must be Software."""
        _call("arv_camera_software_trigger", self._camera)

    def region(self) -> tuple[int, int, int, int]:
        """Read the region that the camera sends: x, y, width, height. Also shows that the camera is alive."""
        found = [c_int() for _ in range(4)]
        _call("arv_camera_get_region", self._camera, *[byref(value) for value in found])
        x, y, width, height = (value.value for value in found)
        return x, y, width, height

    def _copied(self, buffer: int) -> bytes:
        size = c_size_t()
        data = self._library.arv_buffer_get_data(buffer, byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def _give_back(self) -> None:
        if self._held:
            self._library.arv_stream_push_buffer(self._stream, self._held)
            self._held = None
