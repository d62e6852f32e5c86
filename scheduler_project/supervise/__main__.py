"""`python -m scheduler_project.supervise`: what `make run` calls."""

from __future__ import annotations

import sys


def main() -> int:
    """Run until told to stop. The exit status: 0 after an orderly end, 1 when something was wrong."""
    if sys.version_info < (3, 11):
        found = ".".join(map(str, sys.version_info[:2]))
        cure = "make run PYTHON=python3.11"
        print(f"error: Python 3.11 or newer is needed, this is {found}; {cure}", file=sys.stderr)
        return 1
    from scheduler_project.supervise import preflight
    from scheduler_project.supervise.supervisor import Supervisor

    try:
        plan = preflight.plan(sys.argv[1:])
    except preflight.CannotStart as error:
        for line in error.args:
            print(f"error: {line}", file=sys.stderr)
        return 1
    with plan:
        return Supervisor(plan).run()


if __name__ == "__main__":
    sys.exit(main())
