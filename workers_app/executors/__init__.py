"""What a body can be: `shell` runs a command, `http` makes a request; python functions are registered Celery tasks.

A shell command is never a child of the pool process: between them stands `shell_supervisor`, one small
process for each command. The pool process may be killed at any moment (deadline, lease, out of memory), and
then somebody must be left that ends the command and everything that it started. The supervisor learns of
the death by a pipe that closes, adopts what daemonized (subreaper), and is done only when the kernel says
that it has no child left.

An HTTP request needs no process of its own: it never waits longer than a moment without a look at what its job
says (`http_connection`), so it ends in time by itself.

`ports` is what an executor needs of a job, `limits` what a command may use, `output` turns bytes into log
chunks. All of it is pure Python without frameworks, so it can be tested, and used, without a worker.
"""
