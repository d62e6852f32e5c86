"""The shell executor with real commands: what they get, what they say, and that nothing outlives them."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.processes import alive, of_run, until
from workers_app.executors.limits import ShellLimits
from workers_app.executors.shell import (
    ShellFailed,
    ShellNotStarted,
    ShellStopped,
    SupervisorLost,
    run_shell,
)

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable


class RecordingJob:
    """A job that keeps what it is told. Its run id is unlike any other's, so that its processes can be found."""

    def __init__(self, seconds=None, reason=None):
        self.run_id, self.attempt = random.randrange(10**12, 10**15), 2
        self.idempotency_key = f"{self.run_id}:2"
        self.chunks = []
        self.reason = reason
        self.began, self.seconds = time.monotonic(), seconds

    def log(self, stream, text):
        self.chunks.append((stream, text))

    def stop_requested(self):
        return self.reason() if callable(self.reason) else self.reason

    def remaining_seconds(self):
        return None if self.seconds is None else self.began + self.seconds - time.monotonic()

    def text(self, stream="stdout"):
        return "".join(text for name, text in self.chunks if name == stream)


def sh(command, job=None, **limits):
    return run_shell({"command": command, "shell": True}, job=job or RecordingJob(), limits=ShellLimits(**limits))


def python(code, job=None, *words, **limits):
    return run_shell(
        {"argv": [PYTHON, "-I", "-c", code, *words]}, job=job or RecordingJob(), limits=ShellLimits(**limits)
    )


#: A job with bad manners: a child, one in a session of its own, a daemon by two forks; all of them ignore SIGTERM.
BAD_MANNERS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def stay():
    os.write(1, b"here\\n")
    while True:
        time.sleep(1)
if os.fork() == 0:
    stay()
if os.fork() == 0:
    os.setsid()
    stay()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        stay()
    os._exit(0)
