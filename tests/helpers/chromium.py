"""Headless Chromium, driven by the DevTools protocol over two pipes: the standard library alone, and no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PRINTED = 1032  # CSS pixels across an A4 page, landscape, within margins of 12 mm
SECONDS = 120.0  # that an answer may take on a busy machine

# What a page says of itself: how wide it is, what sticks out, and every figure with its size and its marks.
LOOK = """(() => ({
  inner: window.innerWidth,
  scroll: document.documentElement.scrollWidth,
  sticking: [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg')
    && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + '.' + e.className).slice(0, 5),
  wide: [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => [e.previousElementSibling ? e.previousElementSibling.textContent.slice(0, 40) : '', e.scrollWidth]),
  figures: [...document.querySelectorAll('figure')].map(f => {
    const svg = f.querySelector('svg'), box = svg ? svg.getBoundingClientRect() : {width: 0, height: 0};
    const marks = svg ? [...svg.querySelectorAll('path')].filter(p => (p.getAttribute('d') || '').trim()).length : 0;
    return {caption: f.textContent.trim().slice(0, 60), width: box.width, height: box.height, marks};
  }),
}))()"""


class Look(NamedTuple):
    """What a page looks like at one width.

    inner, scroll: CSS pixels of the window and of the page.  sticking: elements that end beyond the window.
    wide: tables wider than their frame, (what stands before it, width).  figures: caption, width, height, marks.
    errors: what the console said and what was not caught.
    """

    inner: int
    scroll: int
    sticking: list[str]
    wide: list[list[Any]]
    figures: list[dict[str, Any]]
    errors: list[str]


class Browser:
    """One tab."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._buffer, self._count = reading, writing, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come in between are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        ends = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            if not select.select([self._reading], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._reading, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, file: Path, width: int, media: str = "screen", scheme: str = "light") -> Look:
        """Show a page at a width, and what it looks like."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=file.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        seen = self.call("Runtime.evaluate", expression=LOOK, returnByValue=True)["result"]["value"]
        return Look(**seen, errors=list(map(str, self._errors())))

    def _errors(self) -> Iterator[Any]:
        for event in self.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    yield params["exceptionDetails"]
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    yield params["args"]
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    yield params["entry"]["text"]

    def shot(self, file: Path) -> None:
        """A PNG of the whole page as it was opened last."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        file.write_bytes(base64.b64decode(data))

    def printed(self, file: Path) -> int:
        """A PDF of the page as it was opened last; its number of pages."""
        data = base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
        file.write_bytes(data)
        return data.count(b"/Type /Page\n") or data.count(b"/Type /Page")


def _pipe(given: int) -> tuple[int, int]:
    """A pipe; the end that the browser is given has a number of two digits, away from 3 and 4, which it shall become."""
    ends = list(os.pipe())
    moved = fcntl.fcntl(ends[given], fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(ends[given])
    ends[given] = moved
    return ends[0], ends[1]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that ends with the block, with a new profile."""
    assert PROGRAM
    (into, write), (read, out) = _pipe(0), _pipe(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec 3<&{into} 4>&{out} {into}<&- {out}>&-; exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", command, "-", PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(into, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(into)
        os.close(out)
        try:
            yield Browser(read, write)
        finally:
            os.close(read)
            os.close(write)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
