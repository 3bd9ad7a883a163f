"""What ``statistics()`` tells, of a transaction and of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ServerStatistics", "Totals", "TransactionStatistics"]


class TransactionStatistics(NamedTuple):
    """What :meth:`Transaction.statistics` tells. What is counted is counted from the end of the opening handshake."""

    state: str
    """``"connecting"``, ``"open"``, ``"closing"``, ``"closed"``, ``"failed"`` or ``"ended"``."""
    messages_waiting: int
    """Messages that were received and not yet taken by ``receive()``."""
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
    """Messages that have come, those that wait among them."""
    messages_sent: int
    """Messages that were sent, those that wait to be written among them."""
    bytes_received: int
    """Bytes that have come: frames, and not what TLS adds."""
    bytes_sent: int
    """Bytes of frames that the kernel has taken."""
    compression_received: tuple[int, int]
    """Bytes of compressed messages that have come, and what they were inflated to."""
    compression_sent: tuple[int, int]
    """Bytes of messages that were sent compressed, and what they were deflated to."""


class ServerStatistics(NamedTuple):
    """What :meth:`Server.statistics` tells. What is counted is counted from the start, over all connections."""

    connections_open: int
    """Connections that are open."""
    connections_opening: int
    """Connections in the opening handshake, or in TLS' own."""
    connections_accepted: int
    """Connections that were accepted."""
    connections_opened: int
    """Connections whose opening handshake succeeded."""
    messages_waiting: int
    """Messages that were received and not yet taken by ``receive()``."""
    bytes_unsent: int
    """Bytes that wait for the kernel to take them."""
    latency: float | None
    """The longest of the open connections' last latencies, in seconds; None where no pong has come."""
    messages_received: int
    """Messages that have come, those that wait among them."""
    messages_sent: int
    """Messages that were sent, those that wait to be written among them."""
    bytes_received: int
    """Bytes that have come: frames, and not what TLS adds."""
    bytes_sent: int
    """Bytes of frames that the kernel has taken."""
    compression_received: tuple[int, int]
    """Bytes of compressed messages that have come, and what they were inflated to."""
    compression_sent: tuple[int, int]
    """Bytes of messages that were sent compressed, and what they were deflated to."""


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
