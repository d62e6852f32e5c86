"""What Signalbox costs beside bare Celery: `make bench`, or `python -m tests.benchmarks`.

How it is measured, and why so:

* *Ratios inside a round.* A machine that others use makes absolute figures drift by a third. So every contender
  runs once in every round, the order rotates from round to round, and only ratios inside a round are compared.
* *The same body.* Each contender runs the function in `jobs`, which writes its number and CLOCK_MONOTONIC to a
  file of its process. So starts are counted in the same way everywhere, and each round also shows that every
  run was executed, and how many were executed twice.
* *First submit to truth.* The clock stops when the last run is final where that contender keeps its truth: for
  bare Celery the body's own record, because it has no other; elsewhere the database's row, seen by somebody
  else.
* *All processes.* CPU and memory are those of every process that a contender needs: client, workers with pool
  children and guardian, dispatcher, ingest, broker, and the database where it uses one (`processes`). The
  harness itself and its questions are not counted, except for what the database spends on answering them.
* *As shipped.* Signalbox is started by its commands with its own defaults, with logging as JSON to a file and
  events on.

`rates` compares one step at a time (claim, ingest) with a loop of bare psycopg that writes the same rows, in turns on
the same table. `claims` holds the bars, and what is said to hold is judged there and nowhere else.
"""
