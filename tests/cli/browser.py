"""Chromium without a window, driven over its DevTools protocol by our own client."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import Transaction, open_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio_pyjo_ws import ClientOptions

TIMEOUT = 30.0
ARGUMENTS = [
    *[
        "--headless",
        "--no-proxy-server",
        "--disable-breakpad",
        "--remote-debugging-port=0",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-gpu",
    ],
    *["--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync"],
    *["--disable-dev-shm-usage", "--no-sandbox", "--hide-scrollbars", "--lang=en-GB"],
]


def find_chromium() -> str:
    """The program; without it an error where all has to be there, else a skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no Chromium")
    return found


class Page:
    """A tab of its own: nothing is shared with another but the program."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []
        """What went wrong in it: exceptions, and what the console calls an error."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **parameters)

    async def open(self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true in the page, looked at after each of its frames; its value."""
        waiting = f"""new Promise(found => {{
            const look = () => {{
                let value; try {{ value = ({expression}); }} catch {{}}
                value ? found(value) : setTimeout(look, 10);
            }}; look();
        }})"""
        with trio.fail_after(TIMEOUT):
            return await self.evaluate(waiting)

    async def press(self, *keys: str) -> None:
        for key in keys:
            code = {"Enter": 13, "Tab": 9, " ": 32}.get(key, 0)
            text = {"Enter": "\r", " ": " "}.get(key, "" if code else key)
            event = {"key": key, "windowsVirtualKeyCode": code}
            await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)


class Browser:
    """The connection to the program."""

    def __init__(self, ws: Transaction) -> None:
        self._ws = ws
        self._numbers = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self.contexts: list[str] = []

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        self._answers[number] = sender
        where = {} if session is None else {"sessionId": session}
        await self._ws.send(json={"id": number, "method": method, "params": parameters, **where})
        with trio.fail_after(TIMEOUT):
            answer = await receiver.receive()
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        with suppress(trio.ClosedResourceError):
            async for message in self._ws:
                self._take(json.loads(message))

    def _take(self, event: dict[str, Any]) -> None:
        if "id" in event:
            self._answers.pop(event["id"]).send_nowait(event)
        elif event["method"] == "Runtime.exceptionThrown":
            self._pages[event["sessionId"]].faults.append(json.dumps(event["params"]["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self._pages[event["sessionId"]].faults.append(json.dumps(event["params"]["entry"]))

    async def new_page(self) -> Page:
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        self.contexts.append(context)
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        return page


@contextmanager
def run_chromium(profile: Path) -> Iterator[str]:
    """Chromium with its profile in this folder, as the URL to drive it by."""
    command = [find_chromium(), *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - ours
        try:
            announced = profile / "DevToolsActivePort"
            deadline = time.monotonic() + TIMEOUT
            while not (announced.exists() and announced.read_text().count("\n") == 1):
                assert process.poll() is None, "Chromium has ended"
                assert time.monotonic() < deadline, "Chromium does not start"
                time.sleep(0.02)
            port, path = announced.read_text().splitlines()
            yield f"ws://127.0.0.1:{port}{path}"
        finally:
            process.terminate()


@asynccontextmanager
async def open_browser(url: str) -> AsyncIterator[Browser]:
    """Drive Chromium."""
    options: ClientOptions = {"max_websocket_size": 64 * 2**20, "proxy": None}
    async with open_websocket(url, **options) as ws, trio.open_nursery() as nursery:
        browser = Browser(ws)
        nursery.start_soon(browser.listen)
        yield browser
        for context in browser.contexts:
            await browser.call("Target.disposeBrowserContext", browserContextId=context)
        nursery.cancel_scope.cancel()
