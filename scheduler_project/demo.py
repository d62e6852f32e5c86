"""Three small tasks that do something real, to look at what Signalbox does with a task."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from celery import shared_task

from workers_app.job import current_job


@shared_task(name="demo.count_words")
def count_words(path: str) -> dict[str, Any]:
    """Count the words of a text file: {"path", "lines", "words", "characters", "most_common": [[word, count], …]}."""
    from collections import Counter

    job = current_job()
    words: Counter[str] = Counter()
    lines = characters = 0
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            lines += 1
            characters += len(line)
            words.update(word.strip(".,;:!?()[]{}`\"'").lower() for word in line.split())
            if lines % 1000 == 0:
                job.check_cancelled()
    del words[""]
    print(f"{path}: {lines} lines, {words.total()} words")  # noqa: T201
    return {
        "path": path,
        "lines": lines,
        "words": words.total(),
        "characters": characters,
        "most_common": [list(pair) for pair in words.most_common(5)],
    }


@shared_task(name="demo.disk_report")
def disk_report() -> list[dict[str, Any]]:
    """Size and use of each disk of this host, in bytes, with progress after each."""
    import psutil

    job = current_job()
    mounts = [partition.mountpoint for partition in psutil.disk_partitions(all=False)] or ["/"]
    report: list[dict[str, Any]] = []
    for number, mount in enumerate(mounts, start=1):
        job.check_cancelled()
        try:
            use = shutil.disk_usage(mount)
        except OSError as error:
            job.logger.warning("cannot read %s: %s", mount, error)
            continue
        free_percent = round(100 * use.free / use.total, 1) if use.total else 0.0
        print(f"{mount}: {free_percent} % of {use.total // 2**30} GiB free")  # noqa: T201
        report.append({"mount": mount, "bytes": use.total, "free_bytes": use.free, "free_percent": free_percent})
        job.progress(100 * number / len(mounts), f"{number} of {len(mounts)} disks")
    return report
