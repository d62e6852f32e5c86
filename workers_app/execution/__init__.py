"""From a delivered message to at most one execution of a body, and to a report that is not lost.

In the main process, on the way in: Celery's strategy of each task takes a detour (`reception`) to the desk
(`permit_desk`), which asks for the permits of all that wait at once and hands what is granted to the pool, with the
grant inside the job (`grant`). One permit a statement was the dearest part of a short run. `WORKERS__PERMITS=each`
leaves the desk out, and the pool child asks for itself.

In the pool child (`child`): Celery's tracing function of each task is wrapped, which is below every base class,
`__call__` and `before_start`, so a message with our header reaches no body without a permit. A Celery signal could not
do this: receivers cannot veto a start. What the body's end was is taken from Celery's signals (`outcome`).

In the main process, on the way out (`node`): a table in shared memory (`registry`) in which children say what they are
about to do, before they do it; a socket (`channel`) on which they tell outcomes, logs and progress; threads of our own
that collect these, publish them in batches and renew the lease, because the main process's event loop stands still
while Celery reconnects to a broker. A separate tiny process (`guardian`) ends children whose lease or deadline is over,
also while the main process is stopped.

Where bodies run in threads of the worker's own process (the pools threads and solo, `one_process`), each thread does
what a child does, with a seat of its own in the same table, and tells the main process by a call. The desk is the same.
A thread cannot be killed: it is interrupted by an exception (`interruption`), its deadline is held by the main process,
and the guardian knows one thing only: when the lease is over and a body has not ended, it kills the whole worker.

An attempt is always on one of the lists that a renewal sends: it moves from the desk to the table, and from there to
the list of finished attempts (`outbox`) before its record is freed, and leaves that list when the control plane says
that its end is recorded.
"""
