"""Each check of the doctor finds what it is for: with servers that are away, and with rows that nobody looks after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import translation

from dispatch import broker_probe
from dispatch.doctor import CHECKS, Finding, Severity, examine
from dispatch.doctor.broker import Broker
from dispatch.doctor.cache import Cache
from dispatch.doctor.clock_skew import ClockSkew
from dispatch.doctor.configuration import Configuration
from dispatch.doctor.database import Database
from dispatch.doctor.silent_roles import SilentRoles
from dispatch.doctor.stuck_runs import StuckRuns
from dispatch.doctor.unserved_queues import UnservedQueues
from dispatch.doctor.version_skew import VersionSkew
from tasks_app.clock import clock
from tasks_app.models import Task, TaskRun
from tests.integration.domain import NOW, AWorker, FixedClock, a_run_in, a_task, claimed, running, submitted
from tests.servers.process import free_port
from workers_app.models import Worker, WorkerIncarnation

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def codes(check: Any, now: datetime = NOW) -> list[str]:
    found = list(check.find(now))
    assert all(isinstance(finding, Finding) and finding.text and finding.remedy for finding in found)
    return [finding.code for finding in found]


def heard(worker: AWorker, at: datetime) -> None:
    Worker.objects.filter(pk=worker.name).update(last_heartbeat=at)


@pytest.fixture
def broker_there(settings, valkey) -> None:
    settings.BROKER_URL = valkey.url
    broker_probe._seen.clear()


def doctor(tmp_path: Any, **environment: str) -> tuple[int, Any, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALBOX_")}
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"], cwd=django_settings.BASE_DIR, capture_output=True, text=True,
        env=clean | {"SIGNALBOX_STATE_DIR": str(tmp_path)} | environment, timeout=60,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stdout + done.stderr


# -- servers ----------------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_said_and_what_needs_none_is_looked_at_all_the_same(tmp_path):
    url = f"postgresql://ada:hunter2secret@127.0.0.1:{free_port()}/none"
    code, answer, text = doctor(tmp_path, SIGNALBOX_DATABASE_URL=url)
    found = {finding["code"]: finding["severity"] for finding in answer["found"]}
    assert (code, answer["well"], answer["looked"]) == (1, False, ["database", "broker", "cache"])
    assert found == {"database.away": "error", "broker.away": "error"}
    assert "hunter2secret" not in text


def test_tables_that_were_never_made_are_an_error_with_its_command(tmp_path):
    code, answer, _ = doctor(tmp_path)
    [finding] = [one for one in answer["found"] if one["check"] == "database"]
    assert (code, finding["code"], finding["remedy"]) == (1, "database.migrations", "Run: manage.py migrate")


def test_a_database_that_is_there_with_its_tables_is_well():
    assert codes(Database()) == []


def test_a_broker_is_tried_with_the_address_that_dispatchers_use(settings, valkey):
    settings.BROKER_URL = valkey.url
    assert codes(Broker()) == []
    settings.BROKER_URL = f"redis://:hunter2secret@127.0.0.1:{free_port()}/0"
    [finding] = Broker().find(NOW)
    assert (finding.code, finding.severity) == ("broker.away", Severity.ERROR)
    assert "hunter2secret" not in finding.text
    settings.BROKER_URL = "sqs://"
    assert codes(Broker()) == ["broker.unknown"]


def test_a_scheme_that_workers_cannot_use_is_refused_with_one_for_the_same_server(settings, valkey):
    settings.BROKER_URL = valkey.url.replace("redis:", "valkey:")
    [finding] = Broker().find(NOW)
    assert finding.code == "broker.unknown"
    assert "redis:// or redis-stream:// (Valkey" in finding.text


@pytest.mark.parametrize(("scheme", "port"), [("redis-stream", 6379), ("rediss-stream", 6379), ("amqps", 5671)])
def test_an_address_without_a_port_is_looked_at_where_its_scheme_says(settings, monkeypatch, scheme, port):
    settings.BROKER_URL = f"{scheme}://nobody.invalid"
    monkeypatch.setattr(broker_probe, "_accepts", lambda _address: False)
    assert broker_probe.unreachable() == f"nobody.invalid:{port}"


def test_a_cache_that_is_away_or_forgets_is_an_error(settings, redis_server):
    redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_server.url}
    settings.CACHES = {"default": redis}
    assert codes(Cache()) == []
    settings.CACHES = {"default": redis | {"LOCATION": f"redis://127.0.0.1:{free_port()}/0"}}
    assert codes(Cache()) == ["cache.away"]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert codes(Cache()) == ["cache.forgets"]


@pytest.mark.postgresql_only
@pytest.mark.parametrize(("ahead", "word"), [(100, "ahead"), (-100, "behind")])
def test_a_host_whose_clock_is_off_is_told_by_how_much(ahead, word):
    [finding] = ClockSkew(lambda: datetime.now(UTC) + timedelta(seconds=ahead)).find(NOW)
    assert f"{word} of" in finding.text or f"{word} the" in finding.text
    assert " 100." in finding.text or " 99.9" in finding.text


def test_a_clock_that_agrees_is_well():
    assert codes(ClockSkew()) == []


# -- runs -------------------------------------------------------------------------------------------------------------


def test_runs_far_past_their_deadline_are_an_error_with_their_ids():
    permit = running(timeout_seconds=60)
    assert codes(StuckRuns(), NOW + timedelta(seconds=120)) == [], "the reaper and the lease have their time"
    [finding] = StuckRuns().find(NOW + HOUR)
    assert (finding.code, finding.severity) == ("stuck_runs.past_deadline", Severity.ERROR)
    assert str(permit.run_id) in finding.text


def test_a_cancel_that_does_nothing_is_a_warning():
    permit = running(timeout_seconds=7200)
    TaskRun.objects.filter(pk=permit.run_id).update(cancel_requested_at=NOW)
    assert codes(StuckRuns(), NOW + timedelta(seconds=10)) == []
    assert codes(StuckRuns(), NOW + HOUR) == ["stuck_runs.not_stopping"]


def test_quarantined_runs_wait_for_a_person():
    from tasks_app.states import RunStatus

    run = a_run_in(RunStatus.QUARANTINED)
    [finding] = StuckRuns().find(NOW)
    assert (finding.code, finding.severity) == ("stuck_runs.quarantined", Severity.WARNING)
    assert str(run.pk) in finding.text


def test_of_many_runs_only_some_ids_are_named():
    for _ in range(7):
        running(timeout_seconds=1)
    [finding] = StuckRuns().find(NOW + HOUR)
    assert finding.text.startswith("7 runs ")
    assert finding.text.endswith(" ….")


# -- roles ------------------------------------------------------------------------------------------------------------


def test_no_worker_at_all_is_a_warning():
    assert codes(SilentRoles()) == ["silent_roles.no_worker"]


def test_due_runs_that_nobody_takes_although_slots_are_free_mean_a_silent_dispatcher(broker_there):
    worker = AWorker()
    heard(worker, NOW)
    submitted()
    assert codes(SilentRoles(), NOW + timedelta(seconds=2)) == []
    assert codes(SilentRoles(), NOW + timedelta(seconds=29)) == ["silent_roles.dispatcher"]
    Task.objects.update(paused_at=NOW)
    assert codes(SilentRoles(), NOW + timedelta(seconds=29)) == [], "what a person holds back is not the dispatcher's"


def test_a_dispatcher_that_waits_for_its_broker_is_not_silent(settings):
    settings.BROKER_URL = f"redis://127.0.0.1:{free_port()}/0"
    broker_probe._seen.clear()
    heard(AWorker(), NOW)
    submitted()
    assert codes(SilentRoles(), NOW + timedelta(seconds=29)) == []


def test_messages_and_leases_that_nobody_takes_back_mean_a_silent_reaper(broker_there):
    worker = AWorker()
    heard(worker, NOW)
    claimed(*submitted())
    WorkerIncarnation.objects.update(renewed_at=NOW + HOUR)
    heard(worker, NOW + HOUR)
    assert codes(SilentRoles(), NOW + HOUR) == ["silent_roles.reaper"]
    TaskRun.objects.all().delete()
    assert codes(SilentRoles(), NOW + HOUR) == []
    WorkerIncarnation.objects.update(renewed_at=NOW)
    assert codes(SilentRoles(), NOW + timedelta(seconds=90)) == []
    assert codes(SilentRoles(), NOW + HOUR) == ["silent_roles.reaper"]


def test_heartbeats_that_nobody_writes_down_mean_a_silent_ingest_and_of_one_worker_alone_that_worker():
    one, other = AWorker(), AWorker()
    now = NOW + timedelta(seconds=40)
    heard(one, NOW)
    assert codes(SilentRoles(), now) == ["silent_roles.ingest"]
    heard(one, now)
    [finding] = SilentRoles().find(now)
    assert finding.code == "silent_roles.worker"
    assert other.name in finding.text
    heard(other, now)
    assert codes(SilentRoles(), now) == []


def test_workers_of_different_versions_are_named_with_them(monkeypatch):
    first, second = AWorker(), AWorker()
    WorkerIncarnation.objects.update(code_version="v1")
    assert codes(VersionSkew()) == []
    WorkerIncarnation.objects.filter(worker=second.name).update(code_version="v2")
    [finding] = VersionSkew().find(NOW)
    assert f"v1: {first.name}; v2: {second.name}" in finding.text
    second.over()
    assert codes(VersionSkew()) == []
    monkeypatch.setenv("CODE_VERSION", "v3")
    assert codes(VersionSkew()) == ["version_skew.workers"]


def test_a_task_type_without_a_worker_is_an_error_only_while_runs_wait():
    AWorker(task_types=("default",))
    a_task()
    task = a_task(task_type="reports")
    [finding] = UnservedQueues().find(NOW)
    assert (finding.code, finding.severity) == ("unserved_queues.idle", Severity.WARNING)
    assert "--task-types" in finding.remedy
    assert "reports" in finding.remedy
    submitted(task)
    assert codes(UnservedQueues()) == ["unserved_queues.waiting"]


def test_runs_keep_the_type_that_they_were_submitted_with_and_are_seen_waiting_for_it():
    AWorker(task_types=("new",))
    task = a_task(task_type="old")
    submitted(task, due_at=NOW + HOUR)
    Task.objects.filter(pk=task.pk).update(task_type="new")
    assert codes(UnservedQueues()) == []
    [finding] = UnservedQueues().find(NOW + HOUR)
    assert (finding.code, finding.severity) == ("unserved_queues.waiting", Severity.ERROR)
    assert '"old"' in finding.text


# -- configuration ----------------------------------------------------------------------------------------------------


def test_configuration_that_a_deployment_would_not_accept_is_named():
    found = {finding.code: finding for finding in Configuration().find(NOW)}
    assert found["configuration.signalbox.W001"].severity is Severity.WARNING
    assert "SIGNALBOX_SIGNING_KEY" in found["configuration.signalbox.W001"].remedy


def test_a_section_that_cannot_be_read_is_an_error(settings):
    settings.SIGNALBOX = django_settings.SIGNALBOX | {"dispatch": {"tick_second": 1}}
    worst = next(iter(Configuration().find(NOW)))
    assert (worst.code, worst.severity) == ("configuration.signalbox.E002", Severity.ERROR)


def test_workers_with_another_lease_than_this_process_knows_are_named():
    AWorker(lease_seconds=60)
    assert "configuration.lease" not in codes(Configuration())
    other = AWorker(lease_seconds=17)
    [finding] = [one for one in Configuration().find(NOW) if one.code == "configuration.lease"]
    assert other.name in finding.text


# -- all together -----------------------------------------------------------------------------------------------------


class Broken:
    name = "broken"
    needs_database = True

    def find(self, now: datetime) -> list[Finding]:
        raise ZeroDivisionError("a secret")


def test_a_check_that_fails_is_a_finding_and_the_others_are_made():
    result = examine(FixedClock(), [Broken(), StuckRuns()])
    [(check, finding)] = result.found
    assert (check, finding.code, result.looked, result.well) == (
        "broken", "broken.failed", ["broken", "stuck_runs"], False,
    )  # fmt: skip
    assert "ZeroDivisionError" in finding.text
    assert "a secret" not in finding.text


def test_every_check_is_made():
    assert examine(clock).looked == [check.name for check in CHECKS]
    assert len({check.name for check in CHECKS}) == 9


def test_the_command_says_what_is_wrong_in_the_readers_language_and_exits_with_1(broker_there):
    submitted(a_task(task_type="reports"), due_at=clock.now())
    out = StringIO()
    with pytest.raises(CommandError) as refused:
        call_command("doctor", stdout=out, no_color=True)
    assert refused.value.returncode == 1
    assert "error unserved_queues.waiting\n" in out.getvalue()
    assert '  → Start one: manage.py run_worker --task-types "reports"' in out.getvalue()
    out = StringIO()
    with translation.override("zh-hans"), pytest.raises(CommandError):
        call_command("doctor", stdout=out, no_color=True)
    assert "错误 unserved_queues.waiting\n" in out.getvalue()
    assert "任务类型" in out.getvalue()


def test_warnings_alone_exit_with_0(broker_there):
    out = StringIO()
    call_command("doctor", "--json", stdout=out)
    answer = json.loads(out.getvalue())
    assert answer["well"] is True
    assert {finding["severity"] for finding in answer["found"]} == {"warning"}
