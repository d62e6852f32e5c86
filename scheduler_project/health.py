"""`/livez`, `/readyz` and `/metrics` of the web process."""

from __future__ import annotations
