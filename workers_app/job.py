"""The interface that a body sees of its own run.

    from workers_app.job import current_job

    job = current_job()
    job.progress(40, "copied 4 of 10")
    job.check_cancelled()            # raises JobCancelled when a stop was asked for
    charge(card, key=job.run_key)    # the same for every attempt: closes the window between effect and report

Outside a managed run (a plain `.delay()`, a test) `current_job()` is a job that does nothing, so bodies need no `if`.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, TextIO

CHUNK_BYTES_MAX: Final = 16 * 1024
FLUSH_SECONDS: Final = 0.2


class BodyStopped(Exception):
    """A body ended because it was asked to: that is how its attempt counts. `stop_reason` says why."""

    def __init__(self, reason: str) -> None:
        """reason: cancel, timeout, lease or drain."""
        self.stop_reason = reason
        super().__init__(f"stop requested: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions travel from the pool process to the worker's main process."""
        return type(self), (self.stop_reason,)


class JobCancelled(BodyStopped):
    """Raised in a body that asked whether it should go on, and should not."""


class Job:
    """One attempt, as its body sees it.

    run_id, attempt, token: its identity. idempotency_key: `run_id:attempt`; run_key: the same for all attempts.
    """

    def __init__(
        self,
        *,
        run_id: int = 0,
        attempt: int = 0,
        token: str = "",
        task_name: str = "",
        send: Callable[[dict[str, Any]], None] | None = None,
        stop_reason: Callable[[], str | None] = lambda: None,
        deadline_monotonic: float | None = None,
        log_bytes_max: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Send passes a report on; stop_reason reads whether a stop was asked for; now is the database's clock."""
        self.run_id, self.attempt, self.token, self.task_name = run_id, attempt, token, task_name
        self.idempotency_key, self.run_key = f"{run_id}:{attempt}", str(run_id)
        self._send, self._stop_reason, self._now = send, stop_reason, now
        self._deadline = deadline_monotonic
        self._seq = 0
        self._progress_seq = 0
        self._output = _Output(self._send_chunk, log_bytes_max)

    @cached_property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Its records go to the run's log."""
        return logging.LoggerAdapter(
            logging.getLogger("signalbox.job"), {"run_id": self.run_id, "attempt": self.attempt}
        )

    @property
    def managed(self) -> bool:
        """False outside a managed run."""
        return self._send is not None

    def progress(self, percent: float, message: str = "") -> None:
        """Say how far it is: 0 to 100 and a short text. Cheap; the newest wins."""
        if self._send is None:
            return
        self._progress_seq += 1
        self._send(
            self._report("progress")
            | {
                "seq": self._progress_seq,
                "percent": max(0.0, min(100.0, float(percent))),
                "message": str(message or "")[:500],
            }
        )

    def log(self, stream: str, text: str) -> None:
        """Add to the run's log; stream is stdout, stderr or system."""
        if self._send is not None and text:
            self._output.write(stream, text)

    def stop_requested(self) -> str | None:
        """Why this attempt should stop (cancel, timeout, lease, drain), or None."""
        return self._stop_reason()

    def check_cancelled(self) -> None:
        """Raise JobCancelled when a stop was asked for."""
        reason = self._stop_reason()
        if reason:
            raise JobCancelled(reason)

    def remaining_seconds(self) -> float | None:
        """Seconds until the deadline; None outside a managed run."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def close(self) -> None:
        """Send what is still buffered. Called when the body ended."""
        self._output.close()

    def _send_chunk(self, stream: str, text: str) -> None:
        assert self._send is not None
        self._seq += 1
        self._send(self._report("log") | {"seq": self._seq, "stream": stream, "text": text})

    def _report(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "run": self.run_id,
            "attempt": self.attempt,
            "token": self.token,
            "at": self._now(),
        }


class _Output:
    """Buffers output: the first write goes out at once, further ones every FLUSH_SECONDS or when a chunk is full."""

    def __init__(self, send: Callable[[str, str], None], bytes_max: int | None) -> None:
        self._send, self._bytes_max = send, bytes_max
        self._lock = threading.RLock()
        self._parts: list[str] = []
        self._stream = "stdout"
        self._size = self._kept = self._seen = 0
        self._sent_at = float("-inf")
        self._timer: threading.Timer | None = None

    def write(self, stream: str, text: str) -> None:
        text = text.replace("\x00", "\ufffd")
        with self._lock:
            size = len(text.encode("utf-8", "replace"))
            self._seen += size
            if self._bytes_max is not None and self._kept + size > self._bytes_max:
                room = self._bytes_max - self._kept
                if room <= 0:
                    return
                text = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
                size = room
            self._kept += size
            if stream != self._stream:
                self._flush()
                self._stream = stream
            self._parts.append(text)
            self._size += size
            if self._size >= CHUNK_BYTES_MAX or time.monotonic() - self._sent_at >= FLUSH_SECONDS:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            if self._bytes_max is not None and self._seen > self._kept:
                self._send("system", f"[output truncated: kept {self._kept} of {self._seen} bytes]\n")
                self._seen = self._kept

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._sent_at = time.monotonic()
        for start in range(0, len(text), CHUNK_BYTES_MAX):
            self._send(self._stream, text[start : start + CHUNK_BYTES_MAX])


class StreamToJob(io.TextIOBase):
    """A text stream whose writes become the current job's log: what `print` in a body writes to."""

    def __init__(self, stream: str) -> None:
        """stream: stdout or stderr."""
        self._stream = stream

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Pass the text to the job under way."""
        current_job().log(self._stream, text)
        return len(text)


class StreamOfThreads(StreamToJob):
    """A standard stream that several bodies share: each one's writes go to its own log, all others where they went."""

    def __init__(self, stream: str, otherwise: TextIO) -> None:
        """otherwise: the stream in whose place this one stands."""
        super().__init__(stream)
        self._otherwise = otherwise

    def write(self, text: str) -> int:
        """To the job of this thread, if there is one."""
        return super().write(text) if current_job().managed else self._otherwise.write(text)

    def flush(self) -> None:
        """What went elsewhere."""
        self._otherwise.flush()

    def fileno(self) -> int:
        """The process's own."""
        return self._otherwise.fileno()

    def isatty(self) -> bool:
        """As the process's own."""
        return self._otherwise.isatty()


class LogToJob(logging.Handler):
    """Passes log records that bodies make to the log of the run under way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; records of the platform itself and of Celery stay out."""
        job = current_job()
        if job.managed and not record.name.startswith(
            ("celery", "kombu", "amqp", "workers_app", "tasks_app", "django.db")
        ):
            job.log("stderr", self.format(record) + "\n")


def loggers_of_bodies() -> list[logging.Logger]:
    """Where bodies' log records arrive: at the root, and at Celery's logger of tasks, which workers cut off from it."""
    of_tasks = logging.getLogger("celery.task")
    return [logging.getLogger()] if of_tasks.propagate else [logging.getLogger(), of_tasks]


_NULL: Final = Job()
_here = threading.local()
#: The one job of a pool process. Threads that its body starts belong to it from the first time they ask.
_of_process: Job = _NULL
_shared = False


def share_process() -> None:
    """From now on several bodies run in this process, each in a thread: a job is its thread's alone."""
    global _shared
    _shared = True


def current_job() -> Job:
    """The job of the body that runs on this thread or that started it, or one that does nothing."""
    job: Job | None = getattr(_here, "job", None)
    if job is None:
        job = _of_process
        if job.managed:
            _here.job = job
    return job


def set_current_job(job: Job | None) -> None:
    """Set or clear the job of this thread and, unless bodies share the process, of what it starts.

    For the execution layer.
    """
    global _of_process
    _here.job = job or _NULL
    if not _shared:
        _of_process = _here.job
