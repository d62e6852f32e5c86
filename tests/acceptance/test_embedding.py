"""A Django project that is not ours, with Celery tasks of its own: a few apps and one setting, and they run here."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.processes import until
from tests.servers import leash

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).resolve().parents[2]
SHOP = Path(__file__).with_name("shop")
FINAL = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "SKIPPED", "LOST"}


class Shop:
    """The project with its database and broker; each process is started by its own manage.py."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder, self.database = folder, folder / "shop.sqlite3"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNALBOX_", "DJANGO_", "PYTEST_"))}
        self.environment = clean | {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "SHOP_DATABASE": str(self.database),
            "SHOP_BROKER": broker,
        }  # fmt: skip
        self.roles: dict[str, subprocess.Popen[bytes]] = {}

    def manage(self, *arguments: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=SHOP, env=self.environment | environment,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def standalone(self, *arguments: str) -> int:
        """A command of the platform's own project, on the same database."""
        own = {
            "SIGNALBOX_DATABASE_URL": f"sqlite:///{self.database}",
            "SIGNALBOX_STATE_DIR": str(self.folder / "state"),
        }
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment | own, timeout=60).returncode

    def start(self, *arguments: str) -> None:
        with open(self.folder / f"{arguments[0]}.log", "ab") as log:
            self.roles[arguments[0]] = subprocess.Popen(
                [sys.executable, "manage.py", *arguments], cwd=SHOP, env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        leash.hold(self.roles[arguments[0]].pid)

    def rows(self, sql: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(sql, values).fetchall()

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-4000:]}" for path in self.folder.glob("*.log"))

    def finished_runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its task's name, once all are final."""

        def look() -> dict[str, dict[str, Any]] | None:
            dead = [name for name, process in self.roles.items() if process.poll() is not None]
            assert not dead, f"{dead} ended\n{self.logs()}"
            columns = ("task_name", "status", "result", "attempt", "worker_id", "error_message")
            rows = self.rows(f"SELECT {', '.join(columns)} FROM tasks_app_taskrun")
            found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
            return found if found and all(run["status"] in FINAL for run in found.values()) else None

        try:
            return until(look, "every run to end", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def close(self) -> None:
        for process in self.roles.values():
            process.terminate()
        for process in self.roles.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            leash.release(process.pid)


@pytest.fixture
def shop(tmp_path: Path, valkey) -> Iterator[Shop]:
    made = Shop(tmp_path, valkey.url.rsplit("/", 1)[0] + "/7")
    yield made
    made.close()


def test_its_tasks_run_through_the_platform_as_they_are(shop: Shop):
    assert not re.search(r"tasks_app|workers_app|dispatch|signalbox", (SHOP / "orders/tasks.py").read_text())
    shop.manage("migrate", "-v0")
    [order] = shop.manage("place_order", "Ada").split()
    shop.start("run_dispatcher")
    shop.start("run_ingest")
    shop.start("run_worker", "--name", "till", "--slots", "2")
    runs = shop.finished_runs()
    assert {name: run["status"] for name, run in runs.items()} == {
        "orders.tasks.charge": "COMPLETED",
        "orders.tasks.send_receipt": "COMPLETED",
        "orders.refund": "FAILED",
        "shop.celery.ping": "COMPLETED",
    }, shop.logs()
    assert {run["worker_id"] for run in runs.values()} == {"till"}
    assert (json.loads(runs["orders.tasks.charge"]["result"]), runs["orders.tasks.charge"]["attempt"]) == (2, 2)
    assert json.loads(runs["shop.celery.ping"]["result"]) == {"text": "Ada", "task": "shop.celery.ping"}
    assert "was never paid" in runs["orders.refund"]["error_message"]
    [(tried, paid_at, receipt)] = shop.rows(
        "SELECT charges_tried, paid_at, receipt FROM orders_order WHERE id = ?", int(order)
    )
    assert (tried, paid_at is not None, receipt) == (2, True, "Dear Ada, thank you.")

    def printed() -> bool:
        text = "".join(row[0] for row in shop.rows("SELECT text FROM tasks_app_runlogchunk ORDER BY run_id, seq"))
        return "Dear Ada, thank you." in text and "charged Ada" in text

    until(printed, "what the bodies printed and logged")
    over = json.dumps({"args": [int(order)], "kwargs": {"greeting": "Dearest"}})
    command = ("run", "trigger", "orders.tasks.send_receipt", "--parameters", over, "--watch", "--timeout", "30")
    assert shop.standalone("migrate", "-v0") == 0
    assert shop.standalone(*command) == 0, shop.logs()
    assert shop.rows("SELECT receipt FROM orders_order") == [("Dearest Ada, thank you.",)]
    assert '"well": true' in shop.manage("doctor", "--json", SHOP_FACES="1")


def test_what_its_bodies_publish_goes_where_its_own_workers_look(shop: Shop):
    urgent = "CELERY_BROKER_TRANSPORT_OPTIONS = {'priority_steps': [0, 3, 6, 9], 'sep': ':'}"
    (shop.folder / "urgent_settings.py").write_text(f"from shop.settings import *\n{urgent}\n")
    shop.environment |= {"PYTHONPATH": f"{ROOT}:{shop.folder}", "DJANGO_SETTINGS_MODULE": "urgent_settings"}
    shop.manage("migrate", "-v0")
    submit = (
        "from tasks_app import services; from tasks_app.definitions import TaskDefinition; "
        "services.trigger(services.create_task(TaskDefinition(name='settle', executor='python', "
        "parameters={'function': 'orders.tasks.settle', 'args': [1]})))"
    )
    shop.manage("shell", "-v0", "-c", submit)
    with Redis.from_url(shop.environment["SHOP_BROKER"]) as broker:
        broker.flushdb()
        shop.start("run_dispatcher")
        shop.start("run_ingest")
        shop.start("run_worker", "--name", "till", "--slots", "1")
        assert shop.finished_runs()["settle"]["status"] == "COMPLETED", shop.logs()
        assert list(broker.scan_iter("shop*")) == [b"shop:6"]


def test_its_checks_are_clean_with_and_without_the_platforms_faces(shop: Shop):
    assert "no issues" in shop.manage("check")
    assert "no issues" in shop.manage("check", SHOP_FACES="1")
    assert "No changes detected" in shop.manage("makemigrations", "--check", "--dry-run", SHOP_FACES="1")


def test_commands_for_people_and_pages_in_its_admin_come_with_two_more_apps(shop: Shop):
    shop.manage("migrate", "-v0", SHOP_FACES="1")
    parameters = json.dumps({"function": "orders.tasks.send_receipt"})
    name = shop.manage(
        "task", "create", "receipt", "--executor", "python", "--parameters", parameters, "-o", "name", SHOP_FACES="1"
    )
    assert name.strip() == "receipt"
    refused = shop.manage(
        "task", "create", "typo", "--executor", "python", "--parameters", '{"function": "orders.tasks.send_reciept"}',
        SHOP_FACES="1", code=1,
    )  # fmt: skip
    assert 'did you mean "orders.tasks.send_receipt"' in refused
    pages = (
        "from django.test import Client; from django.contrib.auth.models import User; c = Client(); "
        "c.force_login(User.objects.create_superuser('ada')); "
        "print([c.get(f'/admin/{p}/', headers={'host': 'shop.example.org'}).status_code "
        "for p in ('tasks_app/taskrun', 'tasks_app/task', 'workers_app/worker')])"
    )
    assert "[200, 200, 200]" in shop.manage("shell", "-v0", "-c", pages, SHOP_FACES="1")


ITS_OWN_TEST = """
import pytest

from orders.models import Order

pytest_plugins = ["dispatch.pytest_plugin"]


@pytest.mark.parametrize("_again", [1, 2])
def test_an_order_is_charged_although_the_bank_is_busy(platform, _again):
    order = Order.objects.create(customer="Ada")
    platform.define("charge", "orders.tasks.charge", args=[order.pk], max_retries=1)
    run = platform.trigger("charge")
    platform.run_until_idle()
    order.refresh_from_db()
    assert (run.status, run.outcomes, run.result) == ("COMPLETED", ["FAILED", "COMPLETED"], 2)
    assert order.paid_at
"""


def test_its_own_tests_need_no_servers(shop: Shop):
    (shop.folder / "test_shop.py").write_text(ITS_OWN_TEST)
    nobody = {
        "PYTHONPATH": f"{ROOT}:{SHOP}",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_BROKER": "redis://nobody",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "test_shop.py"], cwd=shop.folder,
        env=shop.environment | nobody, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_plain_celery_worker_takes_the_shops_queues_and_not_the_platforms(shop: Shop):
    celery = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--pool=solo", "-l", "INFO"]
    done = subprocess.run(
        [*celery, "-Q", "task.execution.default,shop"], cwd=SHOP, env=shop.environment, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "only manage.py run_worker may take runs from task.execution.default" in done.stderr
    with open(shop.folder / "celery.log", "ab") as log:
        shop.roles["celery"] = subprocess.Popen(
            celery, cwd=SHOP, env=shop.environment, stdout=log, stderr=log, start_new_session=True
        )
    leash.hold(shop.roles["celery"].pid)
    shop.manage("shell", "-v0", "-c", "from shop.celery import ping; ping.delay('plain')")
    until(lambda: "'text': 'plain'" in (shop.folder / "celery.log").read_text(), "the plain task to run", 30)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("SIGNALBOX = {}", "celery_app"),
        ("SIGNALBOX = {'workers': {'celery_app': 'shop.celery.application'}}", "shop.celery.application"),
        ("SIGNALBOX = {'workers': {'celery_app': 'shop.celery.os'}}", "no Celery app"),
        ("SIGNALBOX = {'workers': {'celery_ap': 'shop.celery.app'}}", 'did you mean "celery_app"'),
        ("DATABASES['default']['OPTIONS'] = {}", "IMMEDIATE"),
        ("DATABASES['default']['ENGINE'] = 'django.db.backends.dummy'", "PostgreSQL and SQLite"),
        ("USE_TZ = False", "USE_TZ = True"),
        (
            "BROKER_URL = CELERY_BROKER_URL; CELERY_BROKER_TRANSPORT_OPTIONS = {'global_keyprefix': 'shop:'}",
            "global_keyprefix is not supported",
        ),
    ],
)
def test_a_setting_that_is_missing_or_wrong_stops_every_role_with_its_cure(shop: Shop, broken: str, said: str):
    (shop.folder / "broken_settings.py").write_text(f"from shop.settings import *\n{broken}\n")
    path = {"PYTHONPATH": f"{ROOT}:{shop.folder}", "DJANGO_SETTINGS_MODULE": "broken_settings"}
    assert said in shop.manage("run_worker", code=1, **path)
