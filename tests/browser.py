"""A headless Chromium that opens one page and tells everything it complained about and everything it asked for.

Debian's package `chromium`; the DevTools protocol is spoken over its own socket, without a driver.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE_S = 60.0
# No name resolves and no component is fetched: whatever leaves the machine would be the page's doing.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)


# The smallest element that can be seen and whose whole text is this, scrolled into view; its middle. Waits for buttons.
_PLACE_OF = """(() => {{
  const wanted = {text};
  const found = [...document.querySelectorAll('*')].filter(one => {{
    const said = (one.innerText || one.placeholder || one.getAttribute('aria-label') || '').trim();
    const inner = [...one.children].some(child => (child.innerText || '').trim() === wanted);
    return said === wanted && one.getClientRects().length && !inner;
  }});
  const one = found[{nth}];
  if (!one || one.closest('button')?.disabled) return null;
  one.scrollIntoView({{block: 'center', inline: 'nearest'}});
  const box = one.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}})()"""


@dataclass(slots=True)
class Visit:
    """What happened while a page was open: its complaints, the addresses it asked for, its text, and answers to `ask`."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    text: str = ""
    answers: list[Any] = field(default_factory=list)


def visit(page: Path, *, ask: Sequence[str] = (), width: int = 1280, height: int = 900) -> Visit:
    """Open a local file, wait until it is loaded and still, and evaluate the JavaScript expressions of `ask` in it."""
    with _tab() as tab:
        tab.size(width, height)
        tab.open(page.resolve().as_uri())
        found = Visit(text=tab.evaluate("document.body.innerText"))
        found.answers = [tab.evaluate(expression) for expression in ask]
        found.complaints, found.requests = tab.complaints, tab.requests
        return found


def screenshot(html: str, *, width: int, height: int, dark: bool = False, whole: bool = False) -> bytes:
    """A page as PNG: its first `height` pixels, or all of it."""
    with tempfile.TemporaryDirectory() as folder, _tab() as tab:
        page = Path(folder) / "page.html"
        page.write_text(html, encoding="utf-8")
        tab.size(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        tab.call("Emulation.setEmulatedMedia", features=scheme)
        tab.open(page.as_uri())
        shot = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


@contextmanager
def browsing(*, width: int = 1440, height: int = 900) -> Iterator[Tab]:
    """One tab that stays open from page to page."""
    with _tab() as tab:
        tab.size(width, height)
        yield tab


class Tab:
    """One tab, spoken to over its DevTools socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number, self._loaded = socket, 0, False
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = self._next(_PATIENCE_S)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        self._loaded = False
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._loaded:
            self._next(deadline - time.monotonic())
        # What a page asks for late comes within a moment.
        still = time.monotonic() + 0.5
        while (left := still - time.monotonic()) > 0:
            try:
                self._next(left)
            except TimeoutError:
                break

    def until(self, expression: str, *, patience_s: float = _PATIENCE_S) -> Any:
        """What a JavaScript expression gives as soon as that is true, reading on meanwhile."""
        deadline = time.monotonic() + patience_s
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"in {patience_s:.0f} s never: {expression}\n{self.text()[-3000:]}"
            time.sleep(0.25)
        return found

    def sees(self, *texts: str, patience_s: float = _PATIENCE_S) -> None:
        """Wait until every one of these texts stands on the page."""
        for text in texts:
            self.until(f"document.body.innerText.includes({json.dumps(text)})", patience_s=patience_s)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, text: str, *, nth: int = 0, patience_s: float = _PATIENCE_S) -> None:
        """Click the middle of the smallest thing that can be seen and says exactly this; the `nth` of several."""
        place = self.until(_PLACE_OF.format(text=json.dumps(text), nth=nth), patience_s=patience_s)
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        """A click of the left button."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Text, where the cursor stands."""
        self.call("Input.insertText", text=text)

    def at_rest(self, *, still_s: float = 1.5, patience_s: float = 20.0) -> None:
        """Wait until the page's text has not changed for a while; a page that never rests is taken as it is."""
        deadline = time.monotonic() + patience_s
        seen, since = self.text(), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < still_s:
            time.sleep(0.25)
            if (now := self.text()) != seen:
                seen, since = now, time.monotonic()

    def picture(self, *, whole: bool = False) -> bytes:
        """The page as PNG: what the window shows, or all of it."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def _next(self, timeout: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=timeout))
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(params["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {params['message']}")
        return message


@contextmanager
def _tab() -> Iterator[Tab]:
    assert CHROMIUM, "chromium is not installed: apt-get install chromium"
    # Chromium's last processes may still write into the profile while it is being removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        log = Path(profile) / "chromium.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=out, stderr=out
            )
        try:
            with connect(_socket_of_a_tab(process, log), max_size=None, compression=None, ping_interval=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _socket_of_a_tab(process: subprocess.Popen[bytes], log: Path) -> str:
    import httpx

    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"DevTools listening on ws://(\S+?)/", log.read_text(errors="replace"))
        if found:
            tabs = httpx.get(f"http://{found[1]}/json/list", trust_env=False).json()
            if pages := [tab for tab in tabs if tab["type"] == "page"]:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError(f"chromium gave no DevTools socket: {log.read_text(errors='replace')[-2000:]}")
