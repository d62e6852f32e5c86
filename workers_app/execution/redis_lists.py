"""Makes Kombu's transport on Redis lists cheaper in a worker's main process; it stays Kombu's, with the same commands.

**Acknowledgements.** Each is an exchange with the server of its own, a fifth of the time that the main process has for
a short run (measured). Permits are answered by the dozen, so what was answered together is taken off in one
transaction. RabbitMQ is told without waiting for an answer, and our transport on streams gathers by itself: there each
one goes its usual way.

**Clients.** The transport makes a client object for each command, another sixth. A client only holds the pool of
connections, so one serves for as long as its channel has that pool.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger(__name__)


def acknowledge_all(requests: Sequence[Any]) -> None:
    """As `acknowledge` of each of these Celery requests: a connection that broke is logged, and seen by the loop."""
    together: dict[Any, list[Any]] = {}
    for request in requests:
        if request.acknowledged:
            continue
        if _on_lists(request.message.channel):
            together.setdefault(request.message.channel, []).append(request)
        else:
            request.acknowledge()
    for channel, some in together.items():
        _take_off(channel, some)


def keep_client(channel: Any) -> None:
    """Let a channel on Redis lists use one client; any other is left as it is."""
    if not _on_lists(channel):
        return
    make = channel._create_client
    of_pool: dict[Any, Any] = {}

    def kept(asynchronous: bool = False) -> Any:
        if asynchronous:
            return make(asynchronous=True)
        if channel.pool not in of_pool:
            of_pool.clear()
            of_pool[channel.pool] = make()
        return of_pool[channel.pool]

    channel._create_client = kept


def _on_lists(channel: Any) -> bool:
    """Whether it belongs to Kombu's transport on Redis lists, which keeps a table of what is not acknowledged."""
    from kombu.transport.redis import QoS

    return isinstance(getattr(channel, "qos", None), QoS)


def _take_off(channel: Any, requests: Sequence[Any]) -> None:
    qos = channel.qos
    tags = [request.message.delivery_tag for request in requests]
    try:
        with channel.conn_or_acquire() as client:
            client.pipeline().zrem(qos.unacked_index_key, *tags).hdel(qos.unacked_key, *tags).execute()
    except requests[0]._connection_errors as error:
        logger.critical("deliveries could not be acknowledged", extra={"count": len(tags), "error": repr(error)})
    else:
        for request in requests:
            qos._quick_ack(request.message.delivery_tag)
            request.message._state = "ACK"
    for request in requests:
        request.acknowledged = True
