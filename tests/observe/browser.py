"""A headless Chromium, driven through its pipe (the DevTools protocol), without any other library."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time


def program():
    return next((found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None)


class Browser:
    def __init__(self, *more):
        self.folder = tempfile.mkdtemp(prefix="metrika-gate-browser-")
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def descriptors():
            # The browser reads commands from 3 and writes events to 4. Neither may be overwritten by the other.
            read, write = os.dup(to_browser), os.dup(from_browser)
            while read < 5:
                read = os.dup(read)
            while write < 5:
                write = os.dup(write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
            "--remote-debugging-pipe", f"--user-data-dir={self.folder}", *more, "about:blank",
        ]
        self.child = subprocess.Popen([program(), *flags], close_fds=False, pass_fds=(), preexec_fn=descriptors,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.unread = b""
        self.number = 0
        self.events = []
        self.session = None
        os.set_blocking(self.read, False)
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.command(domain + ".enable")

    def close(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        os.close(self.write)
        os.close(self.read)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def message(self, until):
        while b"\0" not in self.unread:
            if time.monotonic() > until:
                raise TimeoutError("the browser does not respond")
            try:
                more = os.read(self.read, 1 << 20)
                if not more:
                    raise EOFError("the browser ended")
                self.unread += more
            except BlockingIOError:
                time.sleep(0.01)
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def command(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 30
        while True:
            read = self.message(until)
            if read.get("id") == self.number:
                if "error" in read:
                    raise RuntimeError(f"{method}: {read['error']}")
                return read["result"]
            if "method" in read:
                self.events.append(read)

    def wait(self, event, seconds=20):
        """Waits for an event, also one that has arrived already; returns its parameters."""
        until = time.monotonic() + seconds
        while True:
            for position, one in enumerate(self.events):
                if one["method"] == event:
                    return self.events.pop(position)["params"]
            read = self.message(until)
            if "method" in read:
                self.events.append(read)

    def of(self, event):
        """The parameters of all events of a kind so far."""
        self.evaluate("1")
        return [one["params"] for one in self.events if one["method"] == event]

    def open(self, url):
        self.events = [one for one in self.events if one["method"] != "Page.loadEventFired"]
        navigated = self.command("Page.navigate", url=url)
        if "errorText" in navigated:
            raise RuntimeError(f"{url}: {navigated['errorText']}")
        self.wait("Page.loadEventFired")

    def evaluate(self, expression):
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def until(self, expression, seconds):
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.2)

    def size(self, width, height, mobile=False):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, scheme):
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def key(self, key, code=0, shift=False):
        for kind in ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "rawKeyDown" else {}
            self.command("Input.dispatchKeyEvent", type="keyDown" if text else kind, key=key, code=key, windowsVirtualKeyCode=code,
                         modifiers=8 if shift else 0, **text)

    def picture(self, file, height=None):
        """Writes a picture of the page from its top, at most `height` pixels high."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height or size["height"]), "scale": 1}
        shot = self.command("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
