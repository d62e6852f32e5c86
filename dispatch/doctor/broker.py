"""The broker takes a connection, with the address and the credentials that dispatchers use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.utils.translation import gettext as _

from dispatch.broker import BrokerAway, from_url
from dispatch.doctor.findings import Finding, Severity
from workers_app.celery_app import broker_url

ANSWER_SECONDS: Final = 3.0


class Broker:
    """Connected to as a dispatcher does it."""

    name = "broker"
    needs_database = False

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        try:
            broker = from_url(broker_url(), confirm_seconds=ANSWER_SECONDS)
        except ValueError as error:
            yield Finding("broker.unknown", Severity.ERROR, str(error), _("Correct the broker's address."))
            return
        try:
            broker.declare(())
        except BrokerAway as error:
            yield Finding(
                "broker.away", Severity.ERROR,
                _("The broker does not answer: %(reason)s") % {"reason": str(error)[:300]},
                _("Start the broker. Nothing is lost; runs go on by themselves when it is back."),
            )  # fmt: skip
        finally:
            broker.close()
