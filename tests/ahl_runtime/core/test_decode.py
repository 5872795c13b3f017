"""Every kind of image file gives the same RGB pixels; a damaged one gives one clear error."""

import io
import struct
import zlib
from pathlib import Path

import elpv_dataset
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ahl_runtime.core.decode import FORMATS, ImageError, decode, iter_images

# Outside pytest, which sets its own filters, ahl_runtime.core.decode keeps Pillow quiet.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CELL = Path(elpv_dataset.__path__[0]) / "data" / "images" / "cell0001.png"
GREY = np.asarray(Image.open(CELL))
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)[:120, :200]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png16(values: np.ndarray, colour_type: int, channels: int) -> bytes:
    """A 16-bit PNG from big-endian samples [H, W, channels], without Pillow."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape[:2]
    rows = values.reshape(height, width * channels).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_a_real_cell_is_grey_repeated() -> None:
    pixels = decode(CELL)
    assert pixels.dtype == np.uint8 and pixels.shape == (300, 300, 3) and pixels.flags.c_contiguous
    for channel in range(3):
        assert np.array_equal(pixels[:, :, channel], GREY)


def test_path_bytes_and_file_agree() -> None:
    with CELL.open("rb") as file:
        from_file = decode(file)
    assert np.array_equal(from_file, decode(CELL.read_bytes()))
    assert np.array_equal(from_file, decode(str(CELL)))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_modes_agree(mode: str) -> None:
    grey = mode in ("L", "LA", "P")
    base = Image.fromarray(GREY[:120, :200] if grey else COLOUR)
    expected = decode(encoded(base))
    image = base.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(GREY[:120, :200]))
    assert np.array_equal(decode(encoded(image)), expected)


def test_one_bit_is_black_and_white() -> None:
    pixels = decode(encoded(Image.fromarray(GREY > 100)))
    assert np.array_equal(pixels[:, :, 0], np.where(GREY > 100, 255, 0))


def test_cmyk_is_rgb() -> None:
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    pixels = decode(encoded(cmyk, "TIFF"))
    assert np.array_equal(pixels, np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("brightest", [200, 60_000])
def test_sixteen_bit_tiff_is_divided_by_256(mode: str, brightest: int) -> None:
    deep = (np.arange(64 * 48).reshape(48, 64) * brightest // (64 * 48)).astype(np.uint16)
    raw = deep.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    pixels = decode(encoded(Image.frombytes(mode, (64, 48), raw), "TIFF"))
    assert np.array_equal(pixels[:, :, 2], deep // 256)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png_is_divided_by_256(colour_type: int, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels))
    colours = deep[:, :, :3] if channels >= 3 else np.repeat(deep[:, :, :1], 3, axis=2)
    assert np.array_equal(decode(png16(deep, colour_type, channels)), colours // 256)


def test_pixels_without_a_scale_are_refused() -> None:
    with pytest.raises(ImageError, match="float pixels"):
        decode(encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"))
    with pytest.raises(ImageError, match="32-bit"):
        decode(encoded(Image.fromarray(GREY.astype(np.int32) * 70_000), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(COLOUR), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), np.asarray(upright))
    assert decode(data).shape == ((120, 200, 3) if orientation < 5 else (200, 120, 3))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(CELL.read_bytes()[:20_000])
    with pytest.raises(ImageError, match=r"cut\.png"):
        decode(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image"):
        decode(data)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        decode(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="a folder: give an image file"):
        decode(tmp_path)


def test_a_bomb_is_refused_before_its_pixels_are_read() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    with pytest.raises(ImageError):
        decode(bomb)
    with pytest.raises(ImageError, match="300 x 300 pixels, the limit is 89999"):
        decode(CELL, max_pixels=89_999)
    assert decode(CELL, max_pixels=90_000).shape == (300, 300, 3)


SMALL = {kind: encoded(Image.fromarray(COLOUR[:24, :40]), kind) for kind in FORMATS}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_a_cut_file_is_refused_or_whole(kind: str, data: st.DataObject) -> None:
    whole = SMALL[kind]
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        pixels = decode(cut)
    except ImageError:
        return
    assert np.array_equal(pixels, decode(whole))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_bytes_never_raise_anything_else(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(damaged), max_pixels=1_000_000)
    except ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_iter_images_expands_and_sorts(tmp_path: Path) -> None:
    for name in ["b/2.PNG", "b/1.jpg", "a.tiff", "b/note.txt", "b/.hidden.png", ".aside/3.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    odd = tmp_path / "b" / "note.txt"
    found = list(iter_images([odd, tmp_path]))
    assert found == [odd, tmp_path / "a.tiff", tmp_path / "b" / "1.jpg", tmp_path / "b" / "2.PNG"]


def test_iter_images_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images"):
        iter_images([tmp_path])
    with pytest.raises(ImageError, match="gone: no such file"):
        iter_images([tmp_path / "gone"])
