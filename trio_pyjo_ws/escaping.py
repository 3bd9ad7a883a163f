"""Text of a peer's, made safe for a line of a log and for a terminal.

A peer chooses its close reason, the phrase behind its status, its headers and its messages. Whoever shows them shows
them through :func:`escape`, or as a literal by :func:`repr`, which escapes the same characters and more.
"""

from __future__ import annotations

import re

__all__ = ["escape"]

# Control characters, among them those that begin an ANSI sequence; whatever some program takes for the end of a line;
# the marks that turn the direction of writing around (Bidi_Control of the Unicode standard); and halves of surrogate
# pairs, which no encoding can write.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""``text`` in one line, with an escape sequence of Python's for every character that could do more than be read.

    Every other character stays, of whatever language, and so does a backslash.

    >>> print(escape("bye)\nCRITICAL: \x1b[31mred"))
    bye)\nCRITICAL: \x1b[31mred
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
