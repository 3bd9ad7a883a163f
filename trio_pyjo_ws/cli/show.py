"""Messages and JSON as text that is safe and short enough to read in a terminal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..escaping import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fold", "one_line", "parse_json", "preview", "shorten", "visible"]

MAX_SHOWN = 2_000
"""Characters of a message that are shown."""

MAX_ITEMS = 20
"""Items of a JSON array or object that are shown, of each."""

MAX_DEPTH = 6
"""Levels of JSON that are shown."""

MAX_STRING = 300
"""Characters of a JSON string that are shown."""

WIDTH = 76
"""Columns up to which a JSON array or object stays on one line."""

_LAYOUT = re.compile(r"([\n\t])")


def visible(text: str) -> str:
    """``text`` as :func:`escape` makes it safe to print, except that line breaks and tabs stay."""
    return "".join(part if part in ("\n", "\t") else escape(part) for part in _LAYOUT.split(text))


def one_line(text: str) -> str:
    r"""``text`` in one line: a line break in it becomes the two characters ``\n`` (or ``\r``)."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def shorten(text: str, limit: int) -> str:
    """The first ``limit`` characters of ``text``, and how many follow."""
    return text if len(text) <= limit else f"{text[:limit]}… {len(text) - limit:,} more"


def preview(message: str | bytes, limit: int = MAX_SHOWN) -> str:
    """A message as it is shown: text as text, anything else in hexadecimal, two digits a byte."""
    if isinstance(message, str):
        return shorten(visible(message), limit)
    left = len(message) - limit // 3
    shown = message[: limit // 3].hex(" ")
    return f"{shown} … {left:,} more" if left > 0 else shown


def parse_json(text: str) -> Any:
    """The array or object that ``text`` stands for; None if it is neither."""
    if text.lstrip(" \t\r\n")[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not valid JSON, or nested too deeply
        return None


def fold(value: Any) -> str:
    """JSON, indented, with whatever is long or deep cut short and the number of what is left out."""
    return "\n".join(_lines(value, "", 0))


def _lines(value: Any, before: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if not isinstance(value, (dict, list)) or not value:
        yield f"{indent}{before}{_scalar(value)}"
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    if depth >= MAX_DEPTH:
        yield f"{indent}{before}{opening}… {len(value):,} inside{closing}"
        return
    items = list(value.items() if isinstance(value, dict) else ((None, item) for item in value[:MAX_ITEMS]))[:MAX_ITEMS]
    inner = [
        line
        for name, item in items
        for line in _with_comma(_lines(item, "" if name is None else f"{_scalar(name)}: ", depth + 1))
    ]
    if len(items) < len(value):
        inner.append(f"{indent}  … {len(value) - len(items):,} more")
    elif len(inner) == len(items) and sum(map(len, inner)) <= WIDTH:
        joined = " ".join(line.strip() for line in inner).removesuffix(",")
        yield f"{indent}{before}{opening}{joined}{closing}"
        return
    else:
        inner[-1] = inner[-1].removesuffix(",")
    yield f"{indent}{before}{opening}"
    yield from inner
    yield f"{indent}{closing}"


def _with_comma(lines: Iterator[str]) -> list[str]:
    *first, last = lines
    return [*first, f"{last},"]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and len(value) > MAX_STRING:
        value = shorten(value, MAX_STRING)
    return visible(json.dumps(value, ensure_ascii=False))
