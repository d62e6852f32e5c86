"""Who may do what: log-in links now; API keys, worker keys, roles and permissions live here too."""
