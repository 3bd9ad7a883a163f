"""The broker of rooms that many processes share: Redis or Valkey, by coredis. The extra ``redis`` installs it.

A room is four kinds of keys, under a prefix that has the number of the database (publishing knows no databases):

=====================  =======================================================================================
``…{room}:meta``       hash: epoch ``e``, number ``n`` of the last message, ``r`` the run of the server that
                       the epoch belongs to, ``p`` the epoch before and ``b`` the number at which that ended
``…{room}:stream``     stream: the last messages, each with its number as its ID; only if there is a history
``…{room}:here``       set: the sessions that have people in the room
``…{room}:here:SID``   set: the people of one session
``…session:SID``       string with a time to live: the lease of a session
=====================  =======================================================================================

*One script publishes*: it counts, keeps, and publishes, so numbers and messages have one order for everybody.

*One connection carries everything*, by RESP3: what is asked and what is published. So a reply is in order with the
subscriptions around it, and requests of one moment go as one pipeline. coredis opens the connection, packs and parses.
Nothing of its client, its pool and its subscriber is used: with their defaults they are deaf after a silent network,
forget their handlers at a reconnect, lose a place in the pool with each cancelled wait, and publish twice.

*A session* is the life of one connection. Whatever ends it, the broker makes another one, and every audience
attaches again: it subscribes, and asks for what it has missed. The server is asked for a sign of life every
:data:`BEAT` seconds, and silence of :data:`SILENCE` seconds ends a session.

*An epoch ends* whenever its key is made anew and whenever the server has started again, because it may have come back
with less than it had. Positions of the epoch before hold up to the number at which that ended. If a process knows of a
message beyond it, the server has forgotten some, and a fresh epoch has every process close its members.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from functools import partial
from hashlib import sha1
from itertools import islice
from secrets import SystemRandom, token_hex
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import trio

from .._engine.failures import first_of, separate
from ..errors import Missed, RoomsUnavailable
from ..rooms.positions import Event, Position

try:
    from coredis.exceptions import RedisError
    from coredis.pool import ConnectionPool
except ImportError as error:
    raise ImportError("coredis is missing: pip install 'trio-pyjo-ws[redis]'") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from coredis.connection import BaseConnection

    from ..rooms.audience import Audience

__all__ = ["RedisBroker"]

logger = logging.getLogger("trio_pyjo_ws")

PATIENCE = 5.0
"""Seconds for which a caller waits for the server."""

BEAT = 1.5
"""Seconds between two signs of life that are asked for."""

SILENCE = 5
"""Seconds without a byte of the server's after which the connection is given up."""

CONNECTING = 3.0
"""Seconds for a connection."""

FIRST_DELAY, MAX_DELAY = 0.1, 2.0
"""Seconds before a connection is tried again, and the most."""

HEALTHY = 10.0
"""Seconds after which a connection that ends has been well."""

PAGE = 64
"""Messages that are fetched at a time: at most 16 MiB of the usual size."""

SOME = 1000
"""Keys, names and channels that go into one command."""

T = TypeVar("T")

_jitter = SystemRandom()

_CURRENT = """
local function current(fresh, run)
  local m = redis.call('HMGET', KEYS[1], 'e', 'n', 'r')
  if not m[1] then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'e', fresh, 'n', 0, 'r', run, 'p', '', 'b', 0)
    return fresh, 0
  end
  if m[3] ~= run then
    redis.call('HSET', KEYS[1], 'p', m[1], 'b', m[2], 'e', fresh, 'r', run)
    return fresh, tonumber(m[2])
  end
  return m[1], tonumber(m[2])
end
"""

# KEYS: meta, stream, channel. ARGV: a fresh epoch, run, milliseconds to keep, history, message
PUBLISH = f"""{_CURRENT}
local e = current(ARGV[1], ARGV[2])
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
if ARGV[4] ~= '0' then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], n .. '-0', 'm', ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', KEYS[3], e .. '.' .. n .. ' ' .. ARGV[5])
return e .. '.' .. n
"""

