"""The composition root and the outer faces: settings, Celery's app, HTTP, console, commands, supervisor.

Nothing imports this package; it imports everything. Configuration is read once, validated in `config`, and handed down
as `settings.SIGNALBOX`. `celery` makes the Celery app and connects every signal in one place. `api`, `console` and
`management` are the faces: each parses, makes one call into a service, and answers. `supervise` is behind `make run`.
"""
