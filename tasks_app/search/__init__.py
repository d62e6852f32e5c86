"""Searching runs: what a search says (`grammar`) and how it is answered (`pages`).

Every answer looks at a bounded number of rows, whatever is searched and however many runs there are. What an index
holds in the wanted order (a state, a task, the newest) is read from there; whatever else a search says is a condition
on the next some thousand rows of that. So a search for something rare ends early and says how far it looked, and the
next page goes on from there: a search that finds nothing costs the same as one that finds everything.

No index was added for it. A run in a state of those that people look for among millions (failed, lost, …) is found by
`run_not_completed`, those of a task by `run_by_task`. Waiting and running ones are in small indexes that are not in the
order of the list; there are few of them, so they are sorted (see `pages.SORTED_MAX`). An index of their own would cost
the claim, the permit and the end of each run an entry, and the list hardly anything without it.
"""
