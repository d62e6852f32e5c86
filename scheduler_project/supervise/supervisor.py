"""The loop: start, watch, restart, drain."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from scheduler_project.supervise import family
from scheduler_project.supervise.child import Child
from scheduler_project.supervise.preflight import Plan, write_record
from scheduler_project.supervise.probe import Probe, broker_answers
from scheduler_project.supervise.roles import Role, manage
from scheduler_project.supervise.terminal import Terminal

TICK_SECONDS = 0.1
READY_EVERY_SECONDS = 0.3
LIVE_EVERY_SECONDS = 2.0
REAP_EVERY_SECONDS = 2.0
PROBE_SECONDS = 2.0
#: A role that has not answered once since it started is given this long before its silence counts.
START_SECONDS = 120.0
#: After this the checklist says what is still missing, and the address is printed all the same.
CHECKLIST_SECONDS = 60.0
DRAIN_SECONDS = 30.0
#: What the last stage (ingest) gets even when the first one used up everything.
LAST_STAGE_SECONDS = 5.0
BROKER_STOP_SECONDS = 10.0
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: A role that ran for so long begins with the shortest backoff again.
STEADY_SECONDS = 60.0


@dataclass
class Post:
    """A role and what is known of its process."""

    role: Role
    child: Child | None = None
    started_at: float = 0.0
    answered_at: float | None = None
    up: bool = False
    ends: int = 0
    start_at: float = 0.0
    probe: Probe | None = field(default=None, repr=False)
    probe_at: float = 0.0


class Stopped(Exception):
    """The user asked for the end while something was awaited."""


class Supervisor:
    """Runs a plan until SIGINT, SIGTERM or SIGHUP, and leaves nothing behind."""

    def __init__(self, plan: Plan, terminal: Terminal | None = None) -> None:
        self.plan = plan
        self.terminal = terminal or Terminal()
        self.selector = selectors.DefaultSelector()
        broker = [
            Role(
                name="valkey",
                command=plan.broker,
                says=f"127.0.0.1:{plan.broker_port}",
                log=str(plan.state_dir / "valkey" / "valkey.log"),
                health_port=0,
                live_path=None,
            )
            for _ in (1,)
            if plan.broker is not None
        ]
        self.broker = [Post(role) for role in broker]
        self.posts = [Post(role) for role in plan.roles]
        self.single: Child | None = None
        self.stops = 0
        self.stopping = False
        self._reap_at = 0.0
        # Several questions fit into the shortest silence that is punished.
        self._live_every = min(LIVE_EVERY_SECONDS, (plan.silence_seconds or 60.0) / 6)

    def run(self) -> int:
        """Everything. The exit status: 0 after an orderly end, 1 when the set-up failed."""
        family.adopt_orphans()
        with self._signals():
            try:
                if not self._prepare():
                    return 1
                self._start_all()
                self._until(lambda: False)
            except Stopped:
                return 0
            finally:
                self._end()
        return 0

    # Setting up

    def _prepare(self) -> bool:
        """Broker, tables, demonstration tasks; whether the roles can start."""
        for post in self.broker:
            self._start(post)
        status, _ = self._once("migrate", "migrate", "--no-input", "--verbosity", "0")
        if status != 0:
            self.terminal.bad("the database could not be brought up to date (see above)")
            return False
        self.terminal.good("database up to date")
        status, _ = self._once("seed", "seed_demo")
        if status != 0:
            self.terminal.bad("no demonstration tasks: seed_demo failed (see above); going on without")
        self._until(lambda: self.stops or all(post.up for post in self.broker))
        return True

    def _once(self, name: str, *arguments: str, quiet: bool = False) -> tuple[int, list[str]]:
        """A management command to its end: its exit status and its lines. Raises Stopped."""
        lines: list[str] = []

        def heard(line: str) -> None:
            lines.append(line)
            if not quiet:
                self.terminal.line(name, line)

        child = self.single = self._spawn(manage(*arguments), {}, heard)
        self._until(lambda: child.status is not None)
        child.drain()
        self.single = None
        status = child.status
        assert status is not None
        return status, lines

    def _start_all(self) -> None:
        """Start every role, say what is up, and say how to get in. Raises Stopped."""
        for post in self.posts:
            self._start(post)
        deadline = time.monotonic() + CHECKLIST_SECONDS
        self._until(lambda: all(post.up for post in self.posts) or time.monotonic() > deadline)
        url = f"http://127.0.0.1:{self.plan.web_port}"
        status, lines = self._once("login", "create_login_link", quiet=True)
        path = next((line.strip() for line in reversed(lines) if line.startswith("/")), "/")
        self.terminal.say()
        for post in (*self.broker, *self.posts):
            name = f"{post.role.name:<{self.terminal.width}}"
            if post.up:
                self.terminal.good(f"{name} {post.role.says}")
            else:
                self.terminal.bad(f"{name} not up after {CHECKLIST_SECONDS:.0f} s; still trying, see its lines above")
        self.terminal.say()
        self.terminal.say(f"  Signalbox is at  {url}/")
        if status == 0 and path != "/":
            self.terminal.say(f"  log in once with {url}{path}")
        self.terminal.say("  Ctrl-C drains and stops everything.")
        self.terminal.say()

    # The loop

    def _until(self, condition: Callable[[], object]) -> None:
        """Run the loop until `condition()`. Raises Stopped when the user asks for the end first."""
        while not condition():
            if (self.stops or self.terminal.broken) and not self.stopping:
                raise Stopped
            for key, _ in self.selector.select(TICK_SECONDS):
                # An earlier one of this batch may have closed it.
                if key.fd in self.selector.get_map():
                    key.data()
            self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        for post in (*self.broker, *self.posts):
            if post.child is None:
                if not self.stopping and post.start_at and now >= post.start_at:
                    self._start(post)
            elif post.child.status is not None:
                self._ended(post, now)
            elif not self.stopping:
                self._ask(post, now)
        if now >= self._reap_at:
            self._reap_at = now + REAP_EVERY_SECONDS
            family.reap_orphans(self._own_pids())

    def _ask(self, post: Post, now: float) -> None:
        """Probe the role when it is time, and end it when it is silent for too long."""
        role = post.role
        if role.health_port == 0:
            if not post.up and now >= post.probe_at:
                post.probe_at = now + READY_EVERY_SECONDS / 3
                if broker_answers(self.plan.broker_port, self.plan.broker_password):
                    self._is_up(post)
            return
        if post.probe is not None:
            post.probe.expire(now)
        if (post.probe is None or post.probe.done) and now >= post.probe_at:
            path = role.live_path if post.up else role.ready_path
            post.probe_at = now + (self._live_every if post.up else READY_EVERY_SECONDS)
            if path is not None:
                was_up = post.up
                post.probe = Probe(
                    self.selector,
                    role.health_port,
                    path,
                    deadline=now + min(PROBE_SECONDS, self._live_every),
                    answered=lambda status: self._answered(post, was_up, status),
                )
        limit = self.plan.silence_seconds
        if role.live_path is None or limit is None or post.child is None:
            return
        patience = limit if post.answered_at is not None else max(limit, START_SECONDS)
        if now - (post.answered_at or post.started_at) > patience:
            self.terminal.bad(f"{role.name} has been silent for {patience:.0f} s and may hold up the others: killed")
            post.child.kill()

    def _answered(self, post: Post, was_up: bool, status: int | None) -> None:
        if status is None:
            return
        # Before it is up any answer is a sign of life; after that /livez has to say yes.
        if not was_up or status == 200:
            post.answered_at = time.monotonic()
        # Flower may ask for a password and redirect; the roles say 200 or 503.
        if not was_up and status < 500:
            self._is_up(post)

    def _is_up(self, post: Post) -> None:
        if not post.up:
            post.up = True
            self.terminal.good(f"{post.role.name:<{self.terminal.width}} {post.role.says}")

    # Processes

    def _spawn(self, command: Sequence[str], env: dict[str, str], heard: Callable[[str], None]) -> Child:
        return Child(
            command,
            env={**self.plan.env, **env},
            cwd=str(self.plan.root),
            selector=self.selector,
            heard=heard,
        )

    def _start(self, post: Post) -> None:
        name = post.role.name
        post.start_at = 0.0
        post.started_at = time.monotonic()
        post.answered_at = None
        post.up = False
        post.probe_at = 0.0
        post.child = self._spawn(post.role.command, dict(post.role.env), lambda line: self.terminal.line(name, line))
        self._write_record()

    def _ended(self, post: Post, now: float) -> None:
        """Take note of a role's end; unless everything ends, say so and start it again later."""
        child = post.child
        assert child is not None
        status = child.status
        assert status is not None
        child.drain()
        if post.probe is not None:
            post.probe.drop()
            post.probe = None
        # What its main process left in its session would meet its successor.
        family.kill(family.session(child.pid))
        post.child, post.up = None, False
        if self.stopping:
            return
        post.ends = 1 if now - post.started_at > STEADY_SECONDS else post.ends + 1
        wait = BACKOFF_SECONDS[min(post.ends, len(BACKOFF_SECONDS)) - 1]
        post.start_at = now + wait
        log = f"; its log is {post.role.log}" if post.role.log else ""
        times = "" if post.ends == 1 else f" ({post.ends} times in a row)"
        self.terminal.bad(f"{post.role.name} ended {ending(status)}{times}; again in {wait:.0f} s{log}")

    def _own_pids(self) -> set[int]:
        children = [self.single, *(post.child for post in (*self.broker, *self.posts))]
        return {child.pid for child in children if child is not None}

    def _write_record(self) -> None:
        running = {p.role.name: p.child.pid for p in (*self.broker, *self.posts) if p.child is not None}
        with suppress(OSError):
            write_record(self.plan.record, running)

    # The end

    def _end(self) -> None:
        """Drain in stages, the broker last; then nothing of ours is left."""
        self.stopping = True
        for post in self.posts:
            if post.probe is not None:
                post.probe.drop()
        if self.single is not None:
            self.single.kill()
        if any(post.child for post in self.posts):
            self.terminal.say()
            self.terminal.note("stopping: what runs may finish; Ctrl-C again kills it")
        deadline = time.monotonic() + DRAIN_SECONDS
        for stage in sorted({post.role.stage for post in self.posts}):
            posts = [post for post in self.posts if post.role.stage == stage]
            until = deadline if stage == 0 else max(deadline, time.monotonic() + LAST_STAGE_SECONDS)
            self._stop(posts, until)
        spare = {post.child.pid for post in self.broker if post.child is not None}
        self._sweep(spare)
        # The broker is killed by nobody's impatience: its file is what the next start goes on with.
        self._stop(self.broker, time.monotonic() + BROKER_STOP_SECONDS, patient=True)
        self._sweep(set())
        self.plan.record.unlink(missing_ok=True)
        self.selector.close()
        self.terminal.good("everything has ended")

    def _stop(self, posts: Sequence[Post], deadline: float, *, patient: bool = False) -> None:
        """SIGTERM, wait, and SIGKILL at the deadline or at the second Ctrl-C."""
        for post in posts:
            if post.child is not None:
                post.child.terminate()
        asked = max(self.stops, 1)
        said_at = time.monotonic()

        def over() -> bool:
            nonlocal said_at
            now = time.monotonic()
            left = [post.role.name for post in posts if post.child is not None]
            if left and now - said_at >= 3:
                said_at = now
                rest = max(0.0, deadline - now)
                self.terminal.note(f"waiting for {', '.join(left)} (at most {rest:.0f} s more)")
            return not left or now > deadline or (self.stops > asked and not patient)

        if self.stops <= 1 or patient:
            self._until(over)
        for post in posts:
            if post.child is not None:
                self.terminal.bad(f"{post.role.name} did not end: killed")
                post.child.kill()
        self._until(lambda: all(post.child is None for post in posts))

    def _sweep(self, spare: set[int]) -> None:
        for text in family.kill_descendants(spare=spare, seconds=5):
            self.terminal.bad(f"left behind, killed: {text}")

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Count the requests to stop; a signal wakes the loop."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()

        def requested(_number: int, _frame: object) -> None:
            self.stops += 1

        def woken() -> None:
            with suppress(BlockingIOError):
                os.read(reading, 512)

        self.selector.register(reading, selectors.EVENT_READ, woken)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: signal.signal(number, requested) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing


def ending(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
