"""Drive a headless Chromium by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.servers import MAX_WAIT_S, program


class Tab:
    """One page in the browser, and everything that it reported or requested.

    Attributes:
        complaints: console errors and warnings, exceptions and violations of the page's policy.
        requests: every requested address.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0

    async def read(self) -> None:
        """Read the browser's messages until it ends."""
        async for message in self._socket:
            reply = json.loads(message.data)
            if "id" in reply:
                waiting = self._answers.pop(reply["id"])
                if not waiting.done():
                    waiting.set_result(reply)
            else:
                self._note(reply["method"], reply["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.complaints.append(json.dumps(params["args"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(MAX_WAIT_S):
            reply = await answer
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("location.protocol === 'http:' && document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page."""
        reply = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def until(self, expression: str, within_s: float = MAX_WAIT_S) -> Any:
        """Wait until an expression is true; what it is then."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := await self.value(expression)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.value("document.body.innerText")
            pytest.fail(f"never true: {expression}\n{text}")
        return found

    async def press(self, key: str) -> None:
        """Press and release one key, named as JavaScript's ``event.key``."""
        text = {"text": key} if len(key) == 1 else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def show_as(self, width: int, height: int, scheme: str, scale: float = 1) -> None:
        """Be a window of so many pixels with a light or dark scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    async def picture(self, path: Path) -> None:
        """Save what is to be seen as PNG."""
        reply = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(reply["data"]))


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """A Chromium with one empty tab; the test is skipped with a message where there is none.

    Args:
        folder: empty; its profile goes there.
    """
    # Its sandbox is not to be had as root or in many a container; only our own page is opened.
    options = ["--headless=new", "--no-sandbox"]
    process = subprocess.Popen(  # noqa: ASYNC220 - it is gone in a moment
        [program("chromium"), *options, "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = await asyncio.to_thread(_address, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                (tab_info,) = [tab for tab in await answer.json() if tab["type"] == "page"]
            async with (
                session.ws_connect(tab_info["webSocketDebuggerUrl"], max_msg_size=0) as socket,
                asyncio.TaskGroup() as group,
            ):
                tab = Tab(socket)
                reading = group.create_task(tab.read())
                yield tab
                reading.cancel()
    finally:
        process.terminate()
        process.wait(MAX_WAIT_S)
        if process.stderr is not None:
            process.stderr.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    output = ""
    for line in process.stderr:
        output += line
        if found := re.search(r"ws://([^/]+)/devtools", line):
            return found[1]
    pytest.fail(f"Chromium did not start:\n{output}")
