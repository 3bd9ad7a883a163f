"""The benchmark's own arithmetic, tables and pictures, from given figures; and each of its measures once, of ours."""

from __future__ import annotations

import re
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from trio_pyjo_ws.wire import deflate
from trio_pyjo_ws.wire.codec import Decoder
from trio_pyjo_ws.wire.frames import Frame

from .bench import compression, figures, load, plan, processes, raw_echo, scale
from .bench.figures import Ratio, figure, number, ratio
from .bench.measures import MEASURES, Target
from .bench.plan import Scenario
from .bench.processes import Failed, client, command, free_port, redis_server, server
from .interoperability.conftest import missing

if TYPE_CHECKING:
    from .bench.figures import Results

pytestmark = pytest.mark.once

RTT = Scenario("server", "rtt", 256)
IDLE = Scenario("memory", "idle", 0, 500)
TURN = Scenario("fairness", "turn", 256, 4000)
TALK = Scenario("server", "talk", 256, 200)


@pytest.fixture
def results() -> Results:
    return {
        "date": "2026-01-02",
        "command": "nox -s bench",
        "rounds": 3,
        "slice": 0.08,
        "machine": {"cpu": "Some CPU", "cores": 2, "system": "Linux 6", "python": "CPython 3.13.0"},
        "versions": {"trio": "0.35.0", "picows": "2.3.1"},
        "codec": {"ours": "compiled", "ours-pure": "pure Python"},
        "figures": {
            "memory": {"idle:500": {"ours": [8.0], "picows": [16.0]}},
            "server": {
                "rtt:256": {
                    "ours": [20.0, 40.0, 10.0],
                    "ours-callback": [30.0, 60.0, 15.0],
                    "picows": [10.0, 30.0, 4.0],
                    "aiohttp": [None, None, None],
                },
                "conn": {"ours": [None], "picows": [100.0]},
            },
            "client": {"pipe:32x64": {"ours": [2.0], "aiohttp": [1234.5]}},
            "fairness": {"turn:256x4000": {"ours": [1.0, 2.0, 9.0]}},
        },
        "missing": {"Broadcast, 256 B to 500 readers: trio_pyjo_ws": "no broadcast()"},
    }


def table(text: str, after: str) -> list[list[str]]:
    lines = text[text.index(after) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = [line for line in lines[start:] if line.startswith("|") or not line]
    rows = rows[: rows.index("")] if "" in rows else rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_figure_is_a_quantile_of_the_rounds(results: Results) -> None:
    assert figure(results, RTT, "ours") == 10.0
    assert figure(results, TURN, "ours") == 2.0  # of a longest turn, the median
    assert figure(results, RTT, "aiohttp") is None
    assert figure(results, RTT, "trio-websocket") is None
    results["figures"]["server"]["rtt:256"]["ours"] = [float(value) for value in range(10, 0, -1)] + [None]
    assert figure(results, RTT, "ours") == 3.0


def test_a_ratio_is_of_neighbours_in_a_round(results: Results) -> None:
    assert ratio(results, RTT, "ours", "picows") == pytest.approx(Ratio(0.5, 0.45, 0.625))
    assert ratio(results, RTT, "ours-callback", "ours") == pytest.approx(Ratio(2 / 3, 2 / 3, 2 / 3))
    assert ratio(results, IDLE, "ours", "picows") == Ratio(2.0, 2.0, 2.0)
    assert ratio(results, Scenario("server", "conn"), "ours", "picows") is None
    assert ratio(results, RTT, "ours", "aiohttp") is None
    assert ratio(results, RTT, "ours", "trio-websocket") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234, "1.23"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1234"), (0.0, "0.00")],
)
def test_a_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_tables_show_figures_and_ratios(results: Results) -> None:
    text = figures.markdown(results)
    assert table(text, "## Server: CPU") == [
        ["", "trio_pyjo_ws", "trio_pyjo_ws (callback)", "picows"],
        ["---", "---:", "---:", "---:"],
        ["256 B, one in flight", "10.0", "15.0", "4.00"],
        ["open, echo once, close", "-", "-", "100"],
    ]
    server = text[text.index("## Server: CPU") :]
    assert table(server, "Ratio to trio_pyjo_ws,") == [
        ["", "trio_pyjo_ws (callback)", "picows"],
        ["---", "---:", "---:"],
        ["256 B, one in flight", "1.50", "0.50 (0.45 to 0.62)"],
        ["open, echo once, close", "-", "-"],
    ]
    assert table(server, "Ratio to trio_pyjo_ws (callback),") == [
        ["", "picows"],
        ["---", "---:"],
        ["256 B, one in flight", "0.33 (0.30 to 0.42)"],
        ["open, echo once, close", "-"],
    ]
    assert "In ms, the median of the rounds" in text[text.index("the longest turn") :]
    assert "## Client" in text
    assert "## Broadcast" not in text
    for known in (
        "2026-01-02",
        "Some CPU",
        "Linux 6",
        "CPython 3.13.0",
        "picows 2.3.1",
        "`nox -s bench`",
        "results.svg",
    ):
        assert known in text
    assert "- Broadcast, 256 B to 500 readers: trio_pyjo_ws: no broadcast()" in text


