"""The only writer of `TaskRun.status`.

One module a verb, each for many runs at once (one is a list of one). Every verb follows the same three steps inside
one transaction:

1. lock the rows by primary key, in sorted order. Sorted, so that two verbs over overlapping sets cannot deadlock; by
   primary key, because with stale statistics PostgreSQL chooses a partial index on the status for a guarded UPDATE
   and reads tens of thousands of rows;
2. compare id, token (or attempt) and status in the locked row. Whoever writes by id alone overwrites a run that
   finished in the meantime, the reaper included;
3. decide purely (`retry.decide`) and write all rows with one statement.

SQLite has no row locks; there the same verbs run inside IMMEDIATE transactions, which is one lock for everything.
`rows` holds the two ways of writing many rows, and one contract suite runs on both databases.

Verbs return what moved and what was stale; those for one run raise `StaleTransition` instead. Nothing is published
here. A verb that makes something due rings the doorbell in its transaction (`wake`): it is heard when that commits.

Submission, permit, cancel and finish commit synchronously: each is answered to somebody who acts on it.
"""

from tasks_app.lifecycle.cancel import CancelAnswer, cancel, release, skip
from tasks_app.lifecycle.claim import Claimed, claim
from tasks_app.lifecycle.facts import Finished, HandBack, Holder, PermitAsk, Permitted, Refused
from tasks_app.lifecycle.finish import FinishResult, finish
from tasks_app.lifecycle.permit import permit
from tasks_app.lifecycle.reap import lose, request_timeout_stops, retract_unpermitted
from tasks_app.lifecycle.recede import hand_back, reassert, unpublish
from tasks_app.lifecycle.submit import NewRun, as_submitted, submit
from tasks_app.lifecycle.wake import wake_dispatchers

__all__ = [
    "CancelAnswer",
    "Claimed",
    "FinishResult",
    "Finished",
    "HandBack",
    "Holder",
    "NewRun",
    "PermitAsk",
    "Permitted",
    "Refused",
    "as_submitted",
    "cancel",
    "claim",
    "finish",
    "hand_back",
    "lose",
    "permit",
    "reassert",
    "release",
    "request_timeout_stops",
    "retract_unpermitted",
    "skip",
    "submit",
    "unpublish",
    "wake_dispatchers",
]
