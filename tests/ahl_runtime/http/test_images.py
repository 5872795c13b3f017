"""Images out of requests: right ones give the decoder's pixels, all others are refused with a reason."""

import io
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import ImageError
from ahl_runtime.http.api.images import FORM, image_file
from ahl_runtime.http.errors import Refusal

LIMIT = 1_000_000


def pixels(body: bytes, kind: str, most: int) -> np.ndarray:
    """As a request's image is read."""
    return decode(anyio.run(image_file, request(body, kind)), max_pixels=most)


def request(body: bytes, kind: str) -> Request:
    """A request whose body comes in pieces, as from a socket."""
    pieces = [body[i : i + 1000] for i in range(0, len(body), 1000)] or [b""]
    messages = iter({"type": "http.request", "body": p, "more_body": p is not pieces[-1]} for p in pieces)

    async def receive() -> Message:
        return next(messages)

    headers = [(b"content-type", kind.encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def small(kind: str = "PNG", side: int = 6) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def form(files: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A form as a published client writes it."""
    sent = requests.Request("POST", "http://x/", files=[(name, ("a.png", body)) for name, body in files]).prepare()
    assert isinstance(sent.body, bytes)
    return sent.body, sent.headers["content-type"]


def test_the_body_is_the_image(cells: list[Path]) -> None:
    for kind in ("image/png", "application/octet-stream", "IMAGE/PNG; x=y"):
        np.testing.assert_array_equal(pixels(cells[0].read_bytes(), kind, LIMIT), decode(cells[0]))


@pytest.mark.parametrize("parts", [["image"], ["file"], ["other", "image"]])
def test_a_form_holds_the_image(parts: list[str], cells: list[Path]) -> None:
    body, kind = form([(name, cells[0].read_bytes() if name != "other" else b"x") for name in parts])
    np.testing.assert_array_equal(pixels(body, kind, LIMIT), decode(cells[0]))


def test_forms_without_one_image() -> None:
    for parts in ([("a", b"1"), ("b", b"2")], [("image", b"1"), ("image", b"2")], [("a", b"")] * 9):
        with pytest.raises(Refusal) as refused:
            pixels(*form(parts), LIMIT)
        assert refused.value.status == 400
    body, kind = form([("image", small())])
    for damaged in (body[:-10], body[5:], b"", b"--"):
        with pytest.raises(Refusal):
            pixels(damaged, kind, LIMIT)
    two, other = form([("image", small()), ("other", small())])
    with pytest.raises(Refusal, match="whole"):
        pixels(two[: 3 * len(two) // 4], other, LIMIT)
    for kind in (FORM, f"{FORM}; boundary=", f"{FORM}; boundary={'x' * 71}"):
        with pytest.raises(Refusal):
            pixels(body, kind, LIMIT)


@pytest.mark.parametrize("kind", ["", "text/html", "application/x-www-form-urlencoded", "image/svg+xml", "image/gif"])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(Refusal, match="expected one of") as refused:
        pixels(small(), kind, LIMIT)
    assert refused.value.status == 415


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    out = io.BytesIO()
    Image.new("L", (30_000, 30_000)).save(out, "PNG")
    assert len(out.getvalue()) < 2_000_000
    with pytest.raises(ImageError, match=r"30000 x 30000|exceeds limit"):
        pixels(out.getvalue(), "image/png", LIMIT)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
def test_damaged_images_are_pixels_or_refused(kind: str, data: st.DataObject) -> None:
    body = bytearray(small(kind))
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    try:
        found = pixels(bytes(body), "image/png", LIMIT)
    except (ImageError, Refusal) as error:
        assert str(error)
    else:
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


@pytest.mark.slow
def test_ten_thousand_damaged_images_leave_no_memory_behind() -> None:
    """In a process of its own: what other tests of this one hold and let go would count as well."""
    script = Path(__file__).with_name("damaged_images.py")
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, grown = map(int, done.stdout.split())
    assert refused > 3000
    assert grown < 10_000_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow says what it finds odd
def test_a_thousand_damaged_images_over_http(url: str) -> None:
    """Decided on or refused, and the server answers as before."""
    draw, whole = random.Random(7), {kind: small(kind, 32) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")}
    said = Counter[int]()
    with requests.Session() as client:
        for _ in range(1000):
            body = bytearray(whole[draw.choice(list(whole))])
            for _ in range(draw.randint(1, 8)):
                body[draw.randrange(min(len(body), 200))] = draw.randrange(256)
            sent = bytes(body[: draw.choice([len(body), draw.randrange(1, len(body))])])
            answered = client.post(f"{url}/v1/score", sent, headers={"content-type": "image/png"}, timeout=60)
            said[answered.status_code] += 1
        assert client.get(f"{url}/readyz", timeout=60).status_code == 200
    assert said.keys() <= {200, 400, 413, 422} and said[400] > 300, said


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_any_form_is_refused_or_read(body: bytes, boundary: bytes) -> None:
    head = b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\n"
    for kind in (f"{FORM}; boundary=b", f"{FORM}; boundary={boundary.decode('latin-1')}"):
        for sent in (body, head + body, head + body + b"\r\n--b--\r\n"):
            with pytest.raises((ImageError, Refusal)):
                pixels(sent, kind, LIMIT)