# KEYS: meta, stream. ARGV: a fresh epoch, run, milliseconds to keep, page, epoch and number of what is known already,
# whether the server is known to have sent that. Returns the position of the last message, whether the known one
# belongs to it, and the messages between.
SINCE = f"""{_CURRENT}
local e, n = current(ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[5] == '' then return {{e .. '.' .. n, 1, {{}}}} end
local m, after = redis.call('HMGET', KEYS[1], 'p', 'b'), tonumber(ARGV[6])
if (ARGV[5] == e and after <= n) or (ARGV[5] == m[1] and after <= tonumber(m[2])) then
  local found = {{}}
  if after < n then found = redis.call('XRANGE', KEYS[2], (after + 1) .. '-0', '+', 'COUNT', ARGV[4]) end
  return {{e .. '.' .. n, 1, found}}
end
if ARGV[7] == '1' and (ARGV[5] == m[1] or ARGV[5] == e) then
  e = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', e, 'p', '')
end
return {{e .. '.' .. n, 0, {{}}}}
"""

# KEYS: here, here of this session. ARGV: session, milliseconds to keep, people
ENTER = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[2], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

# KEYS: here. ARGV: prefix of the sessions
WHO = """
local found = {}
for _, session in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local here = KEYS[1] .. ':' .. session
  if redis.call('EXISTS', ARGV[1] .. session) == 1 then
    for _, who in ipairs(redis.call('SMEMBERS', here)) do found[#found + 1] = who end
  else
    redis.call('SREM', KEYS[1], session)
    redis.call('DEL', here)
  end
end
return found
"""

# KEYS: those to keep. ARGV: milliseconds to keep
TOUCH = "for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end"

# KEYS: session. ARGV: milliseconds of the lease
RENEW = "return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1], 'XX')"

SCRIPTS = {
    script: sha1(script.encode()).hexdigest()  # noqa: S324 - what the server calls a script
    for script in (PUBLISH, SINCE, ENTER, WHO, TOUCH, RENEW)
}


class _Session:
    """The life of one connection."""

    def __init__(self, connection: BaseConnection) -> None:
        self._connection = connection
        self.name = token_hex(8).encode()
        self.run = ""
        """The run of the server."""
        self._unwatched: list[Awaitable[Any]] = []

    async def open(self, nursery: trio.Nursery) -> None:
        """Connect, ask for the run of the server, and load the scripts."""
        await nursery.start(self._connection.run)
        for script in SCRIPTS:
            self.later(b"SCRIPT LOAD", script)
        found = re.search(rb"^run_id:(\w+)", await self.ask(b"INFO", b"server"), re.MULTILINE)
        self.run = "" if found is None else found[1].decode()
        await self.settle()

    async def ask(self, command: bytes, *arguments: Any) -> Any:
        """Send a command and return its reply. Cancelled, the reply is passed over."""
        return await self._connection.create_request(command, *arguments, decode=False)

    def later(self, command: bytes, *arguments: Any) -> None:
        """Send a command whose reply nobody waits for: an error in it ends the session at the next beat."""
        self._unwatched.append(self._connection.create_request(command, *arguments, decode=False))

    async def settle(self) -> None:
        """Wait for the replies that nobody has waited for, and raise the first error in them."""
        unwatched, self._unwatched = self._unwatched, []
        for request in unwatched:
            await request

    def command(self, command: bytes, *arguments: Any) -> None:
        """Send a command that has no reply: subscribe, or unsubscribe."""
        self._connection.send_command(command, *arguments)

    def pushes(self) -> AsyncIterator[Any]:
        """What the server sends without being asked, until the connection ends, which raises."""
        return self._connection.push_messages

    def end(self) -> None:
        """Give the connection up."""
        self._connection.invalidate()

    async def call(self, script: str, keys: list[bytes], *arguments: Any) -> Any:
        """Call a script and return its reply."""
        return await self.ask(b"EVALSHA", SCRIPTS[script], len(keys), *keys, *arguments)


