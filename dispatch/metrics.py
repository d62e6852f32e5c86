"""Prometheus metrics of dispatcher and ingest. Labels are task types and short fixed words, never ids."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CLAIMED = Counter("signalbox_claimed_total", "Runs claimed for publishing", ["task_type"])
PUBLISHED = Counter("signalbox_published_total", "Messages that the broker confirmed")
UNCONFIRMED = Counter("signalbox_unconfirmed_total", "Messages taken back because the broker did not confirm them")
FIRED = Counter("signalbox_schedule_fires_total", "Nominal times decided on", ["decision"])
ROUNDS = Counter("signalbox_dispatch_rounds_total", "Looks at the database for due runs")
ROUND_SECONDS = Histogram(
    "signalbox_dispatch_round_seconds", "Duration of a round that claimed something, publishing included",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)  # fmt: skip
CLAIM_DELAY = Histogram(
    "signalbox_claim_delay_seconds", "From a run's due time to its claim",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 300, 3600),
)  # fmt: skip
LOOK_AHEAD = Gauge("signalbox_look_ahead", "Messages that may wait at the broker beyond free slots", ["task_type"])
BROKER_UP = Gauge("signalbox_broker_up", "1 while the broker takes messages, 0 while claims are held back")
DATABASE_UP = Gauge("signalbox_database_up", "1 while the database answers")

REAPED = Counter("signalbox_reaped_total", "What the reaper ended or took back", ["what"])
LEASES_OVER = Counter("signalbox_leases_over_total", "Worker incarnations judged over")
REAPER_TICKS = Counter("signalbox_reaper_ticks_total", "Rounds of the reaper", ["result"])

REPORTS = Counter("signalbox_ingest_reports_total", "Reports by kind and what became of them", ["kind", "result"])
POISONED = Counter("signalbox_ingest_poisoned_total", "Reports set aside", ["why"])
INGEST_BATCH = Histogram(
    "signalbox_ingest_batch_reports",
    "Reports applied in one batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
)
INGEST_SECONDS = Histogram(
    "signalbox_ingest_batch_seconds", "From having a batch to its acknowledgement",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)  # fmt: skip
