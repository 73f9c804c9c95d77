"""The certificate for browsers elsewhere: made once, kept from others, given, or refused."""

import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from denseav.stream.errors import OutputError, UsageError
from denseav.stream.web import certificate
from denseav.stream.web.certificate import made_once, tls_context

NAMES = ("localhost", "robot.local", "127.0.0.1", "::1")


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = made_once(tmp_path / "new" / "page.pem", NAMES)
    first = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path], "nothing half-written stays"
    assert made_once(path, NAMES).read_bytes() == first
    context, fingerprint = tls_context(path)
    assert isinstance(context, ssl.SSLContext)
    assert fingerprint == tls_context(path)[1]
    assert len(fingerprint.split(":")) == 32


def test_one_that_is_about_to_end_or_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.pem"
    with monkeypatch.context() as patched:
        patched.setattr(certificate, "LASTS", timedelta(days=6))
        first = made_once(path, NAMES).read_bytes()
    second = made_once(path, NAMES).read_bytes()
    assert second != first
    path.write_bytes(second[:100])
    assert made_once(path, NAMES).read_bytes() != second


def test_what_cannot_be_kept_or_is_open_to_others_is_one_line(tmp_path: Path) -> None:
    path = made_once(tmp_path / "page.pem", NAMES)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        made_once(path, NAMES)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--serve-cert"):
        made_once(tmp_path / "file" / "page.pem", NAMES)


def test_a_given_one_needs_its_key_and_no_password(tmp_path: Path) -> None:
    whole = made_once(tmp_path / "page.pem", NAMES).read_bytes()
    begin = whole.index(b"-----BEGIN CERTIFICATE")
    for name, content in (("cert", whole[begin:]), ("key", whole[:begin]), ("text", b"none")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match="key"):
            tls_context(path)
    with pytest.raises(UsageError, match="cannot read"):
        tls_context(tmp_path / "none")
