"""WHO runs it: workers, their leases, and how a delivered message becomes at most one execution of a body.

A worker is a Celery worker (`celery.bin.worker`, unchanged) with these parts around it:

* `celery_signals`   one function a Celery signal, each one call into the packages below; connected in one place
* `execution`        in the main process: verify messages, ask for their permits, hand them to the pool; the table of
                     what runs, the guardian, the lease, collecting and flushing outcomes;
                     in the pool child: register, begin, run the body, tell the outcome
* `executors`        what a body can be: a registered Celery task, a shell command under a supervisor, an HTTP request
* `pools`            which of Celery's pools run bodies, and what each can end
* `addresses`        where HTTP requests may go
* `control_plane`    the port to the control plane and its adapters
* `job`              the interface that a body sees: progress, cancel check, idempotency keys, logger
* `heartbeat`        telemetry

Rules that shape it: whoever asks for a permit has put the attempt on a list before; nothing starts without a permit;
what ended stays on a list until the control plane says that it is recorded; and whoever cannot renew its lease ends its
bodies before anybody else may start them again. `watch`, for foreign Celery applications, will live here too.
"""
