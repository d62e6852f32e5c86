"""Checks the model of claim, permit, lease and reaper (docs/model): every state of it, and of each of its mutants.

`python -m tests.model` (or `make model`) prints a table; the claim `faults.model` is the same, judged. The model must
hold, each mutant must fail: a property that nothing breaks proves nothing.
"""
