"""How many steps a call takes: a measure of growth that is the same on every machine, and on a busy one.

A step is a line of Python that runs, whoever wrote it, a character that a method of str or bytes goes through, or a
move of a regular expression. The last are not seen from Python, so the expressions of the modules in question are
replaced by :class:`Watched` ones, which match a second time by a machine that backtracks as :mod:`re` does.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest
    from typing_extensions import Self

if sys.version_info >= (3, 11):
    from re import _constants as sre
    from re import _parser as parser
else:
    import sre_constants as sre
    import sre_parse as parser

PARSERS = [
    *(
        f"trio_pyjo_ws.handshake.{name}"
        for name in ("messages", "url", "negotiate", "http1", "redirect", "forwarded", "proxy_protocol")
    ),
    "h11._readers",
    "h11._headers",
]
"""Modules whose regular expressions see what a peer sends."""

# Methods that go through all of their object, whatever their arguments say.
THROUGH = frozenset(
    {"decode", "encode", "join", "lower", "partition", "replace", "rpartition", "split", "strip", "translate"}
)

Instruction = tuple[str, Any]


class Program:
    """A regular expression for a machine that counts its moves. What the modules do not use, it does not know."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self._of_bytes = isinstance(pattern.pattern, bytes)
        self._ignores_case = bool(pattern.flags & re.IGNORECASE)
        self._dot_all = bool(pattern.flags & re.DOTALL)
        self._code: list[Instruction] = []
        self._compile(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
        self._code.append(("match", None))

    def _compile(self, nodes: Any) -> None:
        for operation, argument in nodes:
            if operation is sre.SUBPATTERN:
                self._compile(argument[3])
            elif operation is sre.BRANCH:
                self._compile_branch(argument[1])
            elif operation is sre.MAX_REPEAT:
                self._compile_repeat(*argument)
            elif operation is sre.ASSERT:
                inner = object.__new__(Program)
                inner.__dict__.update(self.__dict__, _code=[])
                inner._compile(argument[1])
                inner._code.append(("match", None))
                self._code.append(("assert", inner))
            elif operation is sre.AT:
                assert argument is sre.AT_END_STRING
                self._code.append(("end", None))
            else:
                self._code.append(("take", self._predicate(operation, argument)))

    def _compile_branch(self, branches: list[Any]) -> None:
        jumps = []
        for branch in branches[:-1]:
            split = len(self._code)
            self._code.append(("split", None))
            self._compile(branch)
            jumps.append(len(self._code))
            self._code.append(("jump", None))
            self._code[split] = ("split", len(self._code))
        self._compile(branches[-1])
        for jump in jumps:
            self._code[jump] = ("jump", len(self._code))

    def _compile_repeat(self, least: int, most: Any, body: Any) -> None:
        for _ in range(least):
            self._compile(body)
        splits = []
        again = len(self._code)
        for _ in range(1 if most is sre.MAXREPEAT else int(most) - least):
            splits.append(len(self._code))
            self._code.append(("split", None))
            self._compile(body)
        if most is sre.MAXREPEAT:
            self._code.append(("jump", again))
        for split in splits:
            self._code[split] = ("split", len(self._code))

    def _predicate(self, operation: Any, argument: Any) -> Callable[[int], bool]:
        """What one character must be: asked of :mod:`re` itself, for each character once."""
        letters: dict[int, bool] = {}
        one = parser.parse(b"." if self._of_bytes else ".", re.DOTALL if self._dot_all else 0)
        if operation is not sre.ANY:
            one.data[0] = (operation, argument)
        compiled: re.Pattern[Any] = _compile_parsed(one, self._of_bytes, self._ignores_case)

        def takes(code: int) -> bool:
            if code not in letters:
                letter: Any = bytes([code]) if self._of_bytes else chr(code)
                letters[code] = compiled.fullmatch(letter) is not None
            return letters[code]

        return takes

    def run(self, text: Any, start: int, *, to_end: bool = False) -> tuple[int, int | None]:
        """The moves that a match from ``start`` takes, and where it ends; None if there is none."""
        codes = text if self._of_bytes else list(map(ord, text))
        moves = 0
        stack = [(0, start)]
        while stack:
            counter, position = stack.pop()
            while True:
                moves += 1
                operation, argument = self._code[counter]
                counter += 1
                if operation == "take":
                    if position == len(codes) or not argument(codes[position]):
                        break
                    position += 1
                elif operation == "split":
                    stack.append((argument, position))
                elif operation == "jump":
                    counter = argument
                elif operation == "assert":
                    more, end = argument.run(text, position)
                    moves += more
                    if end is None:
                        break
                elif operation == "end" or to_end:
                    if position < len(codes):
                        break
                    if operation == "match":
                        return moves, position
                else:
                    return moves, position
        return moves, None


def _compile_parsed(parsed: Any, of_bytes: bool, ignores_case: bool) -> re.Pattern[Any]:
    compiler = import_module("re._compiler" if sys.version_info >= (3, 11) else "sre_compile")
    parsed.state.str = b"." if of_bytes else "."
    parsed.state.flags |= re.IGNORECASE if ignores_case else 0
    pattern: re.Pattern[Any] = compiler.compile(parsed, parsed.state.flags)
    return pattern


_program_of = lru_cache(maxsize=None)(Program)


class Steps:
    """Counts, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._tracer, self._profiler = sys.gettrace(), sys.getprofile()
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer)
        sys.setprofile(self._profiler)

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        if frame.f_globals is globals():
            return None
        self.count += event == "line"
        return self._trace

    def _profile(self, _: object, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in THROUGH and isinstance(called.__self__, (str, bytes, bytearray)):
            self.count += len(called.__self__)


class Watched:
    """A compiled regular expression that adds its moves to ``steps``."""

    def __init__(self, pattern: re.Pattern[Any], steps: Steps) -> None:
        self._pattern = pattern
        self._program = _program_of(pattern)
        self._steps = steps

    def _run(self, text: Any, start: int, found: re.Match[Any] | None, *, to_end: bool = False) -> None:
        moves, end = self._program.run(text, start, to_end=to_end)
        assert end == (found and found.end()), f"{self._pattern} and its program differ"
        self._steps.count += moves

    def match(self, text: Any, start: int = 0) -> re.Match[Any] | None:
        found = self._pattern.match(text, start)
        self._run(text, start, found)
        return found

    def fullmatch(self, text: Any) -> re.Match[Any] | None:
        found = self._pattern.fullmatch(text)
        self._run(text, 0, found, to_end=True)
        return found

    def search(self, text: Any, start: int = 0) -> re.Match[Any] | None:
        found = self._pattern.search(text, start)
        last = found.start() if found else len(text)
        for position in range(start, last + 1):
            self._run(text, position, self._pattern.match(text, position))
        return found

    def sub(self, replacement: Any, text: Any, count: int = 0) -> Any:
        start, times = 0, 0
        while start <= len(text) and (found := self.search(text, start)) is not None:
            times += 1
            start = max(found.end(), start + 1)
            if times == count:
                break
        return self._pattern.sub(replacement, text, count)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, *modules: str) -> Iterator[Steps]:
    """A counter that sees the regular expressions of ``modules``, which are the package's parsers unless given."""
    steps = Steps()

    def watch(value: Any) -> Any:
        if isinstance(value, re.Pattern):
            return Watched(value, steps)
        if isinstance(value, tuple) and hasattr(value, "_make"):
            return value._make(map(watch, value))  # type: ignore[attr-defined]
        return value

    with monkeypatch.context() as patch:
        for name in modules or PARSERS:
            module = import_module(name)
            for key, value in list(vars(module).items()):
                if isinstance(value, re.Pattern) or (isinstance(value, tuple) and hasattr(value, "_make")):
                    patch.setattr(module, key, watch(value))
        yield steps


def growth(monkeypatch: pytest.MonkeyPatch, call: Callable[[int], object], size: int, *modules: str) -> float:
    """How many times the steps ``call(2 * size)`` takes, of those of ``call(size)``."""
    counts = []
    with watched(monkeypatch, *modules) as steps:
        call(1)  # What is made once and kept is not counted.
        for length in (size, 2 * size):
            steps.count = 0
            with steps:
                call(length)
            counts.append(steps.count)
    return counts[1] / counts[0]
