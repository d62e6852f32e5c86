"""What is around a body in a thread: after an interruption the next one finds a connection that works."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from tests.processes import until
from workers_app.execution import interruption
from workers_app.execution.surroundings import OfThread

pytestmark = pytest.mark.django_db(transaction=True)
NONCE = b"s" * 16


def test_an_interrupted_bodys_connection_is_not_the_next_ones():
    """As it is left when the exception arrives between the begin of a transaction and what would end it."""
    begun, seen = threading.Event(), []

    def bodies() -> None:
        try:
            with OfThread(NONCE, "it", "a function"):
                interruption.entered("it")
                connection.ensure_connection()
                seen.append(connection.connection)
                connection.in_atomic_block = True
                begun.set()
                while True:
                    sum(range(100))
        except interruption.Interruption:
            pass
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            seen.append(cursor.fetchone())
        seen.append((connection.in_atomic_block, connection.connection is seen[0]))
        connection.close()

    thread = threading.Thread(target=bodies)
    thread.start()
    assert begun.wait(10)
    until(lambda: interruption.interrupt(NONCE, "cancel"), "the body to be interrupted")
    thread.join(10)
    assert seen[1:] == [(1,), (False, False)]
