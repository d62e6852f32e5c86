"""What is wrong with an installation, and what to do about it: one check a module, each one object.

A check looks at what the database, the broker and the cache say by themselves; there is no list of processes that it
could ask. So a role is silent when what it does is not done: nobody claims what is due, nobody takes back what was not
permitted in time, nobody writes down the heartbeats of workers that renew their leases.

* `findings`         what a check says, and what a check is
* `examination`      all of them, one after the other; a check that fails is a finding itself
* `database`, `broker`, `cache`, `clock_skew`, `stuck_runs`, `silent_roles`, `version_skew`, `unserved_queues`,
  `configuration`    the checks

An error means that runs do not go on, or not as they should; a warning, that somebody should look.
"""

from dispatch.doctor.examination import CHECKS, Examination, examine
from dispatch.doctor.findings import Check, Finding, Severity

__all__ = ["CHECKS", "Check", "Examination", "Finding", "Severity", "examine"]
