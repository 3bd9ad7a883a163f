"""The benchmark's own arithmetic, table and plot, from given figures: nothing is measured, and no peer is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from trio_pyjo_ws.wire import deflate
from trio_pyjo_ws.wire._codec import Decoder

from .bench import compression, figures, load, plan, plot, raw_echo, scale
from .bench.figures import Summary, number, ratio, summarise
from .bench.plan import Scenario

if TYPE_CHECKING:
    from .bench.figures import Results

RTT = Scenario("server", "rtt", 256)
IDLE = Scenario("server", "idle", 0, 500)


@pytest.fixture
def results() -> Results:
    return {
        "date": "2026-01-02",
        "command": "nox -s bench",
        "rounds": 3,
        "seconds": 0.4,
        "machine": {"cpu": "Some CPU", "cores": 2, "system": "Linux 6", "python": "CPython 3.13.0"},
        "versions": {"trio": "0.35.0", "picows": "2.3.1"},
        "codec": {"ours": "compiled", "ours-pure": "pure Python"},
        "figures": {
            "server": {
                "idle:500": {"ours": [8.0], "picows": [16.0]},
                "rtt:256": {"ours": [20.0, 30.0, 10.0], "ours-pure": [40.0], "picows": [12.0, 8.0, 10.0]},
                "conn": {"picows": [100.0]},
            },
            "client": {"pipe:32x64": {"ours": [2.0], "aiohttp": [1234.5]}},
        },
        "missing": {"broadcast: trio_pyjo_ws": "no broadcast()"},
    }


def elements(results: Results, tag: str, **attributes: str) -> list[ET.Element]:
    tree = ET.fromstring(plot.svg(results))  # noqa: S314 - ours
    found = tree.iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    return [e for e in found if all(e.get(name) == value for name, value in attributes.items())]


def table(text: str, after: str) -> list[list[str]]:
    lines = text[text.index(after) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = [line for line in lines[start:] if line.startswith("|") or not line]
    rows = rows[: rows.index("")] if "" in rows else rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_summary_is_the_median_and_the_bounds() -> None:
    assert summarise([3.0, 1.0, 10.0]) == Summary(3.0, 1.0, 10.0)
    assert summarise([1.0, 2.0]) == Summary(1.5, 1.0, 2.0)


def test_a_ratio_is_of_the_medians_theirs_by_ours(results: Results) -> None:
    assert ratio(results, RTT, "picows") == 0.5
    assert ratio(results, IDLE, "picows") == 2.0
    assert ratio(results, Scenario("server", "conn"), "picows") is None
    assert ratio(results, RTT, "aiohttp") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234, "1.23"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1234"), (0.0, "0.00")],
)
def test_a_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_table_shows_medians_spreads_and_ratios(results: Results) -> None:
    text = figures.markdown(results)
    assert table(text, "## Server") == [
        ["", "trio_pyjo_ws", "trio_pyjo_ws (pure)", "picows"],
        ["---", "---:", "---:", "---:"],
        ["memory of one of 500 idle (KiB)", "8.00", "-", "16.0"],
        ["256 B, one in flight (µs)", "20.0 (10.0 to 30.0)", "40.0", "10.0 (8.00 to 12.0)"],
        ["open, echo once, close (µs)", "-", "-", "100"],
    ]
    assert table(text, "How many times") == [
        ["", "trio_pyjo_ws (pure)", "picows"],
        ["---", "---:", "---:"],
        ["memory of one of 500 idle (KiB)", "-", "2.00"],
        ["256 B, one in flight (µs)", "2.00", "0.50"],
        ["open, echo once, close (µs)", "-", "-"],
    ]
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
    assert "- broadcast: trio_pyjo_ws: no broadcast()" in text


def test_without_a_figure_of_ours_there_are_no_ratios(results: Results) -> None:
    results["figures"] = {"broadcast": {"room:256x500": {"websockets-trio": [20.0]}}}
    text = figures.markdown(results)
    assert "## Broadcast" in text
    assert "How many times" not in text


def test_the_plot_has_a_bar_for_each_figure(results: Results) -> None:
    assert len(elements(results, "rect", **{"class": "bar-ours"})) == 3
    assert len(elements(results, "rect", **{"class": "bar-variant"})) == 1
    assert len(elements(results, "rect", **{"class": "bar"})) == 4
    texts = [element.text for element in elements(results, "text")]
    assert texts.count("no figure") == 3
    for shown in ("256 B, one in flight", "32 B, 64 in flight", "µs, log scale", "KiB, log scale", "20.0", "1234"):
        assert shown in texts


def test_a_factor_of_ten_has_one_length(results: Results) -> None:
    results["figures"] = {"server": {"rtt:256": {"ours": [10.0], "picows": [100.0]}, "conn": {"ours": [1000.0]}}}
    ours, connection = (float(e.get("width", "")) for e in elements(results, "rect", **{"class": "bar-ours"}))
    (theirs,) = (float(e.get("width", "")) for e in elements(results, "rect", **{"class": "bar"}))
    assert theirs == pytest.approx(2 * ours, abs=0.2)
    assert connection == pytest.approx(ours, abs=0.2)


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([(200, 150, 10000)], (2, 4)),
        ([(10, 10, 10)], (0, 1)),
        ([(0.5, 0.12, 1)], (-2, 0)),
        ([(2, 2, 2)], (0, 1)),
        ([], (-1, 0)),
    ],
)
def test_an_axis_holds_all_values_and_begins_below_them(
    values: list[tuple[float, float, float]], bounds: tuple[int, float]
) -> None:
    assert plot.axis([Summary(*value) for value in values]) == bounds


def test_everything_in_the_plot_lies_within_it(results: Results) -> None:
    (root,) = elements(results, "svg")
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for element in [*elements(results, "rect"), *elements(results, "text")]:
        assert 0 <= float(element.get("x", 0)) <= width
        assert 0 <= float(element.get("x", 0)) + float(element.get("width", 0)) <= width
        assert 0 <= float(element.get("y", 0)) + float(element.get("height", 0)) <= height


def test_the_plot_without_figures_is_a_picture_too(results: Results) -> None:
    results["figures"] = {}
    assert elements(results, "rect")[0].get("class") == "ground"


def test_the_plot_has_colours_for_light_and_dark() -> None:
    light, dark = plot.STYLE.split("@media (prefers-color-scheme: dark)")
    for kind in ("ground", "grid", "bar", "bar-ours", "bar-variant", "spread", "muted"):
        colours = [re.search(rf"\.{kind} {{ (?:fill|stroke): (#\w+)", style) for style in (light, dark)]
        assert len({colour and colour[1] for colour in colours} - {None}) == 2


def test_names_of_scenarios_are_unique_in_their_group() -> None:
    names = [(s.group, s.name) for s in plan.SCENARIOS]
    assert len(set(names)) == len(names)
    assert {"idle:500", "rtt:256", "tls:256", "pipe:8192x16", "conn", "room:256x500"} <= {name for _, name in names}


@pytest.mark.parametrize(
    ("words", "libraries", "names"),
    [
        ([], list(plan.LIBRARIES), [s.name for s in plan.SCENARIOS]),
        (["server", "rtt:256", "picows"], ["ours", "picows"], ["rtt:256"]),
        (["client", "conn", "pipe:32x64"], list(plan.LIBRARIES), ["pipe:32x64"]),
        (["tls", "room"], list(plan.LIBRARIES), ["tls:256", "room:256x500"]),
    ],
)
def test_only_chooses(words: list[str], libraries: list[str], names: list[str]) -> None:
    chosen, scenarios = plan.choose(words)
    assert chosen == libraries
    assert [s.name for s in scenarios] == names


def test_only_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'picow' is none of server, .*rtt:256.*, picows"):
        plan.choose(["picow"])


def test_a_round_has_a_process_for_each_library_and_one_for_tls() -> None:
    jobs = plan.jobs(["ours", "aiohttp"], plan.choose(["server", "broadcast"])[1])
    assert [job.title for job in jobs] == [
        "server: trio_pyjo_ws",
        "server: aiohttp",
        "server over TLS: trio_pyjo_ws",
        "server over TLS: aiohttp",
        "broadcast: trio_pyjo_ws",
    ]


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


def test_the_summaries_are_json_numbers(results: Results) -> None:
    summary: dict[str, Any] = summarise(results["figures"]["server"]["rtt:256"]["ours"])._asdict()
    assert summary == {"median": 20.0, "low": 10.0, "high": 30.0}


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


def test_a_message_of_a_scale_is_in_as_many_fragments_as_it_has_bytes() -> None:
    decoder = Decoder(True, 100)
    assert decoder.decode(scale.message_in_fragments(5), 10) == [(2, b"x"), *[(0, b"x")] * 3, (0x80, b"x")]
