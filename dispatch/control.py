"""Quick messages to workers by Celery's remote control: only to make it quick, the fact is in the database.

A message that is lost costs some seconds: the worker's next renewal tells it the same. So nothing here waits long, and
nothing here raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kombu import Connection
from kombu.pidbox import Mailbox

from workers_app.celery_app import broker_url

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 1.0
SOCKET_SECONDS: Final = 2.0

#: (worker id, command, arguments)
Message = tuple[str, str, dict[str, Any]]

_diverted_to: Callable[[Collection[Message]], None] | None = None

#: Where Celery's workers listen (`control_exchange`, its default).
_MAILBOX: Final = Mailbox("celery", type="fanout", accept=["json"], serializer="json")


def node_name(worker_id: str) -> str:
    """Celery's name of a worker."""
    return f"signalbox@{worker_id}"


def by_worker(runs: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    """(run id, worker id) pairs as run ids by worker."""
    grouped: dict[str, list[int]] = {}
    for run_id, worker_id in runs:
        if worker_id:
            grouped.setdefault(worker_id, []).append(run_id)
    return grouped


def cancel(run_ids_by_worker: Mapping[str, Collection[int]]) -> None:
    """Tell workers to stop these runs' bodies now."""
    _send(
        [
            (worker_id, "task.control.cancel", {"runs": [{"run_id": run_id} for run_id in sorted(run_ids)]})
            for worker_id, run_ids in run_ids_by_worker.items()
            if run_ids
        ]
    )


def drain(worker_id: str) -> None:
    """Tell a worker that it was asked to take no more work."""
    _send([(worker_id, "task.control.drain", {})])


def resume(worker_id: str) -> None:
    """Tell a worker that it may take work again."""
    _send([(worker_id, "task.control.resume", {})])


@contextmanager
def diverted(to: Callable[[Collection[Message]], None]) -> Iterator[None]:
    """Messages go there and not to the broker for as long as this lasts: a test must not reach anybody's workers."""
    global _diverted_to
    before, _diverted_to = _diverted_to, to
    try:
        yield
    finally:
        _diverted_to = before


def _send(messages: Collection[Message]) -> None:
    if not messages:
        return
    if _diverted_to is not None:
        _diverted_to(messages)
        return
    url = broker_url()
    amqp = url.startswith(("amqp", "pyamqp"))
    timeouts = (
        {"read_timeout": SOCKET_SECONDS, "write_timeout": SOCKET_SECONDS}
        if amqp
        else {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
    )
    try:
        with Connection(url, connect_timeout=CONNECT_SECONDS, transport_options=timeouts) as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
            bound = _MAILBOX(connection)
            for worker_id, command, arguments in messages:
                bound._broadcast(command, arguments, destination=[node_name(worker_id)], reply=False)
    except Exception as error:  # noqa: BLE001  (best effort by design: the worker's renewal brings the same news)
        logger.info("control message not sent", extra={"error": f"{type(error).__name__}: {error}"})
