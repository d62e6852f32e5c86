"""The cache keeps what is put there: sign-in attempts are counted in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime

from django.core.cache import cache
from django.utils.translation import gettext as _

from dispatch.doctor.findings import Finding, Severity


class Cache:
    """Written and read."""

    name = "cache"
    needs_database = False

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        word = secrets.token_hex(8)
        remedy = _("Start it, or correct its address.")
        try:
            cache.set("signalbox:doctor", word, 10)
            kept = cache.get("signalbox:doctor")
        except Exception as error:  # noqa: BLE001  (each backend raises errors of its own)
            text = _("The cache does not answer: %(reason)s") % {"reason": type(error).__name__}
            yield Finding("cache.away", Severity.ERROR, text, remedy)
            return
        if kept != word:
            yield Finding("cache.forgets", Severity.ERROR, _("The cache does not keep what it is given."), remedy)
