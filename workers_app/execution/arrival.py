"""A delivered message before anybody acts on it: verified, or refused with a word about why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tasks_app.messages.execution import Refusal, Ticket, verify
from tasks_app.messages.signing import KeyRing
from workers_app.metrics import PERMITS_REFUSED

logger = logging.getLogger(__name__)


def ticket_of(
    headers: Mapping[str, Any],
    function: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    delivery_info: Mapping[str, Any] | None,
    ring: KeyRing,
) -> Ticket | Refusal:
    """What a managed message says, after everything that is signed was compared; a refusal is logged and counted."""
    try:
        return verify(headers, function, args, kwargs, (delivery_info or {}).get("routing_key"), ring)
    except Refusal as refusal:
        PERMITS_REFUSED.labels(reason=refusal.reason).inc()
        extra = {"reason": refusal.reason, "detail": str(refusal), "celery_id": headers.get("id")}
        logger.warning("message refused", extra=extra)
        return refusal
