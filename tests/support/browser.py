"""Headless Chromium through its debugging pipe, with nothing but the standard library.

The pipe is Chromium's file descriptors 3 (in) and 4 (out); messages are JSON and end with a NUL
(--remote-debugging-pipe, https://chromedevtools.github.io/devtools-protocol).
"""

import base64
import contextlib
import fcntl
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def _started(command):
    """A process, and the ends of two pipes that are its file descriptors 3 and 4."""
    pipes = [os.pipe(), os.pipe()]
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (pipes[0][0], pipes[1][1])]
    process = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, *map(str, theirs), *command],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for descriptor in (*theirs, pipes[0][0], pipes[1][1]):
        os.close(descriptor)
    return process, pipes[1][0], pipes[0][1]


class Browser:
    """One page of a headless Chromium.

    Attributes:
        requests: The addresses of everything that the page asked for.
        errors: What the page threw or logged as an error.
    """

    def __init__(self, chromium, folder, size=(1500, 950)):
        options = (*OPTIONS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder}")
        self._process, self._read, self._write = _started([chromium, *options, "about:blank"])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._read, selectors.EVENT_READ)
        self._number, self._buffer, self._session = 0, b"", None
        self.requests, self.errors, self._events = [], [], []
        try:
            self._attach(size)
        except BaseException:
            self.close()
            raise

    def _attach(self, size):
        """Take the browser's page."""
        target = next(
            t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, address):
        """Open a page and wait until it has loaded."""
        self._events.clear()
        self._call("Page.navigate", url=address)
        self._until(lambda: "Page.loadEventFired" in self._events)

    def run(self, script):
        """The value of an expression; a promise is awaited."""
        done = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise AssertionError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def wait(self, script, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.05)

    def click(self, x, y):
        """Press and release the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, x, y, button="left", clickCount=1)

    def drag(self, start, end):
        """Press, move and release the mouse."""
        self._mouse("mousePressed", *start, button="left", clickCount=1)
        for share in (0.5, 1):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, button="left", buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def wheel(self, x, y, delta):
        """Turn the wheel; negative is away from the user."""
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=delta)

    def press(self, key, code=None):
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **text)

    def cpu_seconds(self):
        """Processor seconds of all processes of the browser that live (Linux)."""
        parents, used = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                parents[int(stat.parent.name)] = int(fields[1])
                used[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
        ours = {self._process.pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return sum(used.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")

    def picture(self):
        """PNG of the window."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def print(self):
        """PDF of the page as it is printed."""
        done = self._call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        return base64.b64decode(done["data"])

    def close(self):
        """End the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self._call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()
        self._selector.close()
        os.close(self._read)
        os.close(self._write)

    def _mouse(self, kind, x, y, **more):
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _call(self, method, **values):
        """Send one command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answers = []
        self._until(lambda: bool(answers), answers=answers, wanted=self._number)
        assert "error" not in answers[0], (method, answers[0]["error"])
        return answers[0]["result"]

    def _until(self, done, seconds=90, answers=None, wanted=None):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"Chromium did not answer within {seconds} s"
            for message in self._messages(end - time.monotonic()):
                if wanted is not None and message.get("id") == wanted:
                    answers.append(message)
                else:
                    self._note(message)

    def _messages(self, seconds):
        if self._selector.select(max(0, seconds)):
            more = os.read(self._read, 1 << 20)
            assert more, "Chromium has ended"
            self._buffer += more
        *whole, self._buffer = self._buffer.split(b"\0")
        return [json.loads(text) for text in whole]

    def _note(self, message):
        method, values = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(values["entry"]["text"])
