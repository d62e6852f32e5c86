"""`manage.py run_web` as a process: it listens where it was told, logs each request once, and ends at SIGTERM."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from django.conf import settings

from scheduler_project.access import tokens
from tasks_app import services
from tasks_app.clock import clock
from tests.integration.faces import a_task, user

pytestmark = pytest.mark.django_db(transaction=True)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def web(database_url, tmp_path):
    """(port, process, path of its log)."""
    port, log = free_port(), tmp_path / "web.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALBOX_")}
    environment |= {
        "SIGNALBOX_DATABASE_URL": database_url,
        "SIGNALBOX_STATE_DIR": str(tmp_path),
        "SIGNALBOX_SECRET_KEY": settings.SECRET_KEY,
        "SIGNALBOX_LOG_FORMAT": "json",
        "PORT": "1",  # gunicorn would listen there
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "run_web", "--port", str(port)],
            cwd=settings.BASE_DIR, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 40
        while True:
            try:
                assert ask(port, "GET", "/livez")[0] == 200
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
        yield port, process, log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_it_serves_logs_and_ends(web):
    port, process, log = web
    task = a_task()
    bearer = f"Bearer {tokens.issue(user(superuser=True), now=clock.now()).access_token}"
    status, headers, body = ask(port, "POST", f"/api/v1/tasks/{task.pk}/trigger", Authorization=bearer)
    assert (status, json.loads(body)["status"]) == (201, "PENDING")
    assert services.find_run(json.loads(body)["id"]).created_by == "ada"
    assert ask(port, "GET", "/static/admin/css/base.css")[0] == 200
    assert ask(port, "GET", "/api/v1/tasks", Host="elsewhere.example")[0] == 400
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line["message"].startswith(f"POST /api/v1/tasks/{task.pk}/trigger 201")]
    assert len(told) == 1
    assert told[0]["trace_id"] == headers["traceparent"].split("-")[1]
    assert bearer not in log.read_text()


def test_a_body_in_chunks_is_refused_and_not_taken_for_an_empty_one(web):
    port, _, _ = web
    bearer = f"Bearer {tokens.issue(user(superuser=True), now=clock.now()).access_token}"
    task = a_task()
    pieces = iter([b'{"parameters": ', b'{"env": {"A": "1"}}}'])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": bearer, "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/tasks/{task.pk}/trigger", body=pieces, headers=headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (411, "request.length_required")
    connection.close()


def test_a_body_beyond_the_limit_is_cut_off(web):
    port, _, _ = web
    bearer = f"Bearer {tokens.issue(user(superuser=True), now=clock.now()).access_token}"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        head = f"POST /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {bearer}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        raw.sendall(head.encode() + b"{")
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
    assert ask(port, "GET", "/livez")[0] == 200
