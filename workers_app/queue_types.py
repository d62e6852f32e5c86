"""Classic or quorum: which kind of queue the platform's are on RabbitMQ, and what to do about one that is of the other.

A quorum queue is kept by several nodes and survives the loss of one. The kind of a queue is settled when it is made;
RabbitMQ refuses a declaration that differs, and from then on whoever insists cannot work. So workers, dispatchers and
ingests look before they begin, and say which queue it is and how it is put right. Heartbeats stay in a classic queue:
what is out of date a minute later need not survive a node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from django.utils.translation import gettext as _
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

TYPES: Final = ("classic", "quorum")


class QueueTypeDiffers(Exception):
    """A queue exists on the broker and is of another type than the one that is configured."""


def arguments_of(queue_type: str) -> dict[str, Any] | None:
    """What a declaration says about the type; nothing for classic, as Celery's tools declare it."""
    return {"x-queue-type": "quorum"} if queue_type == "quorum" else None


def cure(queue: str, queue_type: str) -> str:
    """What an operator can do about a queue that is not of this type."""
    other = "classic" if queue_type == "quorum" else "quorum"
    return _(
        'queue "%(queue)s" exists on the broker and is not a %(wanted)s queue, which SIGNALBOX_WORKERS__QUEUE_TYPE '
        "asks for. Either stop the workers and ingests and delete it (rabbitmqctl delete_queue %(queue)s): what waited "
        "in it is sent or told again. Or set SIGNALBOX_WORKERS__QUEUE_TYPE=%(other)s for every process."
    ) % {"queue": queue, "wanted": queue_type, "other": other}


def require(connection: Connection, queues: Iterable[Queue], queue_type: str) -> None:
    """Declare each queue on RabbitMQ. Raises QueueTypeDiffers; a broker that is away says nothing and is no error."""
    if connection.transport.driver_type != "amqp":
        return
    away = (*connection.connection_errors, OperationalError, OSError)
    with contextlib.suppress(*away):
        connection.ensure_connection(max_retries=1, timeout=5)
        for queue in queues:
            with connection.channel() as channel:
                try:
                    queue(channel).declare()
                except connection.channel_errors as error:
                    if not differs(error):
                        raise
                    raise QueueTypeDiffers(cure(queue.name, queue_type)) from None


def differs(error: BaseException) -> bool:
    """Whether a refused declaration was about the type."""
    return "x-queue-type" in str(error)
