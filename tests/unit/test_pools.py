"""Which pools run managed bodies, and what a worker is told that asks for another."""

from __future__ import annotations

import pytest
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads
from django.core.management import call_command
from django.core.management.base import CommandError

from workers_app import pools
from workers_app.conf import WorkerSettings


@pytest.mark.parametrize(
    ("told", "name"),
    [("prefork", "prefork"), ("processes", "prefork"), (Prefork, "prefork"), (Threads, "threads"), (Solo, "solo")],
)
def test_celerys_names_and_classes_are_known(told, name):
    assert pools.of_celery(told).name == name
    assert pools.in_one_process(name) is (name != "prefork")


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_green_pools_are_refused_with_a_reason(name):
    with pytest.raises(ValueError, match=f"the pool {name} is not supported: its bodies share one thread"):
        pools.of_celery(name)
    with pytest.raises(ValueError, match="known: prefork, threads, solo"):
        pools.of_celery("fork")


def test_only_processes_are_killed_whatever_python_code_does():
    assert pools.POOLS["prefork"].can_end == dict.fromkeys(("python", "shell", "http"), "ALWAYS")
    for name in ("threads", "solo"):
        assert pools.POOLS[name].can_end == {"python": "BETWEEN_INSTRUCTIONS", "shell": "ALWAYS", "http": "ALWAYS"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool": "gevent"}, "not supported"),
        ({"pool": "threads", "max_tasks_per_child": 5}, "the pool threads has none"),
        ({"pool": "solo", "max_memory_per_child_kib": 5}, "the pool solo has none"),
        ({"pool": "threads", "permits": "each"}, "lets pool processes ask"),
        ({"max_tasks_per_child": -1}, "0 or more"),
    ],
)
def test_settings_that_contradict_the_pool_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        WorkerSettings(**settings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "gevent"}, "its bodies share one thread"),
        ({"pool": "solo", "slots": 2}, "--slots must be 1"),
        ({"pool": "threads", "max_tasks_per_child": 5}, "the pool threads has none"),
        ({"slots": 0}, "--slots must be 1 or more"),
    ],
)
def test_the_command_refuses_what_cannot_be(options, said):
    with pytest.raises(CommandError, match=said):
        call_command("run_worker", name="no", **options)
