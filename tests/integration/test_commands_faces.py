"""The commands for people: what they write, where, and with which exit code."""

import json
import threading
import time

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.db import OperationalError, connection

from scheduler_project.management import output
from tasks_app import admission, services
from tasks_app.clock import clock
from tasks_app.models import RunLogChunk, Task, TaskRun
from tasks_app.states import Outcome
from tests.integration.faces import a_task, a_worker, as_from_a_shell, ended, running
from workers_app.models import Worker

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_backlog():
    admission.forget()


@pytest.fixture
def manage(capsys, monkeypatch):
    return as_from_a_shell(capsys, monkeypatch)


def answer(done):
    code, out, err = done
    assert code == 0, err
    return json.loads(out)


# --- tasks


def test_a_task_is_made_shown_changed_and_deleted(manage):
    made = answer(manage("task", "create", "nightly", "--command", "echo hi", "--every", "60", "-o", "json"))
    assert made["parameters"] == {"command": "echo hi", "shell": True}
    assert made["every_seconds"] == 60
    assert made["created_by"].endswith("(command)")
    changed = answer(manage("task", "update", "nightly", "--set", "max_retries=0", "--if-version", "1", "-o", "json"))
    assert (changed["version"], changed["max_retries"]) == (2, 0)
    assert manage("task", "update", "nightly", "--set", "max_retries=1", "--if-version", "1")[0] == 1
    assert answer(manage("task", "show", str(made["id"]), "-o", "json"))["name"] == "nightly"
    assert manage("task", "delete", "nightly") == (0, "", "")
    assert not Task.objects.live().exists()


