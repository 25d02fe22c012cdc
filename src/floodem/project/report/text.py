"""Words of others on a page: names and addresses from anywhere in, harmless HTML out."""

from __future__ import annotations

import html
import os
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from floodem.volumes.servers.addresses import without_secrets

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that are not seen, or turn what stands beside them around."""

_LONGEST = 400
"""Letters of a name or an address that are shown."""


def visible(text: str) -> str:
    r"""Return a text with every hidden character (control, direction, half of a pair) written out.

    Examples
    --------
    >>> print(visible("a\u202eb\n"))
    a\u202eb\x0a
    """
    return "".join(_written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    if unicodedata.category(letter) not in _HIDDEN:
        return letter
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def shown(text: str) -> str:
    """Return a name or an address as HTML: escaped, isolated, cut where it is absurdly long."""
    text = visible(text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return f"<bdi>{html.escape(text)}</bdi>"


def attribute(text: str) -> str:
    """Return a text that may stand between the quotes of an attribute."""
    return html.escape(visible(text), quote=True)


def address_shown(address: str) -> str:
    """Return an address as HTML without keys and signatures."""
    return shown(without_secrets(address))


def command(words: Sequence[str]) -> str | None:
    """Return a command line as HTML, to be copied; None where it cannot be shown as it is."""
    line = shlex.join(words)
    if visible(line) != line:
        return None
    return f"<code>{html.escape(line)}</code>"


def relative_link(path: Path, *below: str) -> str:
    """Return the address, from a page beside it, of a file or of something below a folder.

    It is the same whatever the name holds: spaces, ``#``, ``%``, quotes, bytes that are no text.
    """
    parts = (path.name, *below)
    return "./" + "/".join(quote(os.fsencode(part), safe="") for part in parts)
