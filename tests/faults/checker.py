"""From witnesses to a verdict. Pure: nothing is read, nothing is waited for.

A lost attempt needs an excuse: its worker was killed, its child was killed, its worker stood still or had no database
for as long as a lease holds. One killed child excuses one attempt, and only its own where the history says which. What
has no excuse is a false loss, whatever the product calls it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from tests.faults.history import Execution
from tests.faults.witness import AttemptRow, Fault, Plan, RunRow, Submission, Verdict, Witnesses

FINAL = frozenset({"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST"})
#: Clocks of two statements of one database, rounded and read one after the other.
CLOCK_SLACK_SECONDS = 0.05
#: A crash point's kill is written down a moment after it happened.
NOTED_LATE_SECONDS = 3.0
#: The database's clock is steered during a fault, the raw one is not; and a child outlives its main by a moment.
CLOCKS_APART_SECONDS = 1.0


def check(given: Witnesses) -> Verdict:
    """Hold the witnesses against the promises."""
    return _Checking(given).verdict()


class _Checking:
    def __init__(self, given: Witnesses) -> None:
        self.given = given
        self.out = Verdict(runs=len(given.runs), executions=len(given.executions))
        self.runs = {run.id: run for run in given.runs}
        self.by_call = {run.call: run for run in given.runs if run.call}
        self.plans: dict[str, Plan] = {}
        self.executions: dict[str, list[Execution]] = defaultdict(list)
        for execution in sorted(given.executions, key=lambda item: item.started):
            self.executions[execution.run].append(execution)
        self.attempts: dict[str, dict[int, AttemptRow]] = defaultdict(dict)
        for attempt in sorted(given.attempts, key=lambda item: (item.run, item.number)):
            self.attempts[attempt.run][attempt.number] = attempt
        self.incarnations = {row.id: row for row in given.incarnations}
        self.cancelled = {cancel.run for cancel in given.cancels if cancel.said != "failed"}
        self.excuses: dict[tuple[str, int], Fault] = {}

    def verdict(self) -> Verdict:
        for submission in self.given.submissions:
            self._submission(submission)
        self._excuse()
        for run in self.given.runs:
            self._run(run)
            self._attempts(run)
        for run_id, executions in self.executions.items():
            self._executions(run_id, executions)
        self._finals()
        self._cancels()
        self._fires()
        return self.out

    def _found(self, kind: str, text: str) -> None:
        self.out.violations[kind].append(text)

    # -- what clients were told -----------------------------------------------------------------------------------

    def _submission(self, told: Submission) -> None:
        run = self.runs.get(told.run) if told.run is not None else self.by_call.get(told.call)
        if run is None:
            if told.said == "ok":
                self._found("lost", f"run {told.run} ({told.call}) was accepted and is not there")
            return
        self.plans[run.id] = told.plan
        if told.said == "failed":
            self._found("ghosts", f"run {run.id} ({told.call}) was refused and is there as {run.status}")

    def _cancels(self) -> None:
        at_cancel = {event.run: event.attempt for event in self.given.events if event.kind == "cancel_requested"}
        for cancel in self.given.cancels:
            if cancel.answered is None or cancel.said not in {"cancelled", "requested"}:
                continue
            for execution in self.executions.get(cancel.run, ()):
                # The attempt that was RUNNING had its permit before; its body may begin a moment after the answer.
                running = cancel.said == "requested" and execution.attempt <= at_cancel.get(cancel.run, 0)
                if execution.started > cancel.answered and not running:
                    late = execution.started - cancel.answered
                    self._found(
                        "starts_after_cancel",
                        f"run {cancel.run} attempt {execution.attempt} began {late:.3f} s after its cancel "
                        f"was answered ({cancel.said})",
                    )

    # -- what was lost --------------------------------------------------------------------------------------------

    def _excuse(self) -> None:
        """Find each lost attempt's fault: those that can be told apart first, the rest by what is left."""
        lost = [row for row in self.given.attempts if row.status == "LOST"]
        self.out.lost_attempts = len(lost)
        spent: set[int] = set()
        unsure: list[AttemptRow] = []
        for row in lost:
            fault = self._fault_of_worker(row) or self._fault_of_child(row, spent)
            if fault is None:
                unsure.append(row)
            else:
                self.excuses[row.run, row.number] = fault
        for row in unsure:
            fault = self._unspent_child(row, spent)
            if fault is not None:
                self.excuses[row.run, row.number] = fault

    def _main_of(self, row: AttemptRow) -> int:
        incarnation = self.incarnations.get(row.incarnation)
        return incarnation.pid if incarnation else 0

    def _fault_of_worker(self, row: AttemptRow) -> Fault | None:
        main = self._main_of(row)
        for fault in self.given.faults:
            if not self._held_then(row, fault):
                continue
            long = fault.seconds >= self.given.hold_seconds - CLOCK_SLACK_SECONDS
            if fault.kind == "kill" and fault.pid == main and main:
                return fault
            if fault.kind in ("stop", "cut") and long and main and main in (fault.pid, fault.main):
                return fault
            if fault.kind == "database" and long:
                return fault
        return None

    def _held_then(self, row: AttemptRow, fault: Fault) -> bool:
        """Whether the attempt was under way during the fault; one before or after it has another cause."""
        at = fault.at + fault.database_clock
        until = (fault.until or fault.at) + fault.database_clock
        begun = row.permitted is None or row.permitted <= until + CLOCKS_APART_SECONDS
        return begun and row.ended >= at - NOTED_LATE_SECONDS

    def _fault_of_child(self, row: AttemptRow, spent: set[int]) -> Fault | None:
        pids = {item.pid for item in self.executions.get(row.run, ()) if item.attempt == row.number}
        for number, fault in enumerate(self.given.faults):
            if fault.kind == "kill" and fault.pid in pids and number not in spent and self._held_then(row, fault):
                spent.add(number)
                return fault
        return None

    def _unspent_child(self, row: AttemptRow, spent: set[int]) -> Fault | None:
        # Killed before its body began, or a shell's script, whose pid is not its child's.
        main = self._main_of(row)
        for number, fault in enumerate(self.given.faults):
            child = fault.kind == "kill" and fault.main == main and main and fault.pid != main
            if child and number not in spent and self._held_then(row, fault):
                spent.add(number)
                return fault
        return None

    # -- rows -----------------------------------------------------------------------------------------------------

    def _run(self, run: RunRow) -> None:
        if run.status not in FINAL:
            self._found("stuck", f"run {run.id} is {run.status} at attempt {run.attempt}")
            return
        plan = self.plans.get(run.id)
        attempts = self.attempts.get(run.id, {})
        if run.status == "LOST" and run.max_retries == 0:
            last = attempts.get(run.attempt)
            if last is None or last.permitted is None:
                self._found("unpermitted_losses", f"run {run.id} is LOST and holds no permit")
        if run.status == "COMPLETED":
            said_so = any(item.attempt == run.attempt and item.how == "ok" for item in self.executions.get(run.id, ()))
            if not said_so:
                self._found("completed_unseen", f"run {run.id} is COMPLETED by attempt {run.attempt}; no body says so")
        if plan is not None and run.status not in self._allowed_ends(run, plan):
            self._found(
                "unplanned_ends", f"run {run.id} ended {run.status}, planned {plan.outcome}"
                + "".join(f"; {row.number} {row.status} {row.error_type}" for row in attempts.values()),
            )  # fmt: skip

    def _allowed_ends(self, run: RunRow, plan: Plan) -> set[str]:
        allowed = {plan.outcome}
        if run.id in self.cancelled:
            allowed |= {"CANCELLED"}
        if plan.cancelled and run.id not in self.cancelled:
            allowed |= {"COMPLETED"}
        last = self.attempts.get(run.id, {}).get(run.attempt)
        if last is not None and last.status == "LOST" and (run.id, run.attempt) in self.excuses:
            # No retry was left: the loss is how it ends.
            allowed |= {"LOST"} if run.attempt > run.max_retries else set()
        return allowed

    def _attempts(self, run: RunRow) -> None:
        plan = self.plans.get(run.id, Plan(max_retries=run.max_retries))
        for row in self.attempts.get(run.id, {}).values():
            name = f"run {run.id} attempt {row.number}"
            if row.status == "LOST":
                self._loss(name, row)
            elif row.status == "FAILED" and row.number > plan.fail_first:
                self._found("unplanned_ends", f"{name} FAILED ({row.error_type}); its body was not to fail")
            elif row.status == "COMPLETED" and row.number <= plan.fail_first:
                self._found("unplanned_ends", f"{name} COMPLETED; its body was to fail")
            elif row.status == "TIMEOUT" and plan.stopped != "TIMEOUT":
                self._found("unplanned_ends", f"{name} TIMEOUT; its body had time enough")
            elif row.status == "CANCELLED" and run.id not in self.cancelled:
                self._found("unplanned_ends", f"{name} CANCELLED; nobody cancelled it")

    def _loss(self, name: str, row: AttemptRow) -> None:
        fault = self.excuses.get((row.run, row.number))
        if fault is None:
            self._found("false_losses", f"{name} is LOST ({row.error_type}) and nothing happened to its worker")
            return
        incarnation = self.incarnations.get(row.incarnation)
        if row.error_type == "WorkerLost" and incarnation is not None and not incarnation.clean:
            if incarnation.over is None:
                self._found("false_losses", f"{name} is LOST and its lease was never over")
            elif incarnation.over - incarnation.renewed < incarnation.lease_seconds - CLOCK_SLACK_SECONDS:
                early = incarnation.over - incarnation.renewed
                self._found("false_losses", f"{name}: its lease was judged over {early:.2f} s after a renewal")

    def _finals(self) -> None:
        ends = Counter((event.run, event.attempt) for event in self.given.events if event.kind == "attempt_ended")
        for (run_id, number), count in ends.items():
            if count > 1:
                self._found("double_finals", f"run {run_id} attempt {number} ended {count} times")
        finals = Counter(event.run for event in self.given.events if event.next in FINAL)
        for run_id, count in finals.items():
            if count > 1:
                self._found("double_finals", f"run {run_id} became final {count} times")
        for run_id, status in dict.fromkeys(self.given.observed):
            now = self.runs.get(run_id)
            if status in FINAL and (now is None or now.status != status):
                self._found("double_finals", f"run {run_id} was {status} and is {now.status if now else 'gone'} now")

    def _fires(self) -> None:
        seen: Counter[tuple[str, float]] = Counter()
        for fire in self.given.fires:
            if fire.decision != "fired":
                continue
            seen[fire.schedule, fire.instant] += 1
            if fire.run is None or fire.run not in self.runs:
                self._found("double_fires", f"schedule {fire.schedule} fired at {fire.instant} without a run")
        for (schedule, instant), count in seen.items():
            if count > 1:
                self._found("double_fires", f"schedule {schedule} fired {count} times for {instant}")
        fired = {fire.run for fire in self.given.fires if fire.run is not None}
        for run in self.given.runs:
            if run.scheduled and run.id not in fired:
                self._found("double_fires", f"run {run.id} says that it was scheduled and no fire names it")

    # -- what really ran ------------------------------------------------------------------------------------------

    def _executions(self, run_id: str, executions: Sequence[Execution]) -> None:
        run = self.runs.get(run_id)
        for number, count in Counter(item.attempt for item in executions).items():
            if count > 1:
                self._found("double_starts", f"run {run_id} attempt {number} began {count} times")
        if run is not None and run.max_retries == 0 and len(executions) > 1:
            self._found("double_starts", f"run {run_id} has no retries and began {len(executions)} times")
        for before, after in pairwise(executions):
            self._pair(run_id, before, after)
        for index, before in enumerate(executions):
            for after in executions[index + 1 :]:
                overlap = before.active_after(after.started)
                self.out.overlap_seconds_max = max(self.out.overlap_seconds_max, overlap)
                if overlap > self.given.overlap_seconds:
                    self._found(
                        "overlaps",
                        f"run {run_id}: attempt {before.attempt} went on for {overlap:.2f} s beside "
                        f"attempt {after.attempt}",
                    )
        self._recoveries(run_id, executions)

    def _pair(self, run_id: str, before: Execution, after: Execution) -> None:
        """A body that ran again: because it failed as planned, because its attempt was lost, or for no reason."""
        plan = self.plans.get(run_id, Plan())
        row = self.attempts.get(run_id, {}).get(before.attempt)
        name = f"run {run_id} attempt {before.attempt}"
        if row is not None and row.status == "LOST" and (run_id, before.attempt) in self.excuses:
            fault = self.excuses[run_id, before.attempt]
            ended = f"had ended {before.how}" if before.ended is not None else "had not ended"
            self.out.duplicates.append(f"{name} {ended}: {fault.kind} {fault.note}".strip())
        elif row is not None and row.status == "TIMEOUT" and plan.stopped == "TIMEOUT":
            pass
        elif not (before.attempt <= plan.fail_first and before.how == "failed"):
            self._found(
                "unexplained_reruns",
                f"{name} ({before.how or 'no end'}) was followed by attempt {after.attempt}; "
                f"the database says {row.status if row else 'nothing'}",
            )

    def _recoveries(self, run_id: str, executions: Sequence[Execution]) -> None:
        starts = {item.attempt: item.started for item in reversed(executions)}
        for number, row in self.attempts.get(run_id, {}).items():
            fault = self.excuses.get((run_id, number))
            if row.status == "LOST" and fault is not None and number + 1 in starts:
                self.out.recoveries.append(starts[number + 1] - fault.at)
