"""What a body can be. `shell` runs a command; python functions are registered Celery tasks and need nothing.

A shell command is never a child of the pool process: between them stands `shell_supervisor`, one small
process for each command. The pool process may be killed at any moment (deadline, lease, out of memory), and
then somebody must be left that ends the command and everything that it started. The supervisor learns of
the death by a pipe that closes, adopts what daemonized (subreaper), and is done only when the kernel says
that it has no child left.

`ports` is what an executor needs of a job, `limits` what a command may use, `output` turns bytes into log
chunks. All of it is pure Python without frameworks, so it can be tested, and used, without a worker.
"""
