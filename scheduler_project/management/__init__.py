"""The command line: `manage.py task | run | worker | prune …` for people and scripts, `run_…` for processes.

`face` is what the commands have in common (subcommands, one-line errors, exit codes), `output` writes tables, JSON,
YAML or names, `watch` follows a run. Each subcommand is one call into a service.
"""
