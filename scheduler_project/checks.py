"""What can be wrong with an installation, found by `manage.py check` (and `check --deploy`)."""

from __future__ import annotations
