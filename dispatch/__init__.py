"""HOW it gets there: from a due row to a message at a worker, and from a worker's reports back to the row.

* `dispatcher`   one loop: fire schedules, claim by credit, publish with confirms; any number of these run at once
* `credit`       how many messages a queue may have waiting, from slots and from how fast it drains
* `blockers`     each reason not to start is one object: `q()` is its part of the claim, `explain()` its part of the
                 answer to "why is it not running?"
* `firing`       due schedules become runs
* `broker`       the port to the broker and its adapters (AMQP, Redis, memory)
* `reaper`       compares the truth with leases: not permitted in time, lease over, past the deadline
* `ingest`       reports and heartbeats in batches into the database; any number of these run at once
* `control`      quick messages to workers (cancel, drain); the fact is in the database already
* `doctor`       what is wrong with an installation, one check a module
* `testing`      all of it in one process and on a clock that stands still, for users' tests

No leader is elected: row locks and UNIQUE constraints decide. A dispatcher may be stopped at any line; what it had
claimed comes back when its permit deadline passes.
"""