def test_without_a_figure_of_ours_there_are_no_ratios(results: Results) -> None:
    results["figures"] = {"broadcast": {"room:256x500": {"websockets-trio": [20.0]}}}
    text = figures.markdown(results)
    assert "## Broadcast" in text
    assert "Ratio to" not in text


class TestPictures:
    """Where matplotlib is installed, as it is for `bench`."""

    @pytest.fixture
    def plot(self) -> Any:
        pytest.importorskip("matplotlib", reason="it is installed for `bench` only")
        from .bench import plot  # noqa: PLC0415

        return plot

    @staticmethod
    def texts(picture: str) -> list[str | None]:
        tree = ET.fromstring(picture)  # noqa: S314 - ours
        return [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]

    def test_there_is_a_bar_for_each_figure(self, plot: Any, results: Results) -> None:
        picture = plot.svg(results)
        bars = [picture.count(f'style="fill: {colour}') for colour in (plot.OURS, plot.VARIANT, plot.OTHER)]
        assert bars == [4, 1, 4]
        texts = self.texts(picture)
        assert texts.count("no figure") == 2
        for shown in ("256 B, one in flight (µs)", "32 B, 64 in flight (µs)", "1234", "trio_pyjo_ws (callback)"):
            assert shown in texts

    def test_the_summary_shows_the_libraries_with_200_talking(self, plot: Any, results: Results) -> None:
        results["figures"]["server"][TALK.name] = {"ours": [19.0], "picows": [6.0]}
        texts = self.texts(plot.summary(results))
        assert texts.count("no figure") == len(plot.SUMMARY_LIBRARIES) - 2
        assert {"19.0 µs", "6.00 µs", "A server that 200 clients talk with"} <= set(texts)

    @pytest.mark.parametrize(
        ("values", "bounds"),
        [([150, 10000], (2, 4)), ([10], (0, 1)), ([0.12, 1], (-2, 0)), ([2], (0, 1)), ([], (-1, 0))],
    )
    def test_an_axis_holds_all_values_and_begins_below_them(
        self, plot: Any, values: list[float], bounds: tuple[int, float]
    ) -> None:
        assert plot.axis(values) == bounds

    def test_a_picture_without_figures_is_one_too(self, plot: Any, results: Results) -> None:
        results["figures"] = {}
        assert self.texts(plot.svg(results)) == []
        assert set(self.texts(plot.summary(results))) > {"no figure"}

    def test_each_colour_has_another_in_the_dark(self, plot: Any, results: Results) -> None:
        picture = plot.svg(results)
        light, dark = picture.split("@media (prefers-color-scheme: dark)")
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", light)) <= set(plot.DARK)
        for one, other in plot.DARK.items():
            assert f'[style*="fill: {one}"] {{ fill: {other} !important }}' in dark
        assert not set(plot.DARK) & set(plot.DARK.values())


def test_names_of_scenarios_are_unique_in_their_group() -> None:
    names = [(s.group, s.name) for s in plan.SCENARIOS]
    assert len(set(names)) == len(names)
    assert {name for _, name in names} >= {
        *("idle:500", "rtt:256", "text:256", "pipe:8192x16", "talk:256x200", "conn", "cut:1024x16"),
        *("json:1024", "room:256x500", "members:256x20", "crowd:2000", "turn:256x4000"),
    }
    for scenario in plan.SCENARIOS:
        assert scenario.title
        assert scenario.kind in MEASURES
        assert any(plan.takes_part(library, scenario) for library in plan.LIBRARIES)


