"""Configuration that nobody has confirmed.

What the platform's checks say for a deployment, as keys that a host made for itself; and workers that were started with
other values than this process has.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.core import checks
from django.utils.translation import gettext as _

from dispatch.doctor.findings import Finding, Severity
from workers_app.conf import conf
from workers_app.models import WorkerIncarnation


class Configuration:
    """The platform's own checks, by their ids; the lease that live workers were started with."""

    name = "configuration"
    needs_database = True

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        said = [found for found in checks.run_checks(include_deployment_checks=True) if not found.is_silenced()]
        for found in sorted(said, key=lambda one: -one.level):
            if str(found.id).startswith("signalbox.") and found.level >= checks.WARNING:
                severity = Severity.ERROR if found.level >= checks.ERROR else Severity.WARNING
                yield Finding(f"configuration.{found.id}", severity, str(found.msg), str(found.hint or ""))
        lease = conf().lease_seconds
        others = WorkerIncarnation.objects.live().exclude(lease_seconds=lease).values_list("worker_id", flat=True)
        if names := sorted(set(others)):
            yield Finding(
                "configuration.lease", Severity.WARNING,
                _("Workers were started with another lease than the %(seconds)g s configured here: %(workers)s.")
                % {"seconds": lease, "workers": ", ".join(names[:10])},
                _("Restart them, or give every process the same configuration."),
            )  # fmt: skip
