"""A run with a log of ten megabytes: `python -m tests.console.long_log` makes it and prints its number."""

from __future__ import annotations

import django

CHUNKS = 640
CHUNK_BYTES = 16 * 1024


def main() -> None:
    """640 chunks of 16 KiB, each with its number in front."""
    django.setup()
    from tasks_app import services
    from tasks_app.clock import clock
    from tasks_app.models import RunLogChunk
    from tests.integration.faces import a_task, ended

    run = ended(services.trigger(a_task("long.log")))
    line = "x" * 63 + "\n"
    rows = [
        RunLogChunk(
            run=run, attempt=1, seq=seq, stream="stdout", token=run.correlation_id, at=clock.now(),
            text=f"[{seq:04d}] ".ljust(63, ".") + "\n" + line * (CHUNK_BYTES // 64 - 1),
        )
        for seq in range(1, CHUNKS + 1)
    ]  # fmt: skip
    RunLogChunk.objects.bulk_create(rows, batch_size=50)
    print(run.pk)


if __name__ == "__main__":
    main()
