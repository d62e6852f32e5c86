"""One process of ours: a session of its own, its output cut into lines, its end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from scheduler_project.supervise import family

_BLOCK = 64 * 1024
#: A line that is longer is cut; a role must not fill our memory.
_LINE_MAX = 16 * 1024


class Child:
    """A started process. `heard` gets each line that it, or what it started, prints."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        selector: selectors.BaseSelector,
        heard: Callable[[str], None],
    ) -> None:
        """Start it. Raises OSError when that is impossible."""
        self.process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # One thread, one prepared call: nothing here can meet a lock that was held at the fork.
            preexec_fn=family.end_with_parent,  # noqa: PLW1509
        )
        self._heard = heard
        self._selector = selector
        self._partial = b""
        assert self.process.stdout is not None
        self._pipe: int | None = self.process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        selector.register(self._pipe, selectors.EVENT_READ, self.read)

    @property
    def pid(self) -> int:
        """The main process, which leads the session."""
        return self.process.pid

    @property
    def status(self) -> int | None:
        """None while it runs; then its exit status, or minus the signal."""
        return self.process.poll()

    def terminate(self) -> None:
        """SIGTERM to the main process alone."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the main process and to all that belongs to it."""
        members = family.session(self.pid)
        self._send(signal.SIGKILL)
        family.kill(members)

    def read(self) -> bool:
        """Take what is in the pipe; whether there was something."""
        if self._pipe is None:
            return False
        try:
            block = os.read(self._pipe, _BLOCK)
        except BlockingIOError:
            return False
        if not block:
            self.close()
            return False
        *lines, self._partial = (self._partial + block).split(b"\n")
        if len(self._partial) > _LINE_MAX:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._tell(line)
        return True

    def close(self) -> None:
        """Stop listening; what came without a line's end is told."""
        if self._pipe is not None:
            self._selector.unregister(self._pipe)
            self._pipe = None
            if self._partial:
                self._tell(self._partial)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def drain(self) -> None:
        """After the end: read what is left in the pipe, and close it even if somebody else still holds it."""
        for _ in range(64):
            if not self.read():
                break
        self.close()

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()[:_LINE_MAX]
        if text:
            self._heard(text)

    def _send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
