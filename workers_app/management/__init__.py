"""The command that starts a worker."""
