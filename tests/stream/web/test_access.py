"""Who may look: hosts, origins, tokens and rates, by real requests."""

import asyncio

import aiohttp
import pytest

from denseav.stream.web.access import Access, Rate, is_loopback
from denseav.stream.web.server import PageServer
from tests.support.screen.pages import page_server

TOKEN = "a-token-of-this-start"


def status(server: PageServer, path: str = "/", **headers: str) -> tuple[int, str]:
    async def ask() -> tuple[int, str]:
        address = f"http://127.0.0.1:{server.port}{path}"
        async with aiohttp.ClientSession() as client, client.get(address, headers=headers) as got:
            return got.status, await got.text()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:80", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("192.168.1.5:8443", True),
        ("robot:8443", True),
        ("Robot", True),
        ("evil.example:8443", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, known: bool) -> None:
    access = Access(token=None, names=frozenset({"robot"}), cookie="c")
    assert access.knows_host(host) is known


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("me", False)],
)
def test_which_hosts_are_this_machine_alone(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_a_name_of_another_site_and_its_pages_are_refused() -> None:
    with page_server() as server:
        assert status(server)[0] == 200
        assert status(server, Host="evil.example")[0] == 421
        assert status(server, Origin="http://evil.example")[0] == 403
        assert status(server, Origin=f"https://127.0.0.1:{server.port}")[0] == 403
        assert status(server, Origin=f"http://127.0.0.1:{server.port}")[0] == 200
        assert status(server, "/live")[0] == 403, "without an origin it is no page that asks"
        assert status(server, "/../pyproject.toml")[0] == 404


def test_the_token_is_needed_once_and_then_a_cookie_has_it() -> None:
    async def ask() -> None:
        address = f"http://127.0.0.1:{server.port}/"
        jar = aiohttp.CookieJar(unsafe=True)  # takes cookies from addresses
        async with aiohttp.ClientSession(cookie_jar=jar) as client:
            for without in ("", "?token=", "?token=of-an-earlier-start"):
                async with client.get(address + without) as refused:
                    assert refused.status == 403
                    assert "denseav-live printed" in await refused.text()
            async with client.get(f"{address}?token={TOKEN}") as first:
                assert first.status == 200
                cookie = first.headers["Set-Cookie"]
                assert "HttpOnly" in cookie
                assert "SameSite=Strict" in cookie
            for path in ("", "main.js"):
                async with client.get(address + path) as again:
                    assert again.status == 200

    with page_server(token=TOKEN) as server:
        asyncio.run(ask())


def test_every_answer_forbids_what_the_page_does_not_do() -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as client:
            address = f"http://127.0.0.1:{server.port}/"
            for path, method in (("", "GET"), ("none", "GET"), ("", "POST"), ("live", "GET")):
                async with client.request(method, address + path) as got:
                    policy = got.headers["Content-Security-Policy"]
                    assert "default-src 'none'" in policy
                    assert "frame-ancestors 'none'" in policy
                    assert "unsafe" not in policy
                    assert got.headers["X-Content-Type-Options"] == "nosniff"
                    assert got.headers["Referrer-Policy"] == "no-referrer"

    with page_server() as server:
        asyncio.run(ask())


def test_a_rate_lets_so_many_through_and_more_later_and_forgets_old_addresses() -> None:
    now_s = [0.0]
    rate = Rate(2.0, 3.0, lambda: now_s[0])
    assert [rate.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert rate.allows("b")
    now_s[0] = 0.5
    assert [rate.allows("a") for _ in range(2)] == [True, False]
    for other in range(2000):
        rate.allows(str(other))
    assert rate.allows("a"), "what is remembered is bounded"


def test_guessing_tokens_is_slowed_down() -> None:
    with page_server(token=TOKEN) as server:
        seen = {status(server, f"/?token={guess}")[0] for guess in range(14)}
        assert seen == {403, 429}
        assert status(server, f"/?token={TOKEN}")[0] == 200, "who has the token is let in"
