"""A private PostgreSQL with the durability of production: fsync and synchronous commits stay on."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from tests.servers.process import STOP_SECONDS, Server, ServerError, ServerMissing, free_port

#: As few as the tests need; everything that decides durability keeps its default, and is named so that it is
#: seen.
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
StopMode = Literal["smart", "fast", "immediate"]


def programs() -> Path:
    """The directory of initdb and postgres, the newest version first. Raises ServerMissing."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    if found is None:
        raise ServerMissing("PostgreSQL is not installed: sudo tests/servers/install.sh")
    return Path(found).resolve().parent


class PostgresServer(Server):
    """One cluster with a user and a database `signalbox` and a random password."""

    name = "postgres"

    def __init__(self, **settings: str) -> None:
        """Further server settings go in by keyword, such as `shared_buffers="1GB"`."""
        super().__init__()
        self.settings = {**SETTINGS, **settings}
        self.port = free_port()
        self.password = secrets.token_hex(12)
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """The database `signalbox`, by TCP."""
        return self.url_of("signalbox")

    @property
    def admin_url(self) -> str:
        """The maintenance database, for CREATE and DROP DATABASE."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Any database of the cluster, by TCP."""
        return f"postgresql://signalbox:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def socket_directory(self) -> Path:
        """Where the unix socket lies."""
        return self.directory

    def require(self) -> None:
        """Raise ServerMissing when PostgreSQL is not installed, or nobody is there to run it as."""
        programs()
        if os.geteuid() == 0:
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                raise ServerMissing("no system user postgres to run PostgreSQL as: tests/servers/install.sh") from None

    def prepare(self) -> None:
        """Make the cluster and its database."""
        if self.user is not None:
            shutil.chown(self.directory, self.user, self.user)
        password_file = self.directory / "password"
        password_file.touch(0o600)
        password_file.write_text(self.password)
        if self.user is not None:
            shutil.chown(password_file, self.user, self.user)
        made = subprocess.run(
            [
                programs() / "initdb",
                *("--pgdata", self.directory / "data"),
                *("--username", "signalbox"),
                *("--pwfile", password_file),
                *("--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C"),
                "--no-instructions",
                "--no-sync",
            ],
            cwd=self.directory,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            capture_output=True,
            text=True,
        )
        password_file.unlink()
        if made.returncode:
            raise ServerError(f"initdb failed: {made.stderr}")

    def launch(self) -> None:
        """Start, and return when a connection succeeds (recovery after a crash included)."""
        # A SIGKILLed postmaster leaves its file behind; its number may be somebody else's by now.
        (self.directory / "data" / "postmaster.pid").unlink(missing_ok=True)
        options = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.directory)}
        self.spawn(
            [
                programs() / "postgres",
                *("-D", self.directory / "data"),
                *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
            ],
            user=self.user,
        )
        self.wait_for(self._accepts)
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'signalbox'").fetchone() is None:
                connection.execute("CREATE DATABASE signalbox")

    def _accepts(self) -> bool:
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, mode: StopMode = "fast") -> None:
        """End: `fast` rolls back what is open, `smart` waits for sessions, `immediate` crashes in order."""
        if self.running:
            self.main.send_signal(_SIGNALS[mode])
            with suppress(subprocess.TimeoutExpired):
                self.main.wait(STOP_SECONDS)
        self.kill()

    def kill_immediate(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, the next start recovers from the log."""
        self.stop("immediate")

    def create_database(self, name: str) -> str:
        """An empty database; its URL."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, with whoever is connected to it."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
