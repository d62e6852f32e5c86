"""The shell executor's body: `python -m tests.faults.shell_body SECONDS FAIL_FIRST FOLDER`, history like the others'.

The command gets a clean environment; the run and the attempt are in it, the token is not.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Work, then exit with 0, or with 3 in an attempt that should fail."""
    from tests.faults.history import Recorder

    seconds, fail_first, folder = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    attempt = int(os.environ["SIGNALBOX_ATTEMPT"])
    facts = {"run": os.environ["SIGNALBOX_RUN_ID"], "attempt": attempt, "token": "", "form": "shell"}
    try:
        with Recorder(folder, {**facts, "parent": os.getppid()}):
            time.sleep(seconds)
            if attempt <= fail_first:
                raise RuntimeError("planned")
    except RuntimeError:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
