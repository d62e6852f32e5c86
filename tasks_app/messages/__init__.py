"""What goes over the broker, as data. Pure: nothing here knows Celery, Kombu or Django.

`execution` builds and checks the message that starts a run: a native Celery message (protocol 2), so that every Celery
tool shows the real task name, with our envelope in one header, `signalbox`. `reports` packs what workers say about
attempts; heartbeats, what they say about themselves, are signed alike. `signing` holds the keys: a message is signed
over everything that decides what runs (function, queue, run, attempt, token, Celery id, digest of the arguments, time
limit, tracing ids), because a signature over the body alone would let anyone with access to the broker swap the
function's name.

JSON only. Each format carries a version `v`; a reader refuses versions that it does not know and ignores keys that it
does not know.
"""
