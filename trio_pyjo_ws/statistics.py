"""What ``statistics()`` returns for a transaction and for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from ._engine.connection import Connection

__all__ = ["ServerStatistics", "Totals", "TransactionStatistics"]


class TransactionStatistics(NamedTuple):
    """What :meth:`Transaction.statistics` returns. Counting begins at the end of the opening handshake."""

    state: str
    """``"connecting"``, ``"open"``, ``"closing"``, ``"closed"``, ``"failed"`` or ``"ended"``."""
    messages_waiting: int
    """Messages that have arrived and were not yet taken by ``receive()``."""
    bytes_unsent: int
    """Bytes that wait for the kernel to take them."""
    tasks_waiting_receive: int
    """Tasks that wait in ``receive()`` or for a piece of a message: none or one."""
    tasks_waiting_send: int
    """Tasks that wait in ``send()`` or ``drain()``."""
    pings_waiting: int
    """Pings whose pong has not come."""
    latency: float | None
    """Seconds that the last pong took, None before the first."""
    latencies: tuple[float, ...]
    """Seconds that the last pongs took, at most 16, the oldest first."""
    messages_received: int
    """Messages that have arrived, including those that wait."""
    messages_sent: int
    """Messages that were sent, including those that wait to be written."""
    bytes_received: int
    """Bytes of frames that have arrived, without what TLS adds."""
    bytes_sent: int
    """Bytes of frames that the kernel has taken."""
    compression_received: tuple[int, int]
    """Bytes of compressed messages that have arrived, before and after inflation."""
    compression_sent: tuple[int, int]
    """Bytes of messages that were sent compressed, before and after deflation."""

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Those of ``connection``, as they are now."""
        protocol, inbox, outbox = connection.protocol, connection.inbox, connection.outbox
        heartbeat = connection.heartbeat
        deflate = protocol.deflate
        return cls(
            state=protocol.state.value,
            messages_waiting=len(inbox.messages),
            bytes_unsent=outbox.queued,
            tasks_waiting_receive=int(inbox.task is not None),
            tasks_waiting_send=outbox.tasks_waiting + (outbox.writing and not outbox.in_background),
            pings_waiting=heartbeat.pings,
            latency=heartbeat.latencies[-1] if heartbeat.latencies else None,
            latencies=heartbeat.latencies,
            messages_received=connection.messages_received,
            messages_sent=protocol.messages_sent,
            bytes_received=connection.bytes_received,
            bytes_sent=outbox.sent,
            compression_received=(0, 0) if deflate is None else deflate.decompressed,
            compression_sent=(0, 0) if deflate is None else deflate.compressed,
        )


class ServerStatistics(NamedTuple):
    """What :meth:`Server.statistics` returns. Counting begins at the start, and covers all connections."""

    connections_open: int
    """Connections that are open."""
    connections_opening: int
    """Connections in the opening handshake, or in that of TLS."""
    connections_accepted: int
    """Connections that were accepted."""
    connections_opened: int
    """Connections whose opening handshake succeeded."""
    messages_waiting: int
    """Messages that have arrived and were not yet taken by ``receive()``."""
    bytes_unsent: int
    """Bytes that wait for the kernel to take them."""
    latency: float | None
    """The longest of the open connections' last latencies, in seconds; None before the first pong."""
    messages_received: int
    """Messages that have arrived, including those that wait."""
    messages_sent: int
    """Messages that were sent, including those that wait to be written."""
    bytes_received: int
    """Bytes of frames that have arrived, without what TLS adds."""
    bytes_sent: int
    """Bytes of frames that the kernel has taken."""
    compression_received: tuple[int, int]
    """Bytes of compressed messages that have arrived, before and after inflation."""
    compression_sent: tuple[int, int]
    """Bytes of messages that were sent compressed, before and after deflation."""


class Totals:
    """What a server counts: its connections, and what the ended ones had counted in the end."""

    def __init__(self) -> None:
        self.accepted = 0
        self.opened = 0
        self._counts = [0] * 8

    def add(self, ended: TransactionStatistics) -> None:
        """A connection that was open has ended."""
        self._counts = _sum(self._counts, ended)

    def statistics(self, connections: Sequence[TransactionStatistics], opening: int) -> ServerStatistics:
        """The sums, with those of the open ``connections``, beside ``opening`` more."""
        counts = self._counts
        for connection in connections:
            counts = _sum(counts, connection)
        return ServerStatistics(
            connections_open=len(connections),
            connections_opening=opening,
            connections_accepted=self.accepted,
            connections_opened=self.opened,
            messages_waiting=sum(connection.messages_waiting for connection in connections),
            bytes_unsent=sum(connection.bytes_unsent for connection in connections),
            latency=max((one.latency for one in connections if one.latency is not None), default=None),
            messages_received=counts[0],
            messages_sent=counts[1],
            bytes_received=counts[2],
            bytes_sent=counts[3],
            compression_received=(counts[4], counts[5]),
            compression_sent=(counts[6], counts[7]),
        )


def _sum(counts: list[int], one: TransactionStatistics) -> list[int]:
    counted = (one.messages_received, one.messages_sent, one.bytes_received, one.bytes_sent)
    more = (*counted, *one.compression_received, *one.compression_sent)
    return [count + another for count, another in zip(counts, more, strict=True)]
