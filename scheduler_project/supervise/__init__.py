"""The supervisor behind `make run`: everything in one terminal, and nothing left when it ends.

It imports neither Django nor Celery, so that it is up at once, stays small, and cannot be broken by what it
watches. It is one thread with one `selectors` loop over pipes, health probes and a wake-up descriptor for
signals: no state is shared and a role that hangs cannot hang it.

* `preflight`   what must be right before anything starts; each fault is one line with its cure
* `roles`       which processes there are, how each is started and where it says that it is well
* `child`       one process: a session of its own, its output cut into lines, its end
* `probe`       one HTTP question to a health port, without waiting for the answer
* `family`      finding and killing all that descends from us
* `terminal`    prefixed, coloured lines
* `supervisor`  the loop: start, watch, restart, drain

**Sessions.** Each role leads a session of its own. Ctrl-C in the terminal therefore reaches the supervisor
alone, which sends SIGTERM to each role's main process and not to its group: a Celery worker's pool children
must not get it, or they would drop what they run instead of finishing it.

**Order of the end.** Web, Flower, dispatcher and worker drain together; ingest stays until they are gone,
because the worker's last reports go through it; Valkey is last and writes its file. What is then still there
is killed, and said.

**Nothing left.** On Linux the supervisor is a child subreaper: whatever a role leaves behind becomes its
child, in whatever session it hides. A supervisor that is itself SIGKILLed has its roles ended by the kernel
(parent-death signal), and the next start waits for, or ends, what its record names, so that no second Valkey
ever opens the same file.

**Silence.** SQLite has one writer at a time: a role that is stopped inside a transaction stops all the
others. So with SQLite a role whose /livez is silent for half a lease is killed and started again. On
PostgreSQL the server's own timeouts do that.
"""
