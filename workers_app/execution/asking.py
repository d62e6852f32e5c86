"""Asking for permits until there is an answer, or no sense in it any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from tasks_app.lifecycle.facts import PermitAsk, Permitted, Refused
from workers_app.control_plane.port import ControlPlane, Unreachable

logger = logging.getLogger(__name__)

#: How long a control plane that does not answer is asked again.
ASK_SECONDS_MAX: Final = 30.0


def answers(
    control_plane: ControlPlane, incarnation_id: UUID, asks: Sequence[PermitAsk], *, worth_it: Callable[[], bool]
) -> list[Permitted | Refused] | None:
    """The control plane's answers in the order asked; None when they could not be had while it was worth it.

    The nonces make asking again harmless.
    """
    give_up, pause = time.monotonic() + ASK_SECONDS_MAX, 0.05
    while True:
        try:
            return control_plane.permit(incarnation_id, asks)
        except Unreachable as error:
            logger.warning("permits not answered", extra={"error": str(error), "asked": len(asks)})
            if time.monotonic() > give_up or not worth_it():
                return None
            time.sleep(pause)
            pause = min(2.0, pause * 2)