def test_a_python_task_is_made_with_arguments_from_standard_input(manage):
    made = answer(
        manage(
            "task", "create", "words", "--function", "demo.count_words", "--parameters", "-", "-o", "json",
            stdin='{"args": ["README.md"]}',
        )
    )  # fmt: skip
    assert made["parameters"] == {"function": "demo.count_words", "args": ["README.md"]}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("task", "lst"), 2, 'did you mean "list"?'),
        (("task", "list", "-o", "jsn"), 2, 'did you mean "json"?'),
        (("task",), 2, "ACTION"),
        (("task", "show", "nightl"), 1, 'there is no task "nightl"; did you mean "nightly"?'),
        (("task", "create", "x", "--function", "demo.count_word"), 1, 'did you mean "demo.count_words"?'),
        (("task", "create", "x", "--set", "timeout_second=5", "--command", "ls"), 1, 'did you mean "timeout_seconds"?'),
        (("task", "create", "x", "--set", "oops"), 2, "FIELD=VALUE"),
        (("task", "create", "x", "--executor", "shell", "--parameters", "{"), 2, "not JSON"),
        (("task", "create", "x", "--executor", "shell", "--parameters", "@/no/such"), 2, "No such file"),
        (
            ("task", "create", "x", "--executor", "http", "--parameters", '{"url": "file:///"}'),
            1,
            "http:// or https://",
        ),
        (("task", "create", "nightly", "--command", "ls"), 1, "exists already"),
        (("task", "trigger", "nightly", "--parameters", '{"argv": []}'), 1, "parameters"),
        (("task", "show", "a\x00b"), 1, "there is no task"),
        (("run", "show", "999"), 1, "There is no such run"),
        (("run", "show", "abc"), 2, "abc"),
        (("run", "list", "--status", "PENDIN"), 2, 'did you mean "PENDING"?'),
        (("worker", "show", "rack-2"), 1, 'did you mean "rack-1"?'),
        (("prune", "--older-than", "soon"), 2, "30d"),
        (("prune", "--older-than", "30d", "--state", "RUNNING"), 2, "RUNNING"),
        (("prune",), 2, "--older-than"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_on_stderr(manage, words, code, message):
    a_task("nightly")
    a_worker("rack-1")
    found, out, err = manage(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_database_that_cannot_be_reached_is_exit_3(manage, monkeypatch):
    def away(*_args, **_kwargs):
        raise OperationalError("connection\nrefused")

    monkeypatch.setattr(services, "find_run", away)
    code, _, err = manage("run", "show", "1")
    assert (code, err.count("\n")) == (3, 1)


def test_every_form_says_the_same(manage):
    a_task("nightly")
    a_task("维护")
    as_json = answer(manage("task", "list", "-o", "json"))
    assert [task["name"] for task in as_json] == ["nightly", "维护"]
    assert yaml.safe_load(manage("task", "list", "-o", "yaml")[1]) == as_json
    assert manage("task", "list", "-o", "name")[1] == "nightly\n维护\n"
    table = manage("task", "list")[1].splitlines()
    assert table[0].split()[:3] == ["ID", "NAME", "STATE"]
    assert len({len(line.split("ACTIVE")[0].encode("gbk")) for line in table[1:]}) == 1  # columns stay columns


def test_nothing_is_cut_in_a_pipe_and_lines_fit_a_terminal(monkeypatch):
    rows = [{"name": "x" * 500, "status": "FAILED"}]
    monkeypatch.setenv("COLUMNS", "40")
    piped = output.rendered(rows, form="table", columns=("status", "name"), name="name", terminal=False)
    assert "x" * 500 in piped
    assert "\x1b" not in piped
    shown = output.rendered(rows, form="table", columns=("status", "name"), name="name", terminal=True)
    assert "…" in shown
    assert "\x1b[31mFAILED" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in output.rendered(rows, form="table", columns=("status",), name="name", terminal=True)


def test_a_terminal_is_not_sent_what_a_job_put_into_a_name():
    rows = [{"name": "a\x1b[2Jb\nc"}]
    assert output.rendered(rows, form="table", columns=("name",), name="name", terminal=False) == "NAME\na [2Jb c"


def test_a_task_is_paused_and_resumed(manage):
    a_task("nightly")
    assert answer(manage("task", "pause", "nightly", "--reason", "disk", "-o", "json"))["state"] == "PAUSED"
    assert answer(manage("task", "resume", "nightly", "-o", "json"))["state"] == "ACTIVE"


# --- runs


def test_runs_are_triggered_listed_cancelled_and_retried(manage):
    a_task("nightly")
    run = answer(manage("run", "trigger", "nightly", "-o", "json"))
    assert (run["status"], run["triggered_by"]) == ("PENDING", "command")
    assert manage("run", "list", "--task", "nightly", "-o", "name")[1] == f"{run['id']}\n"
    assert manage("run", "list", "--status", "failed", "-o", "name")[1] == ""
    assert manage("run", "cancel", str(run["id"]))[0] == 0
    assert manage("run", "cancel", str(run["id"]))[0] == 1  # it has ended
    again = answer(manage("run", "retry", str(run["id"]), "-o", "json"))
    assert again["retry_of_id"] == run["id"]


def test_why_says_what_is_in_the_way(manage):
    run = services.trigger(a_task())
    reasons = answer(manage("run", "why", str(run.pk), "-o", "json"))
    assert "no_worker" in {reason["code"] for reason in reasons}
    ended(run)
    assert "COMPLETED" in manage("run", "why", str(run.pk))[1]


def test_a_quarantined_run_is_released(manage):
    run = ended(services.trigger(a_task(quarantine_after=1)), Outcome.LOST, retryable=True)
    assert answer(manage("run", "release", str(run.pk), "-o", "json"))["status"] == "PENDING"


def chunk(run, seq, text, stream="stdout"):
    RunLogChunk.objects.create(
        run=run, attempt=1, seq=seq, stream=stream, text=text, token=run.correlation_id, at=clock.now()
    )


def test_a_log_goes_where_the_job_wrote_it(manage):
    run = services.trigger(a_task())
    chunk(run, 1, "out\n")
    chunk(run, 2, "err\n", "stderr")
    chunk(run, 3, "more")
    assert manage("run", "log", str(run.pk)) == (0, "out\nmore", "err\n")


def test_watching_shows_the_log_and_ends_with_the_run(manage):
    run = services.trigger(a_task())
    chunk(run, 1, "hello\n")
    ended(run)
    code, out, err = manage("run", "show", str(run.pk), "--watch")
    assert (code, out) == (0, "hello\n")
    assert f"run {run.pk} COMPLETED" in err


def test_watching_a_run_that_fails_is_exit_1_with_the_reason(manage):
    run = ended(services.trigger(a_task()), Outcome.FAILED, error_message="Traceback\nValueError: no")
    code, _, err = manage("run", "show", str(run.pk), "--watch")
    assert code == 1
    assert err.endswith("ended as FAILED: ValueError: no\n")
    as_json = manage("run", "show", str(run.pk), "--watch", "-o", "json")
    assert (as_json[0], json.loads(as_json[1])["status"]) == (1, "FAILED")


def test_watching_ends_at_its_timeout_and_the_run_goes_on(manage):
    a_task("nightly")
    began = time.monotonic()
    code, _, err = manage("run", "trigger", "nightly", "--watch", "--timeout", "0.3")
    assert (code, TaskRun.objects.get().status) == (124, "PENDING")
    assert time.monotonic() - began < 10
    assert "it goes on" in err


@pytest.mark.django_db(transaction=True)
def test_watching_follows_a_run_while_it_is_written(manage):
    run = running(services.trigger(a_task()))
    assert run.token is not None
    token = run.token

    def work():
        try:
            chunk(run, 1, "one\n")
            time.sleep(0.4)
            chunk(run, 2, "two\n")
            from tasks_app import lifecycle

            now = clock.now()
            report = lifecycle.Finished(run_id=run.pk, attempt=1, token=token, outcome=Outcome.COMPLETED, ended_at=now)
            lifecycle.finish([report], now=now)
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    code, out, err = manage("run", "log", str(run.pk), "--follow", "--timeout", "30")
    worker.join()
    assert (code, out) == (0, "one\ntwo\n")
    assert "COMPLETED" in err


# --- workers, prune, access, demonstration


def test_a_worker_is_drained_and_resumed(manage):
    a_worker("w1")
    assert answer(manage("worker", "drain", "w1", "-o", "json"))["state"] == "DRAINING"
    assert Worker.objects.get().drain_requested_by.endswith("(command)")
    assert answer(manage("worker", "resume", "w1", "-o", "json"))["state"] == "ONLINE"
    assert manage("worker", "list", "-o", "name")[1] == "w1\n"


def test_old_runs_are_pruned_and_active_ones_never(manage):
    from datetime import timedelta

    task = a_task()
    old, young, active = ended(services.trigger(task)), ended(services.trigger(task)), services.trigger(task)
    TaskRun.objects.filter(pk=old.pk).update(completed_at=clock.now() - timedelta(days=31))
    counted = answer(manage("prune", "--older-than", "30d", "--dry-run", "-o", "json"))
    assert (counted["runs"], TaskRun.objects.count()) == (1, 3)
    assert answer(manage("prune", "--older-than", "30d", "--state", "failed", "-o", "json"))["runs"] == 0
    assert answer(manage("prune", "--older-than", "30d", "-o", "json"))["runs"] == 1
    assert set(TaskRun.objects.values_list("pk", flat=True)) == {young.pk, active.pk}


def test_a_log_in_link_is_one_line_that_works_once(manage):
    from django.test import Client

    code, out, _ = manage("create_login_link")
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("/login/once/")
    assert Client().post(out.strip()).status_code == 302
    assert manage("create_login_link", "--user", "nobody")[0] == 1
    assert manage("create_login_link", "--base-url", "http://h/")[1].startswith("http://h/login/once/")


def test_the_demonstration_is_seeded_once_and_what_was_deleted_stays_deleted(manage):
    assert manage("seed_demo")[1].splitlines() == ["demo.archive_folder", "demo.count_words", "demo.disk_report"]
    assert TaskRun.objects.filter(triggered_by="seed").count() == 3
    services.delete_task(services.find_task("demo.disk_report").pk)
    assert manage("seed_demo")[1] == ""
    assert Task.objects.live().count() == 2


def test_the_demonstration_does_something_real(tmp_path):
    from scheduler_project import demo

    text = tmp_path / "text"
    text.write_text("one two, two\nthree THREE three!\n")
    counted = demo.count_words(str(text))
    assert (counted["lines"], counted["words"], counted["most_common"][0]) == (2, 6, ["three", 3])
    report = demo.disk_report()
    assert report
    assert all(0 <= disk["free_percent"] <= 100 and disk["bytes"] > 0 for disk in report)


@pytest.mark.parametrize("limit", ["-1", "0", "x", "1.5"])
def test_a_list_of_fewer_than_one_is_refused(manage, limit):
    code, _, err = manage("run", "list", f"--limit={limit}")
    assert code == 2
    assert "must be a whole number above 0" in err


OWN_COMMANDS = sorted(
    (app, name)
    for name, app in get_commands().items()
    if app in ("dispatch", "scheduler_project", "tasks_app", "workers_app")
)


@pytest.mark.parametrize(("app", "name"), OWN_COMMANDS, ids=[name for _, name in OWN_COMMANDS])
def test_every_command_describes_itself_in_both_languages(app, name):
    from django.utils import translation

    described = set()
    for language in ("en", "zh-hans"):
        with translation.override(language):
            described.add(load_command_class(app, name).create_parser("manage.py", name).format_help())
    assert len(described) == 2


def test_help_is_there_in_chinese(manage):
    from django.utils import translation

    with translation.override("zh-hans"):
        _, out, _ = manage("run", "why", "--help")
    assert "运行为何没有启动" in out
