"""A real Chromium without a screen, driven by its own DevTools protocol."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--ignore-certificate-errors",
)


class Tab:
    """A page; `errors` holds what went wrong on it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = len(self._answers)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return dict(await asyncio.wait_for(answer, 30))

    async def value(self, expression: str) -> Any:
        done = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 20.0) -> Any:
        """Wait until an expression is true, looking at it as often as pictures are drawn."""
        async with asyncio.timeout(timeout_s):
            while not (value := await self.value(expression)):
                await asyncio.sleep(0.02)
        return value

    async def read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers[said["id"]].set_result(said.get("result", said))
            elif said["method"] == "Runtime.exceptionThrown" or (
                said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error"
            ):
                self.errors.append(json.dumps(said["params"]))


@asynccontextmanager
async def open_tab(folder: Path, url: str, *flags: str, script: str = "") -> AsyncIterator[Tab]:
    """Open a page in a browser of its own, whose profile lies in `folder`.

    `script` is run there before the page's own.
    """
    browser = subprocess.Popen(
        ["chromium", *_FLAGS, f"--user-data-dir={folder}", *flags, "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        where = folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not (where.exists() and where.read_text().count("\n")):
                await asyncio.sleep(0.02)
        port = int(where.read_text().split()[0])
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tabs = await answer.json()
            address = next(each for each in tabs if each["type"] == "page")["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                reading = asyncio.create_task(tab.read())
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)
                await tab.call("Page.navigate", url=url)
                yield tab
                reading.cancel()
    finally:
        browser.kill()
        browser.wait()