class RedisBroker:
    """The order of the rooms is that of the server's; see the module."""

    def __init__(self, url: str, audiences: dict[str, Audience], history: int, keep: float, lease: float) -> None:
        self._pool = _parse(url)
        self._prefix = b"trio_pyjo_ws:%d:" % (self._pool.connection_kwargs.get("db") or 0)
        self._audiences = audiences
        self._history = history
        self._keep = max(1, round(keep * 1000))
        self._lease = max(1, round(lease * 1000))
        self._session: _Session | None = None
        self._opened = trio.Event()
        self._sessions = 0
        self._failure: BaseException | None = None
        self._scope = trio.CancelScope(shield=True)

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    @property
    def reconnections(self) -> int:
        """Sessions after the first."""
        return max(0, self._sessions - 1)

    async def open(self, nursery: trio.Nursery) -> None:
        """Have sessions until :meth:`aclose`. Raises RoomsUnavailable if the first does not begin."""
        nursery.start_soon(self._run, name=f"rooms at {self._pool.location}")
        with trio.move_on_after(PATIENCE):
            await self._wait_for_session()
            return
        reason = self._failure or f"no answer within {PATIENCE:g} seconds"
        raise RoomsUnavailable(f"cannot open rooms at {self._pool.location}: {reason}")

    async def aclose(self) -> None:
        """End the session, and its lease with it. A checkpoint."""
        session = self._session
        if session is not None:
            with suppress(Exception):  # It ends on its own, then.
                await session.ask(b"DEL", self._session_key(session))
        self._scope.cancel()

    # What rooms ask

    async def attach(self, audience: Audience) -> None:
        """Have the audience told what is published, by the present session. Raises RoomsUnavailable."""
        await self._ask(partial(self._attach, audience))

    def detach(self, audience: Audience) -> None:
        """Unsubscribe, even if :meth:`attach` was cancelled: the server may have been asked to subscribe."""
        session = self._session
        if session is not None:
            with suppress(RedisError):  # The session is about to end.
                session.command(b"UNSUBSCRIBE", self._key(audience.name))

    async def publish(self, name: str, message: str | bytes) -> Position:
        """Publish once. Raises RoomsUnavailable."""
        keys = [self._key(name, b":meta"), self._key(name, b":stream"), self._key(name)]
        data = b"t" + message.encode() if isinstance(message, str) else b"b" + message

        async def publish(session: _Session) -> bytes:
            reply: bytes = await session.call(PUBLISH, keys, token_hex(8), session.run, self._keep, self._history, data)
            return reply

        return Position.parse((await self._ask(publish)).decode())

    async def replay(self, audience: Audience, after: Position) -> list[Event]:
        """The messages behind ``after``, up to what is delivered now. Raises Missed and RoomsUnavailable."""
        until = audience.delivered
        assert until is not None
        _, events = await self._ask(partial(self._since, audience.name, after, own=False))
        if events is None:
            raise Missed(f"not all messages after {after} are kept")
        return [event for event in events if event.position.number <= until.number]

    async def enter(self, audience: Audience, who: str) -> None:
        """Somebody is present. Raises RoomsUnavailable."""
        await self._ask(partial(self._enter, audience.name, [who]))

    def leave(self, audience: Audience, who: str) -> None:
        """Nobody of that name is left in the room here."""
        session = self._session
        if session is not None:
            with suppress(RedisError):  # The session is about to end, and its lease.
                session.later(b"SREM", self._here_key(audience.name, session), who)

    async def who(self, name: str) -> set[str]:
        """Who is present. Raises RoomsUnavailable."""

        async def ask(session: _Session) -> list[bytes]:
            reply: list[bytes] = await session.call(WHO, [self._key(name, b":here")], self._prefix + b"session:")
            return reply

        return {who.decode() for who in await self._ask(ask)}

    async def _ask(self, what: Callable[[_Session], Awaitable[T]]) -> T:
        """Ask the server, when there is a session. Raises RoomsUnavailable."""
        await trio.lowlevel.checkpoint_if_cancelled()
        asked = False
        with trio.move_on_after(PATIENCE):
            session = await self._wait_for_session()
            asked = True
            try:
                return await what(session)
            except Exception as exc:  # coredis raises what ended the connection, whatever it was.
                raise RoomsUnavailable(f"the broker has failed: {str(exc) or type(exc).__name__}") from exc
        how = "the broker has not answered" if asked else "no connection to the broker, nothing sent"
        raise RoomsUnavailable(f"{how} within {PATIENCE:g} seconds")

    async def _wait_for_session(self) -> _Session:
        while self._session is None:
            await self._opened.wait()
        return self._session

    # Sessions

    async def _run(self) -> None:
        delay = FIRST_DELAY
        with self._scope:
            while True:
                before, began = self._sessions, trio.current_time()
                try:
                    await self._run_session()
                except BaseException as exc:
                    failure, passing = separate(exc)
                    if passing is not None:
                        raise passing from None
                    assert failure is not None
                    self._failure = first_of(failure)
                if self._sessions > before:
                    if trio.current_time() - began > HEALTHY:
                        delay = FIRST_DELAY
                    logger.warning("the rooms have lost their connection to %s: %s", self._pool.location, self._failure)
                await trio.sleep(_jitter.uniform(delay / 2, delay))
                delay = min(2 * delay, MAX_DELAY)

    async def _run_session(self) -> None:
        location = self._pool.location
        assert location is not None
        # First: a connection that cannot be made leaves memory streams of coredis' open, and a traceback in its log.
        reachable = False
        with trio.move_on_after(CONNECTING):
            reachable = await location.check()
        if not reachable:
            raise OSError("it cannot be connected to")
        session = _Session(self._pool.connection_class(location, **self._pool.connection_kwargs))
        async with trio.open_nursery() as nursery:
            await session.open(nursery)
            await session.ask(b"SET", self._session_key(session), b"1", b"PX", self._lease)
            try:
                self._session = session
                self._sessions += 1
                self._opened.set()
                nursery.start_soon(self._beat, session)
                for audience in self._audiences.values():
                    nursery.start_soon(self._resume, audience, session)
                async for push in session.pushes():
                    if push[0] == b"message":
                        self._take(push[1], push[2], session, nursery)
            finally:
                self._session = None
                self._opened = trio.Event()

    async def _beat(self, session: _Session) -> None:
        """Ask for a sign of life, which renews the lease, and have the server keep the rooms that have members."""
        pause = min(BEAT, self._lease / 3000, self._keep / 3000)
        touched = trio.current_time()
        while True:
            await trio.sleep(pause)
            if await session.call(RENEW, [self._session_key(session)], self._lease) is None:
                raise TimeoutError(f"the lease of {self._lease} ms has lapsed")
            await session.settle()
            if trio.current_time() >= touched + self._keep / 3000:
                touched = trio.current_time()
                await self._touch(session)

    async def _touch(self, session: _Session) -> None:
        keys = (
            key
            for name in tuple(self._audiences)
            for key in (
                *(self._key(name, kind) for kind in (b":meta", b":stream", b":here")),
                self._here_key(name, session),
            )
        )
        while some := list(islice(keys, SOME)):
            await session.call(TOUCH, some, max(self._keep, self._lease))

    def _take(self, channel: bytes, data: bytes, session: _Session, nursery: trio.Nursery) -> None:
        """Something was published."""
        audience = self._audiences.get(channel[len(self._prefix) + 1 : -1].decode())
        if audience is None:
            return  # Left meanwhile.
        position, _, message = data.partition(b" ")
        try:
            event = Event(Position.parse(position.decode()), _unpack(message))
        except ValueError:
            logger.warning("the rooms pass over what is published to %r and not by them", channel)
            return
        if not audience.take(event):
            nursery.start_soon(self._recover, audience, session)

    # Where an audience is

    async def _resume(self, audience: Audience, session: _Session) -> None:
        await self._attach(audience, session)
        people = iter(tuple(audience.people))
        while some := list(islice(people, SOME)):
            await self._enter(audience.name, [who for who in some if who in audience.people], session)

    async def _attach(self, audience: Audience, session: _Session) -> None:
        async with audience.lock:
            # It may be attached since, or left.
            if audience.attached is not session and self._audiences.get(audience.name) is audience:
                audience.hold()
                session.command(b"SUBSCRIBE", self._key(audience.name))
                try:
                    await self._replay_missed(audience, session)
                except Exception:
                    session.end()  # If subscribing was refused, that was taken for the reply to what came behind it.
                    raise
                audience.attached = session

    async def _recover(self, audience: Audience, session: _Session) -> None:
        """There is a hole in what was published. The audience holds what comes."""
        async with audience.lock:
            await self._replay_missed(audience, session)

    async def _replay_missed(self, audience: Audience, session: _Session) -> None:
        """Give an audience what it has missed, or have it close its members."""
        whole = False
        while not whole:
            position, events = await self._since(audience.name, audience.accepted, session, own=True)
            if events is None:
                whole = audience.lose(position, "messages were lost")
            else:
                whole = audience.settle(position, events)

    async def _since(
        self, name: str, after: Position | None, session: _Session, *, own: bool
    ) -> tuple[Position, list[Event] | None]:
        """Where a room is, and what was published since ``after``; None if that is not known any more.

        ``own``: this process was given ``after`` by the server.
        """
        keys = [self._key(name, b":meta"), self._key(name, b":stream")]
        epoch, number = ("", 0) if after is None else (after.epoch, after.number)
        events: list[Event] = []
        goal: int | None = None
        while True:
            reply = await session.call(
                SINCE, keys, token_hex(8), session.run, self._keep, PAGE, epoch, number, int(own)
            )
            position = Position.parse(reply[0].decode())
            if not reply[1]:
                return position, None
            epoch = position.epoch
            for identifier, fields in reply[2]:
                number += 1
                if identifier != b"%d-0" % number:
                    return position, None
                events.append(Event(Position(epoch, number), _unpack(fields[1])))
            goal = position.number if goal is None else goal
            if after is None or number >= goal:
                return position, events
            if not reply[2]:
                return position, None

    async def _enter(self, name: str, people: list[str], session: _Session) -> None:
        if people:
            keys = [self._key(name, b":here"), self._here_key(name, session)]
            await session.call(ENTER, keys, session.name, max(self._keep, self._lease), *people)

    # Keys

    def _key(self, name: str, kind: bytes = b"") -> bytes:
        return self._prefix + b"{" + name.encode() + b"}" + kind

    def _here_key(self, name: str, session: _Session) -> bytes:
        return self._key(name, b":here:" + session.name)

    def _session_key(self, session: _Session) -> bytes:
        return self._prefix + b"session:" + session.name


def _unpack(data: bytes) -> str | bytes:
    return data[1:].decode() if data[:1] == b"t" else data[1:]


def _parse(url: str) -> ConnectionPool[Any]:
    """What coredis makes of a URL. Raises ValueError, which does not quote it: it may have a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"URL scheme must be 'redis', 'rediss' or 'unix', not {parts.scheme!r:.60}")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("URL must have a host, or for 'unix' a path")
    if parts.scheme == "rediss" and "ssl_check_hostname" not in parse_qs(parts.query):
        url += f"{'&' if parts.query else '?'}ssl_check_hostname=true"  # coredis does not do so by itself
    return ConnectionPool.from_url(url, decode_components=True, connect_timeout=CONNECTING, max_idle_time=SILENCE)
