"""The stress: some hundreds of its seeds, and that its oracle sees what it is there to see."""

from __future__ import annotations

import gc
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import Close, ConnectionClosed, Transaction
from trio_pyjo_ws.wire.frames import build_frame

from .stress import __main__ as command
from .stress import oracle, receiving, running
from .stress.plan import MESSAGE_EVENTS, REAL, TRANSPORTS, Ending, Plan, draw
from .stress.record import Message, Sink, Take, Wrong
from .stress.running import Verdict, run
from .stress.wire import Torn, items_of
from .stress.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

SEEDS = 480
BLOCK = 24
"""Seeds in a test: as many as a worker of pytest-xdist takes at a time."""


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.once] * (first >= 2 * BLOCK)) for first in range(0, SEEDS, BLOCK)]
)
def test_seeds(first: int) -> None:
    verdicts: list[Verdict] = []
    for seed in range(first, first + BLOCK):
        verdicts.append(run(draw(seed)))
        if "hang" in verdicts[-1].kinds:
            break  # Another would take as long.
    failed = [str(verdict) for verdict in verdicts if verdict.wrongs]
    assert not failed, "\n\n".join(failed)
    gc.collect()
    assert not [one for verdict in verdicts for one in verdict.transactions if one() is not None]


# The plans


def test_the_seeds_come_to_everything() -> None:
    plans = [draw(seed) for seed in range(SEEDS)]
    assert {plan.transport for plan in plans} == set(TRANSPORTS)
    assert len({(plan.ending.kind, plan.ending.how) for plan in plans}) >= 30
    assert {actor.kind for plan in plans for actor in plan.actors} == {*receiving.ACTORS, "sender", "pinger"}
    assert {plan.neighbours > 0 for plan in plans} == {False, True}
    subscriptions = [actor for plan in plans for actor in plan.actors if actor.kind in ("channel", "callback")]
    assert {actor.traits["event"] for actor in subscriptions} == {*MESSAGE_EVENTS, "frame"}
    options = [plan.options[side] for plan in plans for side in plan.options]
    assert {one["write_limit"] for one in options} == {1, 30, 65_536}
    assert {one["max_queue"] for one in options} == {1, 2, 5, 1024}
    assert len({str(one["compression"]) for one in options}) == 5


def test_an_unknown_transport_is_named() -> None:
    with pytest.raises(ValueError, match="unknown transport 'pigeon'"):
        draw(1, "pigeon")


def _known(log: list[str]) -> list[str]:
    """The log without what differs from run to run: where objects lie, how many connections there have been."""
    return [re.sub(r"0x[0-9a-f]+|(client|server)-\d+", "", line) for line in log]


@pytest.mark.parametrize("transport", sorted(set(TRANSPORTS) - REAL))
def test_a_seed_is_repeated_to_the_letter(transport: str) -> None:
    logs = [[_known(run(draw(seed, transport)).log) for seed in range(4)] for _ in range(2)]
    assert logs[0] == logs[1]
    assert sum(map(len, logs[0])) > 100


def test_what_one_actor_does_does_not_depend_on_the_others() -> None:
    plan = draw(5, "memory")
    name = plan.actors[0].name
    assert [actor.name for actor in plan.without({name}).actors] == [actor.name for actor in plan.actors[1:]]
    assert World(plan).chance("x").random() == World(plan.without({name})).chance("x").random()


# What it is there to see: the surface, broken on purpose

SIMPLE = replace(
    draw(0, "memory"),
    options={
        side: {"compression": False, "ping_interval": None, "ping_timeout": None} for side in ("client", "server")
    },
    faults={"client": {}, "server": {}},
    turns="short",
    ending=Ending("settled", "finish", "client", 1000, None),
)


def _plan(seed: int) -> Plan:
    """Senders on one side, and one that receives on the other."""
    plan = draw(seed, "memory")
    actors = [actor for actor in plan.actors if actor.kind == "sender" or "slow" in actor.traits]
    return replace(SIMPLE, seed=seed, actors=tuple(actor for actor in actors if actor.kind in ("sender", "receiver")))


