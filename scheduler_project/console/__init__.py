"""The web console: pages for operators (`pages`), and beside them Django's admin site, for every table.

Of the admin site: what the lifecycle owns is read-only here: runs, attempts, events, output, incarnations, fires. What
can be done about them is an action, and each action is a call into a service; editing a task is, too. Lists never count
or sort more than `listing.ROWS_MAX` rows and search by id or by the beginning of a name, so they stay quick over
millions of rows.
"""
