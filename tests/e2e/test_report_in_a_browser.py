"""The report in a real browser: it complains about nothing, asks nobody for anything, and shows what it should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flywheel_assets.core.report import to_svg
from flywheel_assets.core.report.scatter import cost_against_quality
from tests import browser
from tests.report_scene import Scene, shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]
# What a page that could be spoiled would do: run, log, throw, and ask a server for a picture, a style and data.
SPOILED = """<script>console.log('ran'); fetch('{url}/data'); throw new Error('ran')</script>
<img src="{url}/picture.png" onerror="console.log('ran')"><style>@import url('{url}/style.css');</style>"""


class Outside:
    """A web server on this machine that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not into the test's output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def outside() -> Iterator[Outside]:
    outside = Outside()
    thread = threading.Thread(target=outside.server.serve_forever, daemon=True)
    thread.start()
    yield outside
    outside.server.shutdown()
    outside.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return shop()


def write(folder: Path, page: str) -> Path:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def test_the_report_opens_without_a_complaint_and_without_a_request_of_its_own(scene: Scene, tmp_path: Path) -> None:
    page = write(tmp_path, scene.html())
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    hidden = "[...document.querySelectorAll('section')].filter(part => part.offsetHeight < 40).length"
    found = browser.visit(page, ask=[wide, hidden, "getComputedStyle(document.body).color"])
    assert found.complaints == []
    assert [address for address in found.requests if not address.startswith("data:")] == [page.as_uri()]
    assert "qwen2.5-0.5b (customized) may replace the teacher: it meets every registered gate." in found.text
    assert found.answers[:2] == [0, 0], "a part is cut off or empty"
    assert found.answers[2] != "rgb(0, 0, 0)", "the style sheet was not applied"


def test_a_narrow_window_scrolls_tables_and_not_the_page(scene: Scene, tmp_path: Path) -> None:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.visit(write(tmp_path, scene.html()), ask=[wide], width=420).answers == [0]


def test_what_a_page_does_outside_is_seen_and_a_spoiled_report_can_do_nothing(
    scene: Scene, outside: Outside, tmp_path: Path
) -> None:
    spoiled = SPOILED.format(url=outside.url)
    careless = browser.visit(write(tmp_path, f"<!doctype html><body>{spoiled}</body>"))
    assert any("ran" in complaint for complaint in careless.complaints)
    assert {"/data", "/picture.png", "/style.css"} <= set(outside.asked)

    outside.asked.clear()
    refused = browser.visit(write(tmp_path, scene.html().replace("</main>", f"</main>{spoiled}")))
    assert outside.asked == []
    assert refused.complaints and all("Content Security Policy" in complaint for complaint in refused.complaints)


def test_the_picture_of_the_user_interface_is_an_image_a_browser_draws(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "cost.svg").write_text(to_svg(cost_against_quality(scene.comparison)), encoding="utf-8")
    page = write(tmp_path, '<!doctype html><img src="cost.svg">')
    found = browser.visit(page, ask=["document.images[0].naturalWidth", "document.images[0].complete"])
    assert found.answers == [520, True] and found.complaints == []
