"""Servers that can be harmed in more ways than stopping them: a broker behind a proxy, a database on a small disk.

The proxy cuts connections, also in the middle of an answer. The disk is a small tmpfs of its own that can be filled
without harm to the machine; mounting it needs root, and where that cannot be the database lies on the ordinary disk and
`SmallDisk.impossible` says why. A worker's own way to the database (`door`) is a proxy, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.faults.servers import Servers
from tests.servers.leash import hold_directory, release_directory
from tests.servers.tcp_proxy import TcpProxy

#: A cluster with its log for a round; SQLite needs far less.
POSTGRES_MEGABYTES: Final = 768
SQLITE_MEGABYTES: Final = 128
#: So that the log stays well below the size of the disk.
POSTGRES_SETTINGS: Final = {"max_wal_size": "192MB", "shared_buffers": "128MB"}


class SmallDisk:
    """A tmpfs of a few megabytes over a folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Mounts at once, if it can; `impossible` says why not."""
        self.folder = folder
        self.impossible = ""
        self._filler = folder / "filler"
        if os.geteuid() != 0:
            self.impossible = "a disk small enough to be filled has to be mounted, and that needs root"
            return
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)],
                capture_output=True, text=True,
            )  # fmt: skip
        except FileNotFoundError:
            self.impossible = "there is no mount(8) here"
            return
        if done.returncode:
            self.impossible = f"a small disk cannot be mounted here: {done.stderr.strip()}"

    @property
    def free_bytes(self) -> int:
        """What is left."""
        left = os.statvfs(self.folder)
        return left.f_bavail * left.f_frsize

    def fill(self) -> None:
        """Take all that is left, also what became free since the last time."""
        with open(self._filler, "ab") as file:
            for chunk in (1 << 20, 1 << 12):
                while True:
                    size = os.fstat(file.fileno()).st_size
                    try:
                        os.posix_fallocate(file.fileno(), size, chunk)
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        break

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Remove it with what is on it."""
        if not self.impossible:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)


class HarmableServers(Servers):
    """A combination's private servers, for one system."""

    def __init__(self, combination: str) -> None:
        """The disk is mounted at once; nothing runs yet."""
        super().__init__(combination)
        self._folder: Path | None = None
        if self.database is not None:
            self.database.settings |= POSTGRES_SETTINGS
            self.disk = SmallDisk(self.database.directory, POSTGRES_MEGABYTES)
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="signalbox-small-disk-"))
            hold_directory(self._folder)
            self.disk = SmallDisk(self._folder, SQLITE_MEGABYTES)
        self._proxies = contextlib.ExitStack()
        self.proxy = self._proxies.enter_context(TcpProxy(self.broker.port))

    @property
    def broker_url(self) -> str:
        """By way of the proxy."""
        return self.broker.url.replace(f":{self.broker.port}/", f":{self.proxy.port}/")

    def fresh(self, folder: Path) -> str:
        """An empty broker, and an empty database on the small disk; its URL."""
        return super().fresh(self._folder or folder)

    def door(self, database_url: str) -> tuple[TcpProxy, str] | None:
        """A way of its own to the database, with the URL by it; None on SQLite, which is a file."""
        if self.database is None:
            return None
        port = urlsplit(database_url).port
        proxy = self._proxies.enter_context(TcpProxy(self.database.port))
        return proxy, database_url.replace(f":{port}/", f":{proxy.port}/")

    def close(self) -> None:
        """Stop and remove everything, the disk, too."""
        self._proxies.close()
        self.disk.empty()
        try:
            self.broker.close()
            if self.database is not None:
                self.database.kill()
        finally:
            self.disk.unmount()
            if self.database is not None:
                self.database.close()
            if self._folder is not None:
                with contextlib.suppress(OSError):
                    self._folder.rmdir()
                release_directory(self._folder)