os.wait()
stay()
"""


def when_all_are_here(job):
    return lambda: "cancel" if job.text().count("here") == 4 else None


# -- how it ends -----------------------------------------------------------------------------------


def test_a_command_that_succeeds_gives_its_code_its_output_and_its_size():
    job = RecordingJob()
    result = sh("echo out; echo err >&2", job)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert (result.stdout_bytes, result.stderr_bytes) == (4, 4)
    assert sorted(job.chunks) == [("stderr", "err\n"), ("stdout", "out\n")]
    assert json.loads(json.dumps(result.as_json()))["exit_code"] == 0


def test_a_command_that_fails_says_so_with_the_end_of_its_stderr():
    with pytest.raises(ShellFailed, match=r"exit code 3: no space") as failure:
        sh("echo fine; echo no space >&2; exit 3")
    assert failure.value.exit_code == 3
    with pytest.raises(ShellFailed, match="exit code 1: only here"):
        sh("echo only here; exit 1")


def test_an_end_by_a_signal_that_nobody_here_sent_is_a_failure_with_its_name():
    with pytest.raises(ShellFailed, match="SIGSEGV") as failure:
        sh("kill -SEGV $$")
    assert failure.value.exit_code == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"argv": ["no-such-program"]}, "No such file.*no-such-program"),
        ({"argv": ["/etc/passwd"]}, "Permission denied"),
        ({"argv": ["true"], "cwd": "/no/such/folder"}, "/no/such/folder"),
        ({"argv": ["true"], "wcd": "/"}, "unknown parameter"),
        ({"argv": ["a" * 200_000]}, "long"),
    ],
)
def test_what_cannot_be_started_says_why(parameters, word):
    with pytest.raises(ShellNotStarted, match=word):
        run_shell(parameters, job=RecordingJob())


# -- what it gets ----------------------------------------------------------------------------------


def test_the_environment_is_clean(monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    job = RecordingJob()
    run_shell({"argv": ["env"], "env": {"COLOUR": "red"}}, job=job)
    seen = dict(line.split("=", 1) for line in job.text().splitlines())
    assert seen.keys() - {"TZ"} == {
        "PATH", "HOME", "LANG", "COLOUR", "SIGNALBOX_RUN_ID", "SIGNALBOX_ATTEMPT", "SIGNALBOX_IDEMPOTENCY_KEY",
    }  # fmt: skip
    assert seen["SIGNALBOX_IDEMPOTENCY_KEY"] == f"{job.run_id}:2"
    assert seen["COLOUR"] == "red"


def test_stdin_is_the_given_text_or_nothing(tmp_path):
    text = "信号\n" * 200_000
    assert run_shell({"argv": ["wc", "-c"], "stdin": text}, job=RecordingJob()).stdout.split() == [
        str(len(text.encode()))
    ]
    assert run_shell({"argv": ["cat"]}, job=RecordingJob()).stdout_bytes == 0
    assert run_shell({"argv": ["pwd"], "cwd": str(tmp_path)}, job=RecordingJob()).stdout == f"{tmp_path}\n"


def test_a_command_can_gain_no_privileges_and_starts_with_signals_and_descriptors_as_usual():
    status = dict(line.split(":\t", 1) for line in sh("cat /proc/self/status").stdout.splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    # 32 and 33 belong to the C library and cannot be set by anybody.
    own = ~(0b11 << 31)
    assert int(status["SigIgn"], 16) & own == int(status["SigBlk"], 16) == 0
    assert sorted(sh("ls /proc/self/fd").stdout.split()) == ["0", "1", "2", "3"]
    assert sh("ulimit -c").stdout.strip() == "0"


def test_limits_hold(tmp_path):
    assert sh("ulimit -n", open_files=77).stdout.strip() == "77"
    with pytest.raises(ShellFailed):
        sh(f"head -c 100000 /dev/zero > {tmp_path}/big", file_bytes=50_000)
    assert (tmp_path / "big").stat().st_size == 50_000
    with pytest.raises(ShellFailed, match="MemoryError"):
        python("bytearray(500_000_000)", memory_bytes=300_000_000)
    assert sh("grep 'Max processes' /proc/self/limits", processes=123).stdout.split()[2:4] == ["123", "123"]


def test_a_limit_above_the_workers_own_is_cut_to_it():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert sh("ulimit -n", open_files=hard + 1000).stdout.strip() == str(hard)


# -- output ----------------------------------------------------------------------------------------


def test_output_arrives_while_the_command_runs(tmp_path):
    job = RecordingJob(seconds=10)
    original = job.log

    def log(stream, text):
        original(stream, text)
        if "first" in text:
            (tmp_path / "seen").touch()

    job.log = log
    sh(f"echo first; while [ ! -e {tmp_path}/seen ]; do sleep 0.05; done; echo second", job)
    assert job.text() == "first\nsecond\n"


def test_two_streams_do_not_block_each_other():
    code = (
        "import os\n"
        "for fd in (2, 1, 2, 1):\n"
        "    block = b'x' * 3_000_000\n"
        "    while block: block = block[os.write(fd, block):]\n"
    )
    result = python(code)
    assert (result.stdout_bytes, result.stderr_bytes) == (6_000_000, 6_000_000)


def test_a_hundred_megabytes_pass_quickly_in_little_memory_and_are_cut_visibly():
    job = RecordingJob()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, own_before = time.monotonic(), time.process_time()
    result = sh("head -c 100000000 /dev/zero | tr '\\0' x; echo the end", job)
    seconds, own = time.monotonic() - began, time.process_time() - own_before
    assert result.stdout_bytes == 100_000_008
    assert result.stdout.endswith("the end\n")
    assert len(job.text()) == 1024 * 1024
    assert job.text("system").splitlines() == [
        "[output truncated from here on: the limit is 1048576 bytes]",
        "[output truncated: kept 1048576 of 100000008 bytes]",
    ]
    assert max(len(text) for _, text in job.chunks) <= 16 * 1024
    # By its own CPU time, which the machine's other work does not change: 200 MB/s.
    assert own < 0.5, f"{own:.2f} s of CPU time"
    assert seconds < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    print(f"{100 / seconds:.0f} MB/s, {own:.2f} s of CPU time")


def test_nul_and_broken_utf8_become_replacement_characters():
    job = RecordingJob()
    python("import os; os.write(1, b'a\\0b\\xffc'); os.write(2, '信号'.encode() + b'\\xe4')", job)
    assert job.text() == "a\ufffdb\ufffdc"
    assert job.text("stderr") == "信号\ufffd"


# -- how it is ended -------------------------------------------------------------------------------


def test_a_cancel_ends_a_command_with_bad_manners_and_all_that_it_started_within_two_seconds():
    job = RecordingJob()
    asked = []

    def reason():
        if job.text().count("here") == 4:
            asked.append(time.monotonic())
            return "cancel"
        return None

    job.reason = reason
    with pytest.raises(ShellStopped) as stopped:
        python(BAD_MANNERS, job)
    assert time.monotonic() - asked[0] < 2
    assert time.monotonic() - asked[0] > 0.9
    assert stopped.value.stop_reason == "cancel"
    assert of_run(job.run_id) == []


def test_a_command_that_obeys_sigterm_can_clean_up_and_does_not_wait_for_the_grace():
    job = RecordingJob()
    job.reason = lambda: "drain" if "ready" in job.text() else None
    began = time.monotonic()
    with pytest.raises(ShellStopped, match="drain"):
        sh("trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done", job, stop_grace_seconds=8)
    assert "cleaned" in job.text()
    assert time.monotonic() - began < 4


def test_a_lost_lease_leaves_no_grace():
    job = RecordingJob()
    job.reason = lambda: "lease" if "ready" in job.text() else None
    began = time.monotonic()
    with pytest.raises(ShellStopped) as stopped:
        sh("trap '' TERM; echo ready; while :; do sleep 0.05; done", job, stop_grace_seconds=8)
    assert stopped.value.stop_reason == "lease"
    assert time.monotonic() - began < 4
    assert of_run(job.run_id) == []


def test_the_deadline_ends_it_and_keeps_what_it_said():
    job = RecordingJob(seconds=0.5)
    with pytest.raises(ShellStopped) as stopped:
        sh("echo began; sleep 60", job)
    assert stopped.value.stop_reason == "timeout"
    assert 0.4 < time.monotonic() - job.began < 2
    assert job.text() == "began\n"
    with pytest.raises(ShellStopped, match="timeout"):
        sh("echo never", RecordingJob(seconds=-1))


def test_what_a_command_leaves_behind_is_ended_with_it():
    job = RecordingJob()
    code = BAD_MANNERS.replace("os.wait()\nstay()", "os.wait()\ntime.sleep(0.3)")
    assert python(code, job).exit_code == 0
    assert of_run(job.run_id) == []
    assert "3 processes that the command left behind" in job.text("system")


def test_a_chain_of_processes_that_run_from_the_killer_is_caught():
    # Each generation leaves its group and its parent; a few live at once.
    code = (
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0: break\n"
        "else: os.write(1, b'ready'); time.sleep(60)\n"
        "while True:\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid()\n"
        "    time.sleep(0.001)\n"
    )
    job = RecordingJob(seconds=20)
    job.reason = lambda: "cancel" if "ready" in job.text() else None
    with pytest.raises(ShellStopped, match="cancel"):
        python(code, job)
    assert of_run(job.run_id) == []


def test_an_exception_of_the_job_ends_the_command():
    job = RecordingJob()

    def log(stream, text):
        raise BrokenPipeError("the main process is gone")

    job.log = log
    with pytest.raises(BrokenPipeError):
        sh("echo a; sleep 60", job)
    assert of_run(job.run_id) == []


def test_a_supervisor_that_is_killed_takes_the_command_with_it():
    job = RecordingJob()

    def kill_supervisor():
        until(lambda: job.text().count("here") == 2, "both are here")
        [pid] = [p for p in of_run(job.run_id) if os.getsid(p) == p]
        os.kill(parent_of(pid), signal.SIGKILL)

    thread = threading.Thread(target=kill_supervisor)
    thread.start()
    code = "import os, time\nif os.fork(): pass\nos.write(1, b'here')\ntime.sleep(60)"
    with pytest.raises(SupervisorLost):
        python(code, job)
    thread.join()
    assert of_run(job.run_id) == []


STOPS_ITS_SUPERVISOR = {
    "once": "echo here; kill -STOP $PPID; sleep 60",
    "for ever": "supervisor=$PPID; echo here; while true; do kill -STOP $supervisor; done",
}


@pytest.mark.parametrize("command", STOPS_ITS_SUPERVISOR.values(), ids=STOPS_ITS_SUPERVISOR)
def test_a_command_that_stops_its_supervisor_ends_at_its_deadline_all_the_same(command):
    job = RecordingJob(seconds=1.5)
    with pytest.raises(ShellStopped) as stopped:
        sh(command, job, stop_grace_seconds=0.5)
    assert stopped.value.stop_reason == "timeout"
    assert job.text() == "here\n"
    assert of_run(job.run_id) == []


# -- when the pool process is not there -------------------------------------------------------------

POOL_PROCESS = """
import json, sys
from tests.integration.test_shell_executor import RecordingJob
from workers_app.executors.shell import run_shell
job = RecordingJob(seconds=float(sys.argv[2]))
job.run_id = int(sys.argv[1])
def log(stream, text):
    print(text, end="", flush=True)