def test_picows_puts_no_fragments_together() -> None:
    assert not plan.takes_part("picows", Scenario("server", "cut", 1024, 16))
    assert plan.takes_part("aiohttp", Scenario("server", "cut", 1024, 16))
    assert plan.takes_part("picows", RTT)
    assert not plan.takes_part("picows", Scenario("broadcast", "room", 256, 500))


NOW = [name for name, library in plan.LIBRARIES.items() if not library.before]


@pytest.mark.parametrize(
    ("words", "libraries", "names"),
    [
        ([], NOW, [s.name for s in plan.SCENARIOS]),
        (["server", "rtt:256", "picows"], ["ours", "picows"], ["rtt:256"]),
        (["client", "conn", "pipe:32x64"], NOW, ["pipe:32x64"]),
        (["tls", "deflate", "delay"], NOW, ["rtt:256", "talk:256x200", "json:1024", "crowd:2000"]),
    ],
)
def test_only_chooses(words: list[str], libraries: list[str], names: list[str]) -> None:
    chosen, scenarios = plan.choose(words)
    assert chosen == libraries
    assert [s.name for s in scenarios] == names


def test_the_version_before_takes_part_if_it_is_named() -> None:
    assert plan.choose([], against=True)[0] == list(plan.LIBRARIES)
    assert plan.choose(["picows"], against=True)[0] == ["ours", "before", "picows"]
    assert command("ours", "servers", against="/before/python")[0] == sys.executable
    assert command("before", "servers", "echo", against="/before/python") == [
        *("/before/python", "-m", "bench.servers", "echo"),
    ]


def test_only_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"expected some of memory, .*rtt:256.*, trio-websocket, not 'picow'"):
        plan.choose(["picow"])


@pytest.mark.skipif(sys.platform != "linux", reason="the CPU time is that of Linux")
class TestMeasures:
    @pytest.mark.parametrize(
        ("what", "library", "scenarios"),
        [
            (
                "echo",
                "ours",
                [
                    Scenario("memory", "idle", 0, 2),
                    Scenario("server", "rtt", 1 << 17),
                    Scenario("server", "text", 5),
                    Scenario("server", "pipe", 256, 3),
                    Scenario("server", "cut", 32, 16),
                    Scenario("server", "talk", 256, 3),
                    Scenario("server", "conn"),
                    Scenario("delay", "crowd", 0, 3),
                ],
            ),
            ("echo", "ours-callback", [RTT]),
            ("echo", "ours-channel", [RTT]),
            ("deflate", "ours", [Scenario("deflate", "json", 1024)]),
            ("level", "ours", [Scenario("deflate", "json", 1024)]),
            ("broadcast", "ours", [Scenario("broadcast", "room", 256, 3)]),
            ("rooms", "ours", [Scenario("rooms", "members", 256, 3)]),
            ("turn", "ours", [Scenario("fairness", "turn", 256, 3)]),
        ],
    )
    def test_each_gives_a_figure(self, what: str, library: str, scenarios: list[Scenario]) -> None:
        port = free_port()
        with server(command(library, "servers", what, library, str(port)), port) as process:
            for scenario in scenarios:
                value = MEASURES[scenario.kind](scenario, Target(port, process), 0)
                assert value >= 0 if scenario.kind == "idle" else value > 0

    @pytest.mark.interop
    def test_rooms_over_redis_give_a_figure(self) -> None:
        if shutil.which("redis-server") is None:
            missing("no redis-server")
        port = free_port()
        with (
            redis_server() as url,
            server(command("ours", "servers", "rooms", "ours-redis", str(port), url), port) as pid,
        ):
            before = load.cpu_ns(pid)
            assert MEASURES["members"](Scenario("rooms", "members", 256, 3), Target(port, pid), 0) > 0
            assert load.cpu_ns(pid) > before

    def test_without_a_redis_server_its_figure_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(Failed, match="redis-server is not on the PATH"), redis_server():
            raise AssertionError("it has started")

    def test_a_client_measures_itself_one_connection_after_the_other(self) -> None:
        port = free_port()
        with ExitStack() as stack:
            stack.enter_context(server(command("ours", "raw_echo", str(port)), port))
            measure = stack.enter_context(client(command("ours", "clients", "ours", str(port))))
            assert measure(Scenario("client", "rtt", 256), 0) > 0
            assert measure(Scenario("client", "pipe", 32, 4), 0) > 0
            with pytest.raises(Failed, match="ValueError"):
                measure(Scenario("client", "conn"), 0)  # not for a client
            with pytest.raises(Failed, match="ValueError"):
                measure(Scenario("client", "rtt", 256), 0)

    def test_a_server_without_compression_fails_in_its_scenario(self) -> None:
        port = free_port()
        with server(command("ours", "servers", "echo", "ours", str(port)), port) as process:
            target = Target(port, process)
            with pytest.raises(ConnectionError, match="it does not compress"):
                MEASURES["json"](Scenario("deflate", "json", 1024), target, 0)

    def test_a_server_that_does_not_start_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            pytest.raises(Failed, match="KeyError: 'nothing'"),
            server(command("ours", "servers", "echo", "nothing", "1"), free_port()),
        ):
            raise AssertionError("it has started")
        monkeypatch.setattr(processes, "STARTING", 0.0)
        with pytest.raises(Failed, match="it does not listen"), server([sys.executable, "-c", "input()"], free_port()):
            raise AssertionError("it has started")


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_the_load_and_the_raw_server_understand_each_other(size: int) -> None:
    frame = load.masked_frame(b"x" * size)
    masked = frame[len(frame) - size :]
    buffer = bytearray(frame[:-1])
    assert raw_echo.echo(buffer) == (b"", False)  # it is not complete
    buffer += frame[-1:] + frame + frame[:3]
    replies, closed = raw_echo.echo(buffer)
    assert not closed
    assert len(replies) == 2 * load.unmasked_size(size)
    assert replies.endswith(masked)
    assert not replies[1] & 0x80
    assert buffer == frame[:3]


