"""Celery tasks that acceptance tests run."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Task, shared_task

from workers_app.job import current_job


@shared_task(name="tests.add")
def add(a: int, b: int) -> int:
    """Add and say so."""
    print(f"adding {a} and {b}")
    return a + b


@shared_task(name="tests.out_of_memory")
def out_of_memory() -> None:
    """As a body that asks for more than there is."""
    raise MemoryError("too much")


@shared_task(name="tests.fail")
def fail(message: str = "no luck") -> None:
    """Always fails."""
    raise RuntimeError(message)


@shared_task(name="tests.sleep")
def sleep(seconds: float) -> str:
    """Sleep in small steps, without ever looking whether it should stop."""
    print(f"sleeping in process {os.getpid()}.")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)
    return "woke up"


@shared_task(name="tests.polite_sleep")
def polite_sleep(seconds: float) -> str:
    """Sleep with progress, and stop when asked to."""
    job = current_job()
    for step in range(int(seconds * 10)):
        job.check_cancelled()
        job.progress(step * 10 / seconds, f"step {step}")
        time.sleep(0.1)
    return "done"


@shared_task(name="tests.retry_twice", bind=True, max_retries=5)
def retry_twice(self: Task) -> dict[str, Any]:
    """Fails by `self.retry` in its first two attempts."""
    attempt = current_job().attempt
    if attempt < 3:
        raise self.retry(exc=ValueError(f"attempt {attempt}"), countdown=0)
    return {"attempt": attempt, "celery_retries": self.request.retries}


@shared_task(name="tests.autoretry", autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0)
def autoretry() -> int:
    """Fails by `autoretry_for` in its first attempt."""
    attempt = current_job().attempt
    if attempt < 2:
        raise ValueError("first one fails")
    return attempt


class OwnCall(Task):
    """A base class that overrides the call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Mark the result."""
        return ["called", super().__call__(*args, **kwargs)]


@shared_task(name="tests.own_call", base=OwnCall)
def own_call(value: int) -> int:
    """Return the value."""
    return value


@shared_task(name="tests.replaces", bind=True)
def replaces(self: Task) -> None:
    """Tries to replace itself."""
    raise self.replace(add.s(1, 2))


@shared_task(name="tests.dies")
def dies(only_first: bool = True) -> int:
    """Kills its own process, in the first attempt or in each."""
    attempt = current_job().attempt
    if attempt == 1 or not only_first:
        os.kill(os.getpid(), 9)
    return attempt


@shared_task(name="tests.late", acks_late=True)
def late() -> str:
    """A task that acknowledges late when it is plain."""
    return "late"


@shared_task(name="tests.keys")
def keys() -> dict[str, Any]:
    """What the job interface says."""
    job = current_job()
    job.logger.info("hello from the logger")
    return {"key": job.idempotency_key, "run_key": job.run_key, "remaining": job.remaining_seconds()}


@shared_task(name="tests.odd_result")
def odd_result(kind: str) -> Any:
    """Results that are hard to keep."""
    return {
        "set": {1, 2},
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "large": "x" * 2_000_000,
        "nan": float("nan"),
    }[kind]


@shared_task(name="tests.blocks")
def blocks(seconds: float) -> str:
    """Sleep in one call that nothing interrupts in a thread."""
    print("sleeping")
    time.sleep(seconds)
    return "returned"


@shared_task(name="tests.sleeps_first")
def sleeps_first(seconds: float) -> None:
    """Sleep in the first attempt only."""
    if current_job().attempt == 1:
        sleep(seconds)


@shared_task(name="tests.exits")
def exits() -> None:
    """Asks its process to end."""
    raise SystemExit(3)


@shared_task(name="tests.cleans_up")
def cleans_up(seconds: float) -> None:
    """Sleep in small steps, and say something when it is ended."""
    try:
        sleep(seconds)
    finally:
        print("cleaned up")


@shared_task(name="tests.prints")
def prints(word: str, times: int = 20) -> int:
    """Print a word again and again."""
    for _ in range(times):
        print(word)
        time.sleep(0.02)
    return times


@shared_task(name="tests.connection")
def how_its_connection_plans() -> dict[str, Any]:
    """What the database connection of bodies was told about plans, and whether what they publish is confirmed."""
    from celery import current_app
    from django.db import connection

    with current_app.producer_pool.acquire(block=True) as producer:
        confirmed = producer.connection.transport_options.get("confirm_publish")
    if connection.vendor != "postgresql":
        return {"confirmed": confirmed}
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('enable_seqscan'), current_setting('plan_cache_mode')")
        seqscan, mode = cursor.fetchone()
    return {"enable_seqscan": seqscan, "plan_cache_mode": mode, "confirmed": confirmed}


@shared_task(name="tests.queries")
def queries() -> None:
    """Ask the database again and again, in transactions."""
    from django.db import connection, transaction

    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")


@shared_task(name="tests.process")
def process() -> int:
    """Say which process it runs in."""
    return os.getpid()


@shared_task(name="tests.grows")
def grows(mebibytes: int) -> int:
    """Take so much memory, and say which process it runs in."""
    return os.getpid() + 0 * len(bytearray(os.urandom(1024)) * (mebibytes * 1024))
