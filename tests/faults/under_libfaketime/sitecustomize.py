"""Lets a process sleep under libfaketime: imported by Python itself at its start when this folder is on PYTHONPATH.

Told to leave the monotonic clocks alone, libfaketime 0.9.10 hands `clock_nanosleep` a deadline that it never filled
in, and every `time.sleep` fails with EINVAL. No host does that: sleep goes by way of select, which promises the same.
"""

import importlib.machinery
import importlib.util
import select
import sys
import time
from pathlib import Path


def _sleep(seconds):
    select.select([], [], [], seconds)


time.sleep = _sleep

# Python imports one sitecustomize: the next one on the path (a mutant's) is imported from here.
_rest = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", _rest)
if _next is not None and _next.loader is not None:
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
