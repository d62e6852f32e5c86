"""Prometheus metrics of workers."""

from prometheus_client import Counter, Gauge

PERMITS_REFUSED = Counter("signalbox_permits_refused", "Deliveries that got no permit, by reason.", ["reason"])
RENEWALS = Counter("signalbox_lease_renewals", "Lease renewals, by what came of them.", ["answer"])
LEASE_LEFT = Gauge("signalbox_lease_left_seconds", "Seconds until this worker ends its bodies unless it renews.")
UNSETTLED = Gauge("signalbox_outcomes_unsettled", "Outcomes that are not known to be recorded.")
REPORTS_PUBLISHED = Counter("signalbox_reports_published", "Reports that the broker confirmed.")
REPORTS_FAILED = Counter("signalbox_report_batches_failed", "Report batches that the broker did not confirm.")
HANDED_IN = Counter("signalbox_outcomes_handed_in", "Outcomes given to the control plane directly.")
BODIES_ENDED = Counter("signalbox_bodies_ended", "Bodies that the platform stopped, by reason.", ["reason"])
CHILDREN_LOST = Counter("signalbox_children_lost", "Pool children that died with an attempt.")
FRAMES_FAILED = Counter("signalbox_child_frames_failed", "Messages of pool children that could not be taken.")
TELEMETRY_DROPPED = Counter(
    "signalbox_telemetry_dropped", "Logs and progress that found no room while the broker was away."
)
