"""All workers, and this process, run the same version of the code, as far as they were told one (CODE_VERSION)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

from django.utils.translation import gettext as _

from dispatch.doctor.findings import Finding, Severity
from workers_app.models import WorkerIncarnation


class VersionSkew:
    """Compares what live workers said at their start."""

    name = "version_skew"
    needs_database = True

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        by_version: dict[str, list[str]] = {}
        for version, worker in WorkerIncarnation.objects.live().values_list("code_version", "worker_id"):
            if version:
                by_version.setdefault(version, []).append(worker)
        if own := os.environ.get("CODE_VERSION", ""):
            by_version.setdefault(own, []).append(_("this process"))
        if len(by_version) > 1:
            said = "; ".join(f"{version}: {', '.join(who[:5])}" for version, who in sorted(by_version.items()))
            yield Finding(
                "version_skew.workers", Severity.WARNING,
                _("Different versions of the code are at work (%(versions)s).") % {"versions": said},
                _("Finish the roll-out: restart what runs the older version."),
            )  # fmt: skip
