"""A Kombu transport on Redis Streams, for any Celery app: import this package and use `redis-stream://` in its URL.

Kombu's stock Redis transport takes a message off a list and then writes it into a hash of what is not acknowledged: a
connection that is cut between the two loses the message, each message costs three exchanges, and what a dead consumer
held comes back after a timeout that must be longer than the longest task. Here each queue is a stream with one
consumer group:

* the server remembers what was read by whom in the very command that reads it, so that nothing can fall in between
* a read takes as many messages as the consumer may hold, an acknowledgement is sent for many at once
* a consumer that lives says so every few seconds; what a dead one held is taken over by the others, however long the
  tasks of the living take. There is no visibility timeout

As with every broker, a message may come twice (an acknowledgement can be lost): once the consumer has died, or the
connection was cut within `ACK_SECONDS` after it.

* `wire`        names of keys, what an entry looks like, and the commands on entries: no Kombu
* `liveness`    who is alive, what the dead held
* `settlement`  what was delivered and not acknowledged, and acknowledgements on their way
* `transport`   the channel and the transport that Kombu sees

Exchanges, bindings and fanout are those of the stock transport, and so are the options of its connections
(`socket_timeout`, `health_check_interval`, …). Options of its own, in `broker_transport_options`: `consumer_lease`
(seconds after which a silent consumer counts as dead), `read_batch` and `ack_batch` (messages). Priorities are ignored,
a stream keeps the order in which messages came. Needs Redis 6.2 or Valkey, with an eviction policy that leaves keys
alone (`noeviction`, as any broker does).
"""

from kombu.transport import TRANSPORT_ALIASES

SCHEME = "redis-stream"
#: With TLS, as `rediss` is to `redis`.
SCHEME_TLS = "rediss-stream"


def register() -> None:
    """Make the schemes known to Kombu. Importing this package does it."""
    TRANSPORT_ALIASES[SCHEME] = "dispatch.broker.redis_stream.transport:Transport"
    TRANSPORT_ALIASES[SCHEME_TLS] = "dispatch.broker.redis_stream.transport:TlsTransport"


register()

__all__ = ["SCHEME", "SCHEME_TLS", "register"]