def test_the_raw_server_answers_a_close_with_its_code() -> None:
    assert raw_echo.echo(bytearray(load.masked_frame(b"\x03\xe8", opcode=8))) == (b"\x88\x02\x03\xe8", True)
    assert raw_echo.echo(bytearray(load.masked_frame(b"", opcode=8))) == (b"\x88\x00", True)


def test_costs_of_compression_are_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(deflate, "_fastest", deflate._fastest)  # which is what it changes
    monkeypatch.setattr(compression, "SIZES", [1024])
    compression.main(["--rounds", "1", "--level", "1"])
    times, memory = capsys.readouterr().out.rstrip().split("\n\n")
    assert re.findall(
        r"^\| 1,024 \| (taken over|anew) \| zlib \| \d\d% \| [\d.]+ \| [\d.]+ \|$", times, re.MULTILINE
    ) == [
        "taken over",
        "anew",
    ]
    assert len(memory.splitlines()) == 2 + len(compression.MEMORY)
    # Where the context is not taken over, an idle connection holds next to nothing.
    assert set(memory.splitlines()[-1].split(" | ")[1:]) <= {"0", "0 |"}


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_messages_to_compress_have_their_size_and_differ(size: int) -> None:
    found = compression.messages(size, 3)
    assert [len(message) for message in found] == [size] * 3
    assert len(set(found)) == (3 if size > 1 else 1)


def test_the_rounds_of_a_scale_take_turns_and_the_median_stands() -> None:
    measured: list[int] = []

    def measure(amount: int) -> float:
        measured.append(amount)
        return amount * [1.0, 5.0, 2.0][(len(measured) - 1) // 2]

    assert scale.medians(measure, [1, 10], 3) == [2.0, 20.0]
    assert measured == [1, 10] * 3


def test_a_table_of_a_scale(capsys: pytest.CaptureFixture[str]) -> None:
    scale.show("Size", [scale.size_of(1 << 16), scale.size_of(1 << 26)], {"us": [1.2345, 66.66]})
    assert capsys.readouterr().out.splitlines() == [
        "| Size | 64 KiB | 64 MiB |",
        "|---|---:|---:|",
        "| us | 1.23 | 66.7 |",
        "",
    ]


def test_a_message_in_fragments_is_put_together_again() -> None:
    decoder = Decoder(True, 100)
    assert decoder.decode(load.message_in_fragments(b"abcdef", 3), 10) == [b"abcdef"]
    decoder.watch = True
    *frames, message = decoder.decode(load.message_in_fragments(b"abcde", 5), 10)
    assert [frame.payload for frame in frames if isinstance(frame, Frame)] == [b"a", b"b", b"c", b"d", b"e"]
    assert message == b"abcde"
