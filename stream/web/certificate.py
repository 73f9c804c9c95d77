"""The certificate that browsers elsewhere are served with: given, or made once and kept.

A file of certificate and key in, a TLS context and the certificate's fingerprint out. What is made
is signed by nobody, so that a browser asks once; people compare the fingerprint that is printed.
"""

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from denseav.export.user_folders import data_folder
from denseav.stream.errors import OutputError, UsageError

LASTS = timedelta(days=397)  # browsers take none that lasts longer
RENEWED_BEFORE = timedelta(days=7)
_FILE_BYTES_MAX = 1 << 20


def default_path() -> Path:
    """Return where a certificate that is made is kept."""
    return data_folder() / "page.pem"


def made_once(path: Path, names: Iterable[str]) -> Path:
    """Return the file of a certificate for this machine, made if there is none that lasts.

    Parameters
    ----------
    path : of certificate and key; only its owner may read it.
    names : the machine's names and addresses.

    Raises
    ------
    OutputError
        When it cannot be written.
    UsageError
        When others than the owner can read it.
    """
    with suppress(OSError):  # then it is made, or what stands in its way is said
        mode = path.stat().st_mode
        if os.name == "posix" and mode & 0o077:
            raise UsageError(f"others can reach {path}; close it with: chmod 600 {path}")
        with suppress(UsageError):
            if _certificate(path).not_valid_after_utc - RENEWED_BEFORE > datetime.now(UTC):
                return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_make(names))
                file.flush()
                os.fsync(handle)
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot keep a certificate as {path} ({error.strerror}); name one by --serve-cert"
        ) from None
    return path


def tls_context(path: Path) -> tuple[ssl.SSLContext, str]:
    """Return what serves with a file's certificate and key, and the SHA-256 fingerprint.

    Raises
    ------
    UsageError
        When it is not such a file.
    """
    fingerprint = _certificate(path).fingerprint(hashes.SHA256()).hex(":").upper()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(path, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError):
        raise UsageError(
            f"{path} has no key that fits its certificate; give both in one file, as PEM and "
            "without a password"
        ) from None
    return context, fingerprint


def _certificate(path: Path) -> x509.Certificate:
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificate(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise UsageError(f"cannot read the certificate {path} ({error.strerror})") from None
    except ValueError:
        raise UsageError(f"{path} holds no certificate; give one with its key, as PEM") from None


def _make(names: Iterable[str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "denseav-live")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
