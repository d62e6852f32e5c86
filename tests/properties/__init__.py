"""Property tests of the lifecycle: a machine takes steps in any order, and promises are held against each.

* `promises`  what was answered to whom and which bodies ran, kept apart from the database: an abstract model that knows
              only what is promised. It looks at the rows after every step
* `worker`    a worker process in a few lines, with the product's own control-plane client, outbox and lease settings.
              Its bodies are entries in a list; its guardian is exact to the instant
* `world`     dispatcher, workers, reapers, the network between them and the clocks, all moved by the steps
* `machine`   the steps, for Hypothesis: what is usual, and faults, about one step in eight. More often hides defects:
              hardly any run would get as far as the second half of its life
* `claims`    each mutant of the fault harness that lives in what the machine covers must be found by it

One connection, one thread. What transactions do to each other on PostgreSQL is stood for by interludes: where a world
is `busy`, others act between the moment in which a reaper chooses rows and the one in which it locks them. Races proper
are the fault harness's, and so is everything inside a worker's processes.

`make properties SECONDS=600` looks for longer; tests/integration/test_lifecycle_machine.py is the same in short.
docs/properties.md is for those who read what it found.
"""
