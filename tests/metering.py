"""The work of inflating, counted and not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_pyjo_ws.wire import deflate

if TYPE_CHECKING:
    import pytest


class Meter:
    """Counts what zlib is given, and what it copies because it stands behind an end: its work, but for the output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work = 0
        choose = deflate._for_decompressing
        monkeypatch.setattr(deflate, "_for_decompressing", lambda bits: self._of(choose(bits)))

    def _of(self, module: Any) -> Any:
        meter = self

        class Decompressor:
            def __init__(self, *arguments: Any, **named: Any) -> None:
                self._inner = module.decompressobj(*arguments, **named)
                meter.work += 1000 + len(named["zdict"])

            def decompress(self, data: bytes, max_length: int) -> bytes:
                output: bytes = self._inner.decompress(data, max_length)
                meter.work += 10 + len(data) + len(self._inner.unused_data) + len(self._inner.unconsumed_tail)
                return output

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        class Module:
            decompressobj = Decompressor

        return Module
