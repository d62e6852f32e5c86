"""Celery's worker pools: which of them run managed bodies, and what each can end.

**prefork** runs each body in a process of its own, and a process can be killed from outside at any moment, whatever it
does. **threads** and **solo** run bodies inside the worker's only process. A thread cannot be killed; Python code can
be interrupted by an exception between two of its instructions, and what blocks in C code (a long sleep, a query, a
lock) goes on until it returns. Shell commands are processes under a supervisor, and HTTP requests never wait longer
than a tenth of a second at a time: those two end on every pool.

**gevent** and **eventlet** are refused. Under them the threads that renew the lease and the ones that run bodies are
the same thread, so that a body which computes holds up the lease of every other one, and an exception cannot be raised
in one of many bodies from outside.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class Reach(enum.StrEnum):
    """How far ending a body goes."""

    ALWAYS = "ALWAYS"
    BETWEEN_INSTRUCTIONS = "BETWEEN_INSTRUCTIONS"


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that runs managed bodies. one_process: bodies run in the worker's main process."""

    name: str
    one_process: bool
    says: str | Promise

    @property
    def can_end(self) -> dict[str, str]:
        """By executor, how far ending a body goes."""
        python = Reach.BETWEEN_INSTRUCTIONS if self.one_process else Reach.ALWAYS
        return {"python": python.value, "shell": Reach.ALWAYS.value, "http": Reach.ALWAYS.value}


_INTERRUPTS: Final = _(
    "It ends shell commands and HTTP requests. Python code it can only interrupt: what blocks in C code (a long sleep, "
    "a query, a lock) stays until it returns or the lease is over, which ends the whole worker."
)
POOLS: Final = {
    "prefork": Pool("prefork", one_process=False, says=_("It ends every body, by killing its process.")),
    "threads": Pool("threads", one_process=True, says=_INTERRUPTS),
    "solo": Pool("solo", one_process=True, says=_INTERRUPTS),
}
#: By the class that Celery's command line hands over.
_BY_CLASS: Final = {
    "celery.concurrency.prefork:TaskPool": "prefork",
    "celery.concurrency.thread:TaskPool": "threads",
    "celery.concurrency.solo:TaskPool": "solo",
    "celery.concurrency.gevent:TaskPool": "gevent",
    "celery.concurrency.eventlet:TaskPool": "eventlet",
}
#: Why a pool does not grow and shrink.
FIXED_SLOTS: Final = (
    "a worker's slots are fixed from its start, because the dispatcher counts on them; start another worker, or this "
    "one with other --slots"
)
_GREEN: Final = (
    "the pool {name} is not supported: its bodies share one thread with the renewal of the lease, so that one that "
    "computes ends all, and none of them can be ended alone; take prefork, or threads for what waits"
)


def named(name: str) -> Pool:
    """The pool of this name. Raises ValueError with the reason where it cannot run managed bodies."""
    name = "prefork" if name == "processes" else name
    if name in ("gevent", "eventlet"):
        raise ValueError(_GREEN.format(name=name))
    if name not in POOLS:
        raise ValueError(f"there is no pool {name!r} for managed runs; known: {', '.join(POOLS)}")
    return POOLS[name]


def of_celery(pool: Any) -> Pool:
    """The pool that a Celery worker was told to use: its name, or its class. Raises ValueError as `named` does."""
    path = pool if isinstance(pool, str) else f"{pool.__module__}:{pool.__qualname__}"
    return named(_BY_CLASS.get(path, path))


def in_one_process(name: str) -> bool:
    """Whether a worker that says this of its pool runs bodies in threads of its main process."""
    return name in POOLS and POOLS[name].one_process


def check_children(pool: Pool, *, max_tasks: int = 0, max_memory_kib: int = 0, permits: str = "batched") -> None:
    """Raise ValueError for what only a pool of processes can do."""
    if not pool.one_process:
        return
    if max_tasks or max_memory_kib:
        raise ValueError(
            f"max_tasks_per_child and max_memory_per_child_kib replace pool processes; the pool {pool.name} has none"
        )
    if permits == "each":
        raise ValueError(f'permits "each" lets pool processes ask; the pool {pool.name} has none')
