"""Text of strangers as a terminal may show it."""

from __future__ import annotations

import unicodedata


def plain(text: str) -> str:
    """The text with what a terminal would obey, or read in another direction, written as an escape.

    Names of pods, reasons of the cluster and lines of logs come from others, who could move the cursor or set the
    clipboard with them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if _is_shown(one) else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def _is_shown(one: str) -> bool:
    # Cc: controls, Cf: formats such as a change of direction, Cs: halves of characters, Zl and Zp: ends of lines.
    return (one.isascii() and one.isprintable()) or unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
