"""Reports and heartbeats from workers into the database, in batches; any number of ingests run at once.

Read, verify, apply, commit, and only then acknowledge: a report is either in the database or still at the broker.
Twice or out of order changes nothing, because every statement compares token and attempt before it writes.

* `ingest`      the loop: gather, apply, acknowledge; waits for a database that is away with the reports unacknowledged
* `sorting`     a batch of deliveries as finishes, hand-backs, log chunks, progress and heartbeats, each checked; pure
* `applying`    the bulk statements
* `heartbeats`  what workers say about themselves
* `poison`      what cannot be applied is found by halving and set aside, so that the reports behind it go on

Finishes commit synchronously, since a worker forgets an attempt that is recorded. Log chunks and progress may commit
asynchronously: a crash of the database loses at most their last fraction of a second.
"""
