from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_pyjo_ws.cli import pipes
from trio_pyjo_ws.cli.pipes import LineReader, LineWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):  # closed by the test
            os.close(end)


async def test_lines_come_from_a_pipe_as_they_are_written(pipe: tuple[int, int], nursery: trio.Nursery) -> None:
    reader, writer = pipe
    lines = LineReader(reader)
    got: list[bytes | None] = []

    async def read() -> None:
        got.append(await lines.read_line())

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    os.write(writer, b"one, ")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert got == []
    os.write(writer, b"two\r\nthree\n\nfour")
    with trio.fail_after(5):
        while not got:
            await trio.lowlevel.checkpoint()
    assert got == [b"one, two"]
    assert [await lines.read_line() for _ in range(2)] == [b"three", b""]
    os.close(writer)
    assert [await lines.read_line() for _ in range(3)] == [b"four", None, None]


async def test_lines_come_from_a_file_and_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n")
    with path.open("rb") as file:
        lines = LineReader(file.fileno())
        assert [await lines.read_line() for _ in range(3)] == [b"one", b"two", None]
    nothing = os.open(os.devnull, os.O_RDONLY)
    assert await LineReader(nothing).read_line() is None
    os.close(nothing)


async def test_reading_does_not_change_the_pipe(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"line\n")
    await LineReader(reader).read_line()
    assert os.get_blocking(reader)


async def test_a_line_without_end_is_refused(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "MAX_LINE", 5)
    reader, writer = pipe
    os.write(writer, b"123456")
    with pytest.raises(ValueError, match="more than 5 bytes"):
        await LineReader(reader).read_line()


async def test_writing_waits_for_a_slow_reader(pipe: tuple[int, int], nursery: trio.Nursery) -> None:
    reader, writer = pipe
    size = 200_000  # more than a pipe holds
    done = trio.Event()

    async def write() -> None:
        await LineWriter(writer).write_line(b"x" * size)
        done.set()

    nursery.start_soon(write)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not done.is_set()
    got = b""
    while len(got) <= size:
        await trio.lowlevel.wait_readable(reader)
        got += os.read(reader, 65_536)
    assert got == b"x" * size + b"\n"
    await done.wait()
    assert os.get_blocking(writer)


async def test_writing_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        await LineWriter(file.fileno()).write_line(b"line")
    assert path.read_bytes() == b"line\n"


async def test_writing_where_nobody_reads(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await LineWriter(writer).write_line(b"line")
