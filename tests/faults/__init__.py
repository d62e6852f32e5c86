"""Faults: kill, stop and empty every part of an installation, and hold what it promises against what really happened.

Three independent witnesses are compared, none of which is the code under test:

* `history`   each execution of a body writes a file of its own: start, a tick every 100 ms, end, on the raw monotonic
              clock, each line fsynced. What is in these files happened, whatever any database says
* `client`    what each client was told about each submission and each cancel: ok, failed, or unknown
* `rows`      the database, read by plain SQL, so that a mutant of the product cannot change what the checker sees

`checker` is pure: witnesses and the list of faults go in, a verdict comes out. It knows nothing about the product but
its promises. `chance` is random mode: it draws `kinds_of_fault` by a seed, on servers that are `harmable` and with
clocks that jump. `jobs` are the bodies, `system` starts servers and roles by the shipped commands only, `load` keeps
work in flight, `cells` goes through crash points × operations, `nemeses` does the larger faults, `mutants` breaks the
product on purpose: each mutant must be caught by the nemesis made for it, and plain Celery, too.

`python -m tests.faults --help`; docs/faults.md tells an operator how to read it.
"""
