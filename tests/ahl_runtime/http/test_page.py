"""The operator's page in a real browser, around a real server: what it shows, tells, lets do, and how it looks.

Screenshots go to the folder AHL_SCREENSHOTS, if it is set.
"""

import io
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ahl_runtime.core.decode import decode
from ahl_runtime.http.app import build
from ahl_runtime.http.settings import Settings
from ahl_runtime.line.store.store import Store

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=30_000)  # ms; a busy machine is slow, not wrong
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page; at the end nothing was asked of anyone else, and nothing went wrong."""
    contexts = []
    wrong: list[str] = []

    def open_page(at: str = url, scheme: str = "dark", width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(at) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(at)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def cell_of(line: Any, cells: list[Path], verdict: str) -> bytes:
    """A real cell, darkened or lightened until the line decides so."""
    pixels = decode(cells[0]).astype(float)
    for add in np.arange(-200, 200, 0.5):
        image = np.clip(pixels + add, 0, 255).astype(np.uint8)
        if line.scorer.score(image).verdict == verdict:
            out = io.BytesIO()
            Image.fromarray(image).save(out, "PNG")
            return out.getvalue()
    raise AssertionError(verdict)


def send(url: str, body: bytes) -> str:
    answered = requests.post(f"{url}/v1/score", body, headers={"content-type": "image/png"}, timeout=10)
    assert answered.status_code == 200, answered.text
    return str(answered.json()["id"])


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("AHL_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}.png")


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("verdict", ["pass", "unsure", "reject"])
def test_it_shows_the_decision(verdict: str, scheme: str, opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    page = opened(scheme=scheme)
    expect(page.locator("#word")).to_have_text("Waiting")
    for cell in cells[:30]:
        send(url, cell.read_bytes())
    send(url, cell_of(line, cells, verdict))
    expect(page.locator("#word")).to_have_text(verdict.capitalize())
    expect(page.locator("body")).to_have_attribute("data-verdict", verdict)
    expect(page.locator("#shape")).to_have_attribute("href", f"#{verdict}")
    expect(page.locator("#picture")).to_have_attribute("alt", re.compile(f"{verdict.capitalize()}.* with the heat map"))
    assert page.locator("#picture").evaluate("i => i.naturalWidth") == 300
    expect(page.locator("#counts div", has_text="Frames").locator("dd")).to_have_text("31")
    expect(page.locator("#strip-words")).to_contain_text("of the last 31 rejected")
    expect(page.locator("#link")).to_contain_text("Live")
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [1280, 800]
    accessible(page)
    keep(page, f"{verdict}-{scheme}")


def test_it_is_light() -> None:
    folder = resources.files("ahl_runtime.http") / "page"
    files = {f.name: f.read_bytes() for f in folder.iterdir()}
    assert sum(map(len, files.values())) < 60_000
    addresses = {a for body in files.values() for a in re.findall(rb"https?://[^\"']*", body)}
    assert addresses == {b"http://www.w3.org/2000/svg"}  # a name, which nothing is asked of


def test_a_panel_held_upright_and_a_small_one(opened: Open, url: str, cells: list[Path]) -> None:
    send(url, cells[0].read_bytes())
    for name, width, height in (("upright", 800, 1280), ("phone", 390, 780)):
        page = opened(width=width, height=height, has_touch=True)
        expect(page.locator("#word")).not_to_have_text("Waiting")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        keep(page, name)


def test_buttons_are_large_enough_for_gloves(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    send(url, cell_of(line, cells, "reject"))
    page = opened(has_touch=True)
    expect(page.locator("#rejects button")).to_have_count(1)
    page.locator("#rejects button").tap()
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box is not None and min(box["width"], box["height"]) >= 44, button


def test_a_reject_is_marked(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    id = send(url, cell_of(line, cells, "reject"))
    page = opened()
    page.locator("#rejects button").click()
    expect(page.locator("#decision-title")).to_have_text("Reject – default")
    expect(page.locator("#decision-picture")).to_be_visible()
    accessible(page)
    keep(page, "decision")
    page.get_by_role("button", name="It is good").click()
    expect(page.locator("#decision-mark")).to_have_text("Marked good. Thank you.")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#rejects button")).to_contain_text("good")
    with Store(line.store_path) as store:
        assert [(d["id"], d["label"]) for d in store.decisions()] == [(id, "good")]


def test_the_newest_frame_is_looked_at(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    id = send(url, cell_of(line, cells, "unsure"))
    page = opened()
    page.get_by_role("button", name="Look at this frame").click()
    expect(page.locator("#decision-title")).to_have_text("Unsure – default")
    page.get_by_role("button", name="It is a defect").click()
    expect(page.locator("#decision-mark")).to_have_text("Marked a defect. Thank you.")
    assert requests.get(f"{url}/v1/decisions/{id}", timeout=5).json()["label"] == "anomaly"


def test_a_calibration_is_activated_and_rolled_back(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    for cell in cells:
        line.submit(decode(cell) // 4 * 3, None, "")
    page = opened()
    page.get_by_role("button", name="Recalibrate").click()
    expect(page.locator("#apply")).to_be_disabled()
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#recalibrate-facts dd")).to_have_count(4)
    accessible(page)
    keep(page, "recalibrate")
    page.get_by_role("button", name="Activate").click()
    expect(page.locator("#recalibrate-message")).to_have_text("Active: default.onnxruntime.0001")
    expect(page.locator("#apply")).to_be_disabled()
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#recalibrate-message")).to_have_text("Rolled back: default.onnxruntime.0001")


def test_drift_is_told_and_reset(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    for cell in cells * 4:
        line.submit(decode(cell) // 2, None, "")
    page = opened()
    expect(page.get_by_role("alert").first).to_have_text("▲ default has drifted")
    expect(page.locator("#drift")).to_contain_text("the line has changed: score rose")
    tall = page.locator("#strip").evaluate("s => [s.clientHeight, s.getBBox().y + s.getBBox().height]")
    assert tall[1] <= tall[0]  # every score is inside, whatever else took its room
    accessible(page)
    keep(page, "drift")
    page.get_by_role("button", name="Reset drift").click()
    expect(page.locator("#drift")).to_contain_text("no change seen")
    expect(page.locator("#alarm")).not_to_be_visible()


def test_the_keyboard_alone(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    send(url, cell_of(line, cells, "reject"))
    page = opened()
    expect(page.locator("#rejects button")).to_have_count(1)
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", order
    assert order[0] == "Skip to the live frame" and order[1:7] == [
        "default",
        "theme",
        "look",
        "heat",
        "drift-reset",
        "calibrate",
    ]
    page.keyboard.press("Enter")
    expect(page.locator("#decision")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#decision")).not_to_be_visible()
    assert page.evaluate("document.activeElement.closest('#rejects') !== null")


def test_a_screen_reader_is_told_of_rejects_only(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    page = opened()
    expect(page.locator("#word")).to_have_text("Waiting")
    send(url, cell_of(line, cells, "pass"))
    expect(page.locator("#word")).to_have_text("Pass")
    expect(page.locator("#announcements")).to_have_text("")
    send(url, cell_of(line, cells, "reject"))
    expect(page.locator("#announcements")).to_have_text("One reject. ")
    assert page.locator("main, header, nav").count() == 3


def test_the_heat_map_comes_and_goes(opened: Open, url: str, cells: list[Path]) -> None:
    send(url, cells[0].read_bytes())
    page = opened()
    expect(page.locator("#picture")).to_have_attribute("src", re.compile("heat=1"))
    page.get_by_role("button", name="Heat map on").click()
    expect(page.locator("#picture")).to_have_attribute("src", re.compile("heat=0"))
    expect(page.get_by_role("button", name="Heat map off")).to_have_attribute("aria-pressed", "false")


def test_the_theme_is_remembered(opened: Open) -> None:
    page = opened(scheme="dark")
    page.get_by_role("button", name="Light").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_when_the_line_is_gone_it_says_so(opened: Open, line: Any, served: Any, cells: list[Path]) -> None:
    server = served(build(line, Settings(port=0)))
    send(server.url, cells[0].read_bytes())
    page = opened(server.url)
    expect(page.locator("#link")).to_contain_text("Live")
    server.__exit__(None, None, None)
    expect(page.locator("#link")).to_have_text("▲ No connection to the line")
    expect(page.locator("#word")).to_have_text("No connection")
    keep(page, "gone")
    again = Settings(port=server.port)
    served(build(line, again), again)
    expect(page.locator("#link")).to_contain_text("Live")
    expect(page.locator("#word")).not_to_have_text("No connection")


def test_it_gives_up_a_connection_that_says_nothing(opened: Open, line: Any, served: Any) -> None:
    server = served(build(line, Settings(port=0)))
    page = opened(server.url)
    expect(page.locator("#link")).to_contain_text("Live")
    server.__exit__(None, None, None)
    with ExitStack() as held:
        with socket.create_server(("127.0.0.1", server.port)) as silent:
            silent.settimeout(30)
            asked = b""
            while not asked.startswith(b"GET /v1/events"):
                connection = held.enter_context(silent.accept()[0])
                asked = connection.recv(1024)
        expect(page.locator("#link")).to_have_text("▲ No connection to the line")
        again = Settings(port=server.port)
        served(build(line, again), again)
        expect(page.locator("#link")).to_contain_text("Live")


def test_a_camera_that_is_gone_passes_nothing(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    send(url, cell_of(line, cells, "pass"))
    page = opened(has_touch=True)
    expect(page.locator("#word")).to_have_text("Pass")
    said = "cannot be opened (Connection refused); next attempt in 30 s"
    line.source, line.faults = ("gone", said), [f"default: {said}"]
    expect(page.locator("#word")).to_have_text("No frames")
    expect(page.locator("body")).to_have_attribute("data-verdict", "none")
    expect(page.locator("#words")).to_have_text("last decision: Pass")
    expect(page.get_by_role("alert").first).to_have_text(f"▲ default: {said}")  # told once
    accessible(page)
    keep(page, "camera-gone")
    line.source, line.faults = ("live", "frames come"), []
    expect(page.locator("#word")).to_have_text("Pass")


def test_a_reject_of_another_day_shows_its_date(opened: Open, url: str, line: Any, cells: list[Path]) -> None:
    send(url, cell_of(line, cells, "reject"))
    with sqlite3.connect(line.store_path) as db:
        db.execute("UPDATE decisions SET decided = '2024-02-03T12:34:56.000+00:00'")
    expect(opened().locator("#rejects button")).to_contain_text("3 Feb")


def test_it_asks_for_the_token(
    opened: Open, line: Any, served: Any, cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "d4c3b2a1" * 4
    monkeypatch.setenv("AHL_TOKEN", token)
    page = opened(served(build(line, Settings(port=0))).url)
    field = page.get_by_label("Token of this device")
    expect(field).to_be_focused()
    accessible(page)
    keep(page, "sign-in")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-message")).to_have_text("this is not the token of this device")
    field.fill(token)
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_contain_text("Live")
    assert token not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
