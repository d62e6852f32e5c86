"""Who may do what: one-time log-in links, families of tokens, authentication and permissions.

Tokens of the API are JSON web tokens. simplejwt's blacklist is not used: a family, one row a log-in that names the only
refresh token that is good now, does all of it with one row. Rotation is a compare-and-set under the row's lock, so two
refreshes with one token cannot both win; a refresh token that comes a second time was copied, and ends its family with
every access token of it.
"""
