"""Where the page is served and to whom, as `--serve` asks for it."""

import asyncio
import re
import ssl
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from denseav.stream.options import PageOptions
from denseav.stream.web import open as open_module
from denseav.stream.web.open import about_model, code, open_page
from denseav.stream.web.server import PageServer
from tests.support.fake_session import fake_manifest
from tests.support.ports import free_port


def served(host: str, port: int, said: list[str]) -> PageServer:
    options = PageOptions(serve=(host, port))
    return open_page(options, about_model(fake_manifest()), lambda: {"rows": []}, said.append)


def test_this_machine_alone_needs_neither_token_nor_certificate(tmp_path: Path) -> None:
    said: list[str] = []
    port = free_port()
    with closing(served("127.0.0.1", port, said)):
        assert said == [f"serving the page at http://127.0.0.1:{port}/"]


def test_elsewhere_it_is_https_with_a_token_of_this_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "default_path", lambda: tmp_path / "page.pem")

    async def status(address: str) -> int:
        client = aiohttp.ClientSession()
        async with client, client.get(address, ssl=trusts) as answer:
            return answer.status

    tokens = []
    for _ in range(2):
        said: list[str] = []
        port = free_port()
        with closing(served("0.0.0.0", port, said)):
            trusts = ssl.create_default_context(cafile=tmp_path / "page.pem")
            address, token = re.findall(r"(https://\S+/)\?token=(\S+)", said[0])[0]
            assert "fingerprint is " in said[0]
            assert code(f"{address}?token={token}") in said[0]
            tokens.append(token)
            local = f"https://127.0.0.1:{port}/"
            assert asyncio.run(status(f"{local}?token={token}")) == 200
            assert asyncio.run(status(local)) == 403, "from this machine too"
            assert asyncio.run(status(f"{local}?token={tokens[0]}x")) == 403
            with pytest.raises(aiohttp.ClientError):
                asyncio.run(status(f"http://127.0.0.1:{port}/"))
    assert tokens[0] != tokens[1]
    assert len(tokens[0]) >= 22, "128 bits"


def test_the_page_says_what_the_model_is() -> None:
    manifest = fake_manifest()
    assert "random" in str(about_model(replace(manifest, trained=False))["note"])
    assert "drawn world" in str(about_model(replace(manifest, model="demo", trained=True))["note"])
    assert about_model(replace(manifest, trained=True))["note"] == ""
