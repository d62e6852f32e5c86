"""The defects: module, text, and what stands in its place. Nothing is imported here, not even the product."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """One replacement in one module; `append` goes to the end of it."""

    module: str
    old: str
    new: str
    append: str = ""


_UNPERMITTED = """

def _unpermitted(ticket, nonce):
    import datetime

    from tasks_app.models import TaskRun

    run = TaskRun.objects.get(pk=ticket.run_id)
    now = datetime.datetime.now(datetime.UTC)
    return Permitted(
        run_id=run.pk, attempt=ticket.attempt, token=ticket.token, nonce=nonce, task_id=run.task_id,
        task_name=run.task_name, executor=run.executor, parameters=run.parameters,
        timeout_seconds=run.timeout_seconds, keep_running=False, permitted_at=now,
        deadline_at=now + datetime.timedelta(seconds=run.timeout_seconds),
    )
"""

MUTANTS: dict[str, tuple[Change, ...]] = {
    # The refusal is not obeyed: a stale or doubled delivery begins its body. In both forms of asking.
    "permit_off": (
        Change(
            "workers_app.execution.permit_desk",
            "                if isinstance(answer, Permitted):\n                    one.permit",
            "                if isinstance(answer, Refused):\n"
            "                    answer = _unpermitted(one.ticket, one.nonce)\n"
            "                if isinstance(answer, Permitted):\n                    one.permit",
            _UNPERMITTED,
        ),
        Change(
            "workers_app.execution.child",
            "        if isinstance(answer, Refused):\n            record.refuse()",
            "        if isinstance(answer, Refused):\n            answer = _unpermitted(ticket, nonce)\n"
            "        if isinstance(answer, Refused):\n            record.refuse()",
            _UNPERMITTED,
        ),
    ),
    # Whoever reports about a run that is under way ends its attempt.
    "token_check_off": (
        Change(
            "tasks_app.lifecycle.finish",
            "    if run.token != report.token or run.attempt != report.attempt:\n        return False\n",
            "",
        ),
        Change(
            "tasks_app.lifecycle.finish",
            "return report.nonce is None or run.nonce == report.nonce",
            "return True",
        ),
    ),
    # Nobody judges leases or takes back what was not permitted.
    "reaper_off": (
        Change("dispatch.reaper", "        self._judge(now)\n        self._end_lost(now)\n", "        return\n"),
    ),
    # What was true when the rows were chosen is not looked at again when they are written.
    "reaper_by_id_alone": (
        Change(
            "tasks_app.lifecycle.reap",
            'held_by(incarnations).values_list("pk", flat=True)[:limit])\n',
            'held_by(incarnations).values_list("pk", flat=True)[:limit])\n'
            '        reach("reap.before_commit") if ids else None\n',
        ),
        Change(
            "tasks_app.lifecycle.reap",
            "if run.status != RunStatus.RUNNING.value or run.incarnation_id not in incarnations or run.token is None:",
            "if False:",
        ),
    ),
    # A worker goes on for some margins more than its lease, instead of one less.
    "lease_margin_ignored": (
        Change(
            "workers_app.conf",
            "return self.lease_seconds - self.lease_margin_seconds",
            "return self.lease_seconds + 4 * self.lease_margin_seconds",
        ),
    ),
    # What the broker confirmed is forgotten, as if the broker could not lose it.
    "finished_list_dropped": (
        Change(
            "workers_app.execution.outbox",
            "                    self._unsettled[nonce].published = True\n",
            "                    del self._unsettled[nonce]\n",
        ),
    ),
}


#: Defects that no nemesis was made for: the state machine of tests/properties has to find them, too.
FINER: dict[str, tuple[Change, ...]] = {
    # An end is written for a run that has ended.
    "finish_from_any_state": (
        Change("tasks_app.lifecycle.finish", "return run.status == RunStatus.DISPATCHED.value", "return True"),
    ),
    # What a worker says it finished counts as recorded before it is.
    "settled_unwritten": (
        Change("tasks_app.lifecycle.recede", "in written or not still_open:", "in written or still_open:"),
    ),
    # Half a lease is enough for a verdict.
    "lease_judged_early": (Change("dispatch.leases", ">= lease.lease_seconds", ">= lease.lease_seconds / 2"),),
}


def changed(name: str, module: str, source: str) -> str:
    """The module's source with the mutant's changes. Raises LookupError where one does not fit."""
    for change in (MUTANTS | FINER)[name]:
        if change.module != module:
            continue
        if source.count(change.old) != 1:
            raise LookupError(
                f"mutant {name}: {module} holds this text {source.count(change.old)} times:\n{change.old}"
            )
        source = source.replace(change.old, change.new) + change.append
    return source
