"""How a worker talks to the control plane: one port, and one adapter a way of getting there.

`port` says what may be asked. `database` answers with the worker's own connection to the control plane's database,
which is the usual Django set-up; an HTTPS client with a worker key, for hosts that must not hold database credentials,
is a second adapter and passes the same contract suite. Workers know nothing but the port.
"""
