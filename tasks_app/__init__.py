"""WHAT should run: tasks, their runs, and the only code that may move a run from one state to another.

The database row is the truth. A TaskRun is at once the record of an execution and the outbox entry for it:
committing the row *is* the submission, so there is no moment at which a run is accepted and can be lost. The
broker is only a doorbell that may be emptied at any time.

Where things are, from the pure to the effectful:

* `states`        the state diagram, once, as data; guards, docs, admin and property tests read it
* `retry`         what follows an attempt that ended: again, final or quarantine, and how long to wait
* `schedules`     schedule arithmetic: which instants are due
* `parameters`    what every executor's parameters must look like; size and text rules. `shell_parameters` and
                  `http_parameters` have what those executors need
* `messages`      what goes over the broker: execution messages, reports, signatures
* `models`, `querysets`   tables, constraints and every query
* `lifecycle`     the sole writer of `TaskRun.status`; one module a verb
* `services`      use cases: a view, an admin action, a command or a Celery task makes one call into it

This is the lowest package: it knows nothing of workers, brokers or HTTP. What a verb needs from above (is this
worker's lease still good? which rows may start?) is passed in as a query.
"""
