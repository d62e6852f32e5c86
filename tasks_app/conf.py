"""Configuration section "tasks": limits on what may be submitted, defaults of a task, keys that sign messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks_app.sections import accessor, require_positive


def _derived_keys() -> dict[str, str]:
    """One key that every process of a Django project has, and nobody who does not know its SECRET_KEY."""
    from django.utils.crypto import salted_hmac

    return {"default": salted_hmac("signalbox", "messages", algorithm="sha256").hexdigest()}


@dataclass(frozen=True)
class TaskSettings:
    """Everything that the task domain can be told."""

    #: Parameters of one run, as JSON text. They travel in the message: keep them small, pass large data by reference.
    parameters_bytes_max: int = 256 * 1024
    #: Result of one run, as JSON text; a larger one is replaced by a note that says so. It travels in a report.
    result_bytes_max: int = 1024 * 1024
    error_bytes_max: int = 64 * 1024
    #: Waiting runs above which outside callers are refused with 429; retries and fires that are due still enter.
    backlog_max: int = 1_000_000
    backlog_per_type_max: int | None = None
    timeout_seconds: int = 3600
    max_retries: int = 3
    retry_delay_seconds: float = 5.0
    retry_delay_cap_seconds: float = 3600.0
    #: Worker or child deaths that one run may cause before it is set aside for a person.
    quarantine_after: int = 3
    #: id -> secret; messages are signed with `signing_key_id` and accepted under every key listed here. Without any,
    #: one is derived from Django's SECRET_KEY: give keys of your own to rotate them one by one.
    signing_keys: Mapping[str, str] = field(default_factory=_derived_keys)
    signing_key_id: str = "default"

    def __post_init__(self) -> None:
        """Refuse values that could only have been meant otherwise."""
        require_positive(
            self,
            "parameters_bytes_max",
            "result_bytes_max",
            "error_bytes_max",
            "backlog_max",
            "timeout_seconds",
            "retry_delay_seconds",
            "retry_delay_cap_seconds",
            "quarantine_after",
        )
        if self.max_retries < 0:
            raise ValueError("max_retries must be 0 or more")
        for key_id, secret in self.signing_keys.items():
            if len(secret) < 32:
                raise ValueError(f'signing key "{key_id}" is shorter than 32 characters')
        if self.signing_keys and self.signing_key_id not in self.signing_keys:
            raise ValueError(f'signing_key_id "{self.signing_key_id}" is not one of signing_keys')


#: The section as configured; read once a process.
conf = accessor(TaskSettings, "tasks")
