"""Text from outside (file names, addresses, heads' names, libraries' messages) as text to print.

Strings in, strings out; no torch, no thread, no import of ours. Every command prints by this
module. It lies where `stream`, `export` and `train` may all import it; the network prints nothing.

- `safe_text` for `print`, error lines, drawn text and reports;
- `safe_console` for Rich: its tables and lines then take any string as plain text.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

HIDDEN = "***"
# All but the line feed: C0 and C1 (terminals obey both), marks that turn the reading direction,
# separators that some terminals break lines at, and the halves that undecodable bytes become.
_CONTROLS = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_USER = re.compile(r"(\w\w+:/+).*@", re.DOTALL)
_NO_PORT = re.compile(r"(\w\w+:/+[^\s/:\[\]]+):(?!PORT\b|[\d*][\d*]{0,4}(?!\w))[^\s/]+")
_QUERY = re.compile(r"(\w\w+:/+[^\s?#]*)[?#]\S*")
_PARAMETERS = re.compile(r"(\w\w+:/+[^\s/]*(?:/[^\s/;&=]*(?=/))*/?)[^\s/;&=]*[;&=]\S+")
_ADDRESS = re.compile(r"\w\w+:/+[^\s/]+/\S+")
# A part of a path that no person chose: recorders give each stream an address that is its secret.
_TOKEN = re.compile(r"(?<=/)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}(?![\w.-])")
_NAMED = re.compile(
    r"((?:password|passwd|passphrase|pwd|secret|token|api_?key)\s*=\s*)[^\s&;,'\"]+", re.IGNORECASE
)


def safe_text(text: object, *, lines: bool = False) -> str:
    r"""Return what may be printed of anything: no secret, nothing that a terminal would obey.

    Control characters and bytes that are no text become visible (`\x1b`), so that a name can
    neither move the cursor nor begin a line of its own.

    Parameters
    ----------
    text : a string, or what `str` makes one of.
    lines : keep line feeds, for a text of several lines whose parts are safe.
    """
    shown = without_controls(without_secrets(str(text)))
    return shown if lines else shown.replace("\n", "\\n")


def without_controls(text: str) -> str:
    """Return a text with all control characters but the line feed made visible."""
    return _CONTROLS.sub(_visible, text)


def without_secrets(text: str) -> str:
    """Return a text with nothing of its addresses that may hold a password.

    Of `scheme://user:password@host:port/path?query` stay scheme, host, port and path. All up to
    the last `@` goes, because a password may itself hold `@`, `/`, `?`, `#` or spaces. The path
    ends before its first part with `=`, `;` or `&`: recorders have users and passwords there. A
    part of 16 characters or more, digits and letters, is a secret by itself. What is called
    password, token or the like goes anywhere in the text.
    """
    text = _USER.sub(r"\1", text)
    text = _NO_PORT.sub(rf"\1:{HIDDEN}", text)
    text = _QUERY.sub(r"\1", text)
    text = _PARAMETERS.sub(rf"\1{HIDDEN}", text)
    text = _ADDRESS.sub(lambda address: _TOKEN.sub(HIDDEN, address[0]), text)
    return _NAMED.sub(rf"\1{HIDDEN}", text)


def safe_console(**options: Any) -> "Console":
    """Return a Rich console that takes no string for markup, emoji or a secret.

    Parameters
    ----------
    options : as `rich.console.Console` has them. Style by `style=` or `rich.text.Text`; what a
        `Text` or a progress bar's description holds has to come from `safe_text`.
    """
    from rich.console import Console
    from rich.text import Text

    class SafeConsole(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(safe_text(text, lines=True), **how)

    return SafeConsole(**{"markup": False, "emoji": False, "highlight": False} | options)


def _visible(control: re.Match[str]) -> str:
    code = ord(control[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is no text
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