job.log = log
run_shell(json.loads(sys.argv[3]), job=job)
"""


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pool_process(run_id, seconds, parameters):
    return subprocess.Popen(
        [PYTHON, "-c", POOL_PROCESS, str(run_id), str(seconds), json.dumps(parameters)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_nothing_of_a_command_is_left_a_second_after_its_pool_process_was_killed():
    run_id = random.randrange(10**12, 10**15)
    with pool_process(run_id, 60, {"argv": [PYTHON, "-I", "-c", BAD_MANNERS]}) as process:
        for _ in range(4):
            assert process.stdout.readline() == "here\n"
        family = of_run(run_id)
        assert len(family) == 4
        supervisors = {parent_of(pid) for pid in family} - set(family)
        process.kill()
        until(lambda: of_run(run_id) == [], "the whole tree is gone", 1.0)
        until(lambda: not any(alive(pid) for pid in supervisors), "its supervisor is gone", 1.0)


def test_the_deadline_holds_while_the_pool_process_is_stopped():
    run_id = random.randrange(10**12, 10**15)
    with pool_process(run_id, 1.5, {"command": "echo here; sleep 60", "shell": True}) as process:
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: of_run(run_id) == [], "ended by its supervisor", 4.0)
        process.kill()


def test_a_command_whose_supervisor_and_pool_process_are_both_killed_ends():
    run_id = random.randrange(10**12, 10**15)
    with pool_process(run_id, 60, {"command": "echo here; exec sleep 60", "shell": True}) as process:
        assert process.stdout.readline() == "here\n"
        [command] = of_run(run_id)
        supervisor = parent_of(command)
        process.send_signal(signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not alive(command), "ended by the kernel", 1.0)
        process.kill()


def test_a_command_that_stopped_its_supervisor_ends_when_its_pool_process_is_killed():
    run_id = random.randrange(10**12, 10**15)
    command = f"kill -STOP $PPID; echo here; exec {PYTHON} -I -c 'import time; time.sleep(60)'"
    with pool_process(run_id, 60, {"command": command, "shell": True}) as process:
        assert process.stdout.readline() == "here\n"
        process.kill()
        until(lambda: of_run(run_id) == [], "ended by its supervisor", 1.5)
