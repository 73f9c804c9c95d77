"""The page in a real Chromium."""

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from tests.support.screen.browser import open_tab
from tests.support.screen.pages import page_server, scaled

PIXEL = """(() => {
  const canvas = document.getElementById("picture");
  const at = (x, y) => Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data);
  return canvas.width === 64 && [at(8, 6), at(56, 42)];
})()"""


@pytest.mark.realtime
def test_the_page_draws_heat_where_it_is_and_names_as_text(tmp_path: Path) -> None:
    async def body() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        async with open_tab(tmp_path, address) as tab:
            await tab.until("document.querySelectorAll('#heads input').length === 2")
            server.show(scaled(1, monotonic()))
            lit, dark = await tab.until(PIXEL)
            assert dark == pytest.approx([100, 100, 100, 255], abs=3)
            blue = [0.25 * 100 + 0.75 * part for part in (0x56, 0xB4, 0xE9)]
            assert lit[:3] == pytest.approx(blue, abs=6), "speech in its colour, at its ceiling"
            assert await tab.value("document.querySelector('#heads b')") is None
            assert "<b>sound</b>" in await tab.value("document.getElementById('heads').innerText")

            await tab.value("document.querySelector('#heads input').click()")
            lit, _ = await tab.until(PIXEL)
            assert lit == pytest.approx([100, 100, 100, 255], abs=3), "switched off at once"

            await tab.value(
                "(() => { const c = document.getElementById('picture');"
                "const b = c.getBoundingClientRect();"
                "c.dispatchEvent(new PointerEvent('pointermove', {"
                "clientX: b.left + b.width / 2 - 5, clientY: b.top + b.height / 2 - 5 })); })()"
            )
            read = await tab.value("document.getElementById('readout').textContent")
            assert read.startswith("speech 5.50  <b>sound</b> silent  at 31, 23")
            assert tab.errors == []

    with page_server() as server:
        asyncio.run(body())