async def _lose(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    await receive(ws)
    return await receive(ws)


async def _repeat(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    seen = vars(ws).setdefault("seen", [])
    if len(seen) == 1:
        return seen.pop()
    seen.append(await receive(ws))
    return seen[0]


async def _swap(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    kept = vars(ws).setdefault("kept", [])
    if not kept:
        kept.append(await receive(ws))
        with trio.move_on_after(1):
            return await receive(ws)
    return kept.pop()


async def _change(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    return (await receive(ws)) * 2


async def _never(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    await receive(ws)
    await trio.sleep_forever()


async def _lie(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    try:
        return await receive(ws)
    except (trio.EndOfChannel, trio.ClosedResourceError):
        raise ConnectionClosed(Close(4004, "")) from None


async def _fail(receive: Callable[[Any], Awaitable[Any]], ws: Any) -> Any:
    await receive(ws)
    raise KeyError("what nobody promised")


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (_lose, {"lost"}),
        (_repeat, {"twice"}),
        (_swap, {"order", "lost"}),
        (_change, {"changed"}),
        (_never, {"hang"}),
        (_lie, {"end of receive"}),
        (_fail, {"exception"}),
    ],
)
def test_a_receive_that_breaks_its_promise_is_found(
    monkeypatch: pytest.MonkeyPatch, fault: Any, kinds: set[str]
) -> None:
    receive = Transaction.receive
    monkeypatch.setattr(receiving, "WAYS", ("receive",))
    monkeypatch.setattr(Transaction, "receive", lambda ws: fault(receive, ws))
    found = {kind for seed in range(5) for kind in run(_plan(seed)).kinds}
    assert found & kinds


def test_without_a_fault_nothing_is_found() -> None:
    assert [str(verdict) for seed in range(5) if (verdict := run(_plan(seed))).wrongs] == []


def test_a_task_that_spins_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin(*_: object) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(running, "MAX_STEPS", 2000)
    monkeypatch.setattr(Transaction, "receive", spin)
    assert "hang" in run(_plan(1)).kinds


def test_a_hang_shows_where_the_tasks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stay(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Transaction, "finish", stay)
    [hang] = [wrong for wrong in run(_plan(1)).wrongs if wrong.kind == "hang"]
    assert "stay:" in hang.text


# The oracle's rules, each by a story that breaks it, beside one that does not


class Story:
    """What the client sends, what the server receives, and the close, by the client unless ``ending`` is forced."""

    def __init__(self, kind: str = "now", how: str = "finish", transport: str = "tcp") -> None:
        self.world = World(replace(SIMPLE, transport=transport, ending=Ending(kind, how, "client", 1000)))
        self.client, self.server = self.world.sides.values()
        self.receive = self.server.receive
        self.ends_with(1000)

    def ends_with(self, client: int, server: int | None = None, reason: str = "") -> None:
        for side, code in ((self.client, client), (self.server, client if server is None else server)):
            side.ws = SimpleNamespace(closed=Close(code, reason), is_finished=True)  # type: ignore[assignment]

    def send(self, count: int = 1, *, text: bool = True, fate: Any = "sent", **more: Any) -> list[int]:
        """Send messages, one after the other."""
        numbers = []
        for _ in range(count):
            number = self.world.next_number()
            payload = f"[{number}, 0]"
            message = Message(number, payload if text else payload.encode(), "positional", self.world.tick(), **more)
            message.fate, message.returned = fate, self.world.tick()
            self.client.sent[number] = message
            numbers.append(number)
        return numbers

    def subscribe(self, name: str, event: str = "message", **more: Any) -> Sink:
        sink = Sink(
            name, event, 16, opening=self.world.tick(), opened=self.world.tick(), **{"is_channel": True, **more}
        )
        self.server.sinks.append(sink)
        return sink

    def take(self, sink: Sink, *numbers: int, **more: Any) -> None:
        for number in numbers:
            sink.takes.append(Take(number, self.world.tick(), self.world.tick(), sink.name, **more))

    def close(self, how: str = "finish", code: int = 1000, reason: str | None = None) -> None:
        self.world.closing(self.client, how, code, reason=reason)

    def kinds(self) -> set[str]:
        return {wrong.kind for wrong in oracle.judge(self.world)}


Telling: TypeAlias = "Callable[[Story], None]"
STORIES: list[tuple[Telling, set[str]]] = []


def story(*kinds: str) -> Callable[[Telling], Telling]:
    """Enter a story, and what is wrong with it."""

    def enter(tell: Telling) -> Telling:
        STORIES.append((tell, set(kinds)))
        return tell

    return enter


@story()
def all_is_received(it: Story) -> None:
    it.take(it.receive, *it.send(3))
    it.close()


@story("lost")
def the_last_is_lost(it: Story) -> None:
    it.take(it.receive, *it.send(3)[:2])
    it.close()


@story()
def the_last_was_under_way_when_the_peer_closed(it: Story) -> None:
    it.take(it.receive, *it.send(3)[:2])
    it.world.closing(it.server, "finish", 1000)


@story("lost")
def one_in_the_middle_is_lost(it: Story) -> None:
    first, _, last = it.send(3)
    it.take(it.receive, first, last)
    it.world.closing(it.server, "finish", 1000)


@story()
def what_was_cancelled_may_be_lost(it: Story) -> None:
    it.send(fate="unsure")
    it.take(it.receive, *it.send())
    it.close()


@story("refused")
def what_was_refused_is_received(it: Story) -> None:
    it.take(it.receive, *it.send(fate="refused"))
    it.close()


@story("twice")
def one_is_received_twice(it: Story) -> None:
    it.take(it.receive, *it.send() * 2)
    it.close()


@story("twice")
def one_is_received_twice_by_a_channel(it: Story) -> None:
    channel = it.subscribe("channel")
    it.take(channel, *it.send() * 2)
    it.close()


@story()
def one_is_received_by_two_channels(it: Story) -> None:
    channels = it.subscribe("one"), it.subscribe("other")
    [number] = it.send()
    for channel in channels:
        it.take(channel, number)
    it.close()


@story("twice")
def one_goes_to_a_channel_and_to_receive(it: Story) -> None:
    [number] = it.send()
    it.take(it.receive, number)
    it.take(it.subscribe("channel"), number)
    it.close()


@story("order")
def two_are_swapped(it: Story) -> None:
    it.take(it.receive, *reversed(it.send(2)))
    it.close()


@story()
def two_that_were_sent_together_have_no_order(it: Story) -> None:
    first, last = it.send(2)
    it.client.sent[last].called = it.client.sent[first].called
    it.take(it.receive, last, first)
    it.close()


@story("order", "hole")
def what_came_first_is_taken_over_when_its_successor_is_gone(it: Story) -> None:
    first, last = it.send(2)
    it.take(it.receive, last)
    it.take(it.subscribe("channel"), first)
    it.close()


@story("not entitled", "hole")
def receive_is_given_what_a_channel_subscribes_to(it: Story) -> None:
    it.subscribe("channel", "text")
    it.take(it.receive, *it.send())
    it.world.closing(it.server, "finish", 1000)


@story()
def receive_is_given_what_no_channel_matches(it: Story) -> None:
    it.subscribe("channel", "binary")
    it.take(it.receive, *it.send())
    it.close()


@story()
def a_message_in_pieces_passes_the_channels(it: Story) -> None:
    it.subscribe("channel")
    it.take(it.receive, *it.send(), in_pieces=True)
    it.close()


@story("not entitled")
def a_channel_is_given_what_was_sent_after_it_was_unsubscribed(it: Story) -> None:
    channel = it.subscribe("channel")
    channel.unsubscribed = it.world.tick()
    it.take(channel, *it.send())
    it.close()


@story("hole")
def a_channel_lacks_what_another_has(it: Story) -> None:
    one, other = it.subscribe("one"), it.subscribe("other")
    numbers = it.send(3)
    it.take(one, *numbers)
    it.take(other, numbers[0], numbers[2])
    it.close()


@story("hole")
def a_channel_begins_late(it: Story) -> None:
    one, other = it.subscribe("one"), it.subscribe("other")
    numbers = it.send(3)
    it.take(one, *numbers)
    it.take(other, *numbers[1:])
    it.close()


@story("hole")
def a_channel_ends_early(it: Story) -> None:
    one, other = it.subscribe("one"), it.subscribe("other")
    numbers = it.send(3)
    it.take(one, *numbers)
    it.take(other, *numbers[:2])
    it.close()


@story("hole")
def what_a_channel_held_when_it_was_unsubscribed_is_lost(it: Story) -> None:
    one, other = it.subscribe("one"), it.subscribe("other")
    numbers = it.send(3)
    it.take(one, *numbers)
    other.unsubscribed = it.world.tick()
    it.take(other, *numbers[:2])
    it.close()


@story()
def a_channel_that_is_closed_gives_up_what_it_holds(it: Story) -> None:
    channel = it.subscribe("channel")
    numbers = it.send(3)
    it.take(channel, numbers[0])
    channel.closed = it.world.tick()
    it.close()


@story("lost")
def a_channel_that_is_closed_gives_up_more_than_it_has_room_for(it: Story) -> None:
    channel = it.subscribe("channel")
    channel.capacity = 1
    numbers = it.send(3)
    it.take(channel, numbers[0])
    channel.closed = it.world.tick()
    it.close()


@story()
def a_callback_for_once_is_called_once(it: Story) -> None:
    callback = it.subscribe("callback", once=True, is_channel=False)
    numbers = it.send(3)
    it.take(callback, numbers[0])
    it.take(it.receive, *numbers[1:])
    it.close()


@story("not entitled", "hole")
def a_callback_for_once_is_never_called(it: Story) -> None:
    it.subscribe("callback", once=True, is_channel=False)
    it.take(it.receive, *it.send(3))
    it.close()


@story()
def a_callback_that_is_subscribed_after_the_end_is_not_called(it: Story) -> None:
    numbers = it.send(2)
    it.subscribe("callback", is_late=True, is_channel=False)
    it.take(it.receive, *numbers)
    it.close()


@story("close code")
def the_codes_differ(it: Story) -> None:
    it.ends_with(1000, 1001)
    it.close()


@story("close code")
def the_code_is_another_than_was_given(it: Story) -> None:
    it.ends_with(4000)
    it.close()


@story()
def the_closes_have_crossed(it: Story) -> None:
    it.ends_with(4000, 1000)
    it.close()
    it.world.closing(it.server, "finish", 4000)


@story("close reason")
def the_reason_is_lost(it: Story) -> None:
    it.close(reason="enough")


@story("close code")
def a_message_that_is_too_big_does_not_end_with_1009(it: Story) -> None:
    it.send(is_big=True)


@story("lost")
def what_came_before_a_message_that_is_too_big_is_lost(it: Story) -> None:
    it.ends_with(1009)
    it.send()
    it.send(is_big=True)


@story("close code")
def a_connection_that_was_killed_ends_normally(it: Story) -> None:
    it.world.plan = replace(it.world.plan, ending=Ending("kill", "nursery", "client"))
    it.world.closing(it.client, "killed")


@story("end of receive")
def the_end_is_told_as_a_normal_one_after_another(it: Story) -> None:
    it.ends_with(4000)
    it.close(code=4000)
    it.world.end(it.server, "server.receiver1", "receive", trio.EndOfChannel())


@story("end of receive")
def the_end_is_told_as_this_sides_own(it: Story) -> None:
    it.close()
    it.world.end(it.server, "server.receiver1", "receive", trio.ClosedResourceError())


@story("end of ping")
def the_end_is_told_as_the_peers_to_the_side_that_closed(it: Story) -> None:
    it.close()
    it.world.end(it.client, "client.pinger1", "ping", ConnectionClosed(Close(1000, "")), sends=True)


@story("end")
def the_end_has_another_code(it: Story) -> None:
    it.ends_with(4000)
    it.close(code=4000)
    it.world.end(it.server, "server.receiver1", "receive", ConnectionClosed(Close(4001, "")))


@story("end of channel")
def a_channel_ends_normally_after_another_end(it: Story) -> None:
    it.subscribe("server.channel1")
    it.ends_with(4000)
    it.close(code=4000)
    it.world.end(it.server, "server.channel1/0", "channel of message", trio.EndOfChannel())


@story("end")
def a_message_comes_after_the_end(it: Story) -> None:
    numbers = it.send()
    it.close()
    it.world.end(it.server, "server.receiver1", "receive", trio.EndOfChannel())
    it.take(it.receive, *numbers)


@story("lost")
def what_was_kept_when_this_side_closed_is_lost(it: Story) -> None:
    it.send(fate="unsure")
    it.server.waiting_at_close = 1
    it.world.closing(it.server, "finish", 1000)


@story("finish event")
def nobody_is_told_that_it_ended(it: Story) -> None:
    it.server.finish_observers.append("observer")
    it.close()


@story("finish event")
def somebody_is_told_twice_that_it_ended(it: Story) -> None:
    it.server.finish_observers.append("observer")
    it.server.finishes += [("observer", Close(1000, ""))] * 2
    it.close()


@story("drain callback")
def a_drain_callback_is_not_called(it: Story) -> None:
    it.take(it.receive, *it.send(calls=0))
    it.close()


@story("drain callback")
def a_drain_callback_is_called_twice(it: Story) -> None:
    it.take(it.receive, *it.send(calls=2))
    it.close()


@story("exception")
def an_exception_is_lost(it: Story) -> None:
    it.world.crash("callback")
    it.close()


@story()
def an_exception_comes_out(it: Story) -> None:
    it.world.failed("nursery", ExceptionGroup("", [it.world.crash("callback")]))
    it.close()


@pytest.mark.parametrize(("tell", "kinds"), STORIES, ids=[tell.__name__ for tell, _ in STORIES])
async def test_story(tell: Telling, kinds: set[str]) -> None:
    it = Story()
    tell(it)
    assert it.kinds() == kinds


@pytest.mark.parametrize(("closes", "kinds"), [(False, {"lost"}), (True, set())])
async def test_what_was_read_from_the_stream_is_received_whatever_the_end(closes: bool, kinds: set[str]) -> None:
    it = Story("kill", "reset", "memory")
    [number] = it.send()
    it.ends_with(1006)
    payload = it.client.sent[number].payload
    assert isinstance(payload, str)
    it.server.chunks.append((it.world.tick(), build_frame(1, 0, 0, 0, 1, payload.encode(), masked=True)))
    if closes:
        it.world.closing(it.server, "finish", 1006)
    assert it.kinds() == kinds


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        ([(1, 0, 1, b"[9, 0]")], "torn"),  # which nobody has sent
        ([(0, 0, 1, b"[1"), (1, 0, 1, b", 0]")], "torn"),
        ([(1, 0, 8, b"\x03\xe9")], "close code"),
    ],
)
async def test_the_wire_is_read_beside_the_library(frames: list[Any], found: str) -> None:
    it = Story(transport="memory")
    it.take(it.receive, *it.send())
    it.close()
    data = b"".join(build_frame(fin, rsv, 0, 0, code, payload, masked=True) for fin, rsv, code, payload in frames)
    it.server.chunks.append((it.world.tick(), data))
    assert it.kinds() == {found}


# The wire


def _frame(first: int, payload: bytes = b"", masked: bool = True) -> bytes:
    return build_frame(first & 0x80, first & 0x40, first & 0x20, first & 0x10, first & 0x0F, payload, masked=masked)


def test_messages_and_control_frames_are_read() -> None:
    parts = [_frame(0x01, b"a" * 200), _frame(0x89), _frame(0x80, b"b"), _frame(0x82, bytes(70_000)), _frame(0x88)]
    data = b"".join(parts)
    items = list(items_of(data + _frame(0x8A), True))
    assert [(item.kind, len(item.payload)) for item in items] == [
        *(("ping", 0), ("text", 201), ("binary", 70_000), ("close", 0)),
        ("pong", 0),  # of a ping that came before the peer's Close
    ]
    assert items[3].end == len(data)
    for end in range(0, len(data), 997):
        assert [item for item in items if item.end <= end] == list(items_of(data[:end], True))


@pytest.mark.parametrize(
    "data",
    [
        _frame(0x81, masked=False),
        _frame(0x80),
        _frame(0x01) + _frame(0x81),
        _frame(0x01) + _frame(0xC0),
        _frame(0x83),
        _frame(0xA1),
        _frame(0x8B),
        _frame(0x09),
        _frame(0xC9),
        _frame(0x89, bytes(126)),
        _frame(0x88) + _frame(0x81),
        _frame(0x88) + _frame(0x89),
    ],
    ids=lambda data: f"{data[0]:02x} {len(data)}",  # The keys of the masks are random.
)
def test_what_is_torn_is_not_read(data: bytes) -> None:
    with pytest.raises(Torn):
        list(items_of(data, True))


# The command


def _verdict(seed: int, transport: str | None, wrong: bool) -> Verdict:
    plan = draw(seed, transport)
    wrongs = [Wrong("lost", "a message")] if wrong else []
    return Verdict(plan, wrongs, ["what happened"], 1, [])


def test_the_command_shows_the_seeds_that_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run", lambda plan: _verdict(plan.seed, plan.transport, plan.seed == 3))
    monkeypatch.setattr("sys.argv", ["stress", "--count", "5", "--transport", "tls"])
    with pytest.raises(SystemExit, match="1"):
        command.main()
    shown = capsys.readouterr().out
    assert "seed 3 over tls" in shown
    assert "what happened" in shown
    assert "nox -s stress -- 3 --transport tls" in shown
    assert "5 seeds, 1 failed\n  lost: 1\n" in shown
    assert "seed 2 over" not in shown


def test_the_command_runs_one_seed_as_often_as_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[int] = []

    def count(plan: Plan) -> Verdict:
        runs.append(plan.seed)
        return _verdict(plan.seed, plan.transport, False)

    monkeypatch.setattr(command, "run", count)
    monkeypatch.setattr("sys.argv", ["stress", "7", "--repeat", "3"])
    command.main()
    assert runs == [7, 7, 7]
    assert capsys.readouterr().out == "1 seeds, 0 failed\n"


def test_a_failing_plan_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = draw(5, "memory")
    culprit = next(actor.name for actor in plan.actors if actor.kind == "sender")

    def fails(plan: Plan) -> Verdict:
        return _verdict(plan.seed, plan.transport, culprit in {actor.name for actor in plan.actors})

    monkeypatch.setattr(command, "run", fails)
    left = {actor.name for actor in command.smaller(plan, "lost").actors}
    assert left == {culprit, "client.receiver1", "server.receiver1"}
