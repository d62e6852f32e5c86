"""What one shell command may use."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShellLimits:
    """Limits of one command; None means: as the worker's own. CPU time has no limit, the timeout is one.

    The kernel counts `processes` per user, over everything that the worker's user runs, and not at all for
    root.
    """

    #: Output that is kept per attempt, both streams together, as bytes from the command.
    log_bytes: int = 1024 * 1024
    #: From SIGTERM to SIGKILL.
    stop_grace_seconds: float = 1.0
    #: Address space of each process.
    memory_bytes: int | None = None
    #: Largest file that it may write.
    file_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    core_bytes: int | None = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense: ValueError."""
        if self.log_bytes < 0 or self.stop_grace_seconds < 0:
            raise ValueError("log_bytes and stop_grace_seconds must not be negative")
        for number, value in self.rlimits().items():
            if value < 0:
                raise ValueError(f"resource limit {number} must not be negative")

    def rlimits(self) -> dict[int, int]:
        """`resource.RLIMIT_*` → value, for those that are set."""
        wanted = {
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_NPROC: self.processes,
            resource.RLIMIT_CORE: self.core_bytes,
        }
        return {number: value for number, value in wanted.items() if value is not None}
