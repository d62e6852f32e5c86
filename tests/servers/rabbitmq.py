"""A private RabbitMQ: its own node, epmd, cookie and directories, everything on loopback.

epmd, Erlang's name service, would otherwise be started as a daemon by the node and outlive it. It is started
here first, in the foreground, so that it is ours to stop. The server's script would stay as a shell in front
of the node; told that it runs under a service manager it becomes the node. Questions go to the node by
`erl_call`, which takes milliseconds where rabbitmqctl takes a second.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import amqp

from tests.servers.process import Server, ServerError, ServerMissing, answers, free_port

_SCRIPTS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")


def program() -> str:
    """The server's script, not Debian's wrapper that changes the user. Raises ServerMissing."""
    for directory in _SCRIPTS:
        script = Path(directory) / "rabbitmq-server"
        if script.exists():
            return str(script)
    raise ServerMissing("RabbitMQ is not installed: sudo tests/servers/install.sh")


class RabbitMQServer(Server):
    """One node with the user guest on the virtual host `/`."""

    name = "rabbitmq"

    def __init__(self) -> None:
        """Choose ports and names; nothing runs yet."""
        super().__init__()
        self.port = free_port()
        self.distribution_port = free_port()
        self.epmd_port = free_port()
        self.node = f"signalbox-{secrets.token_hex(4)}@localhost"

    @property
    def url(self) -> str:
        """The broker's virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def env(self) -> dict[str, str]:
        """What rabbitmqctl and the node need to know to be private ones."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TZ") if key in os.environ}
        home = self.directory
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            **kept,
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_MNESIA_DIR": str(home / "mnesia" / "node"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": str(home / "log" / "node.log"),
            "RABBITMQ_PID_FILE": str(home / "node.pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            # Busy waiting of the schedulers is a loss where several processes share two cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def require(self) -> None:
        """Raise ServerMissing when RabbitMQ or a part of Erlang is not there."""
        program()
        for tool in ("epmd", "erl_call"):
            if shutil.which(tool) is None:
                raise ServerMissing(f"Erlang's {tool} is not installed: sudo tests/servers/install.sh")

    def prepare(self) -> None:
        """Write the configuration."""
        cookie = self.directory / ".erlang.cookie"
        cookie.touch(0o600)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self.directory / "env.conf").touch()
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file.level = warning\n"
            "log.console = false\n"
        )
        # Statistics are for the management plugin, which is off.
        (self.directory / "advanced.config").write_text("[{rabbit, [{collect_statistics, none}]}].\n")

    def launch(self) -> None:
        """Start epmd and the node; return when the node takes AMQP connections."""
        self.spawn(["epmd", "-address", "127.0.0.1", "-port", str(self.epmd_port)], env=self.env)
        self.wait_for(lambda: answers(self.epmd_port))
        self.spawn([program()], env=self.env)
        self.wait_for(lambda: answers(self.port))
        self.wait_for(self._accepts)

    def _accepts(self) -> bool:
        try:
            self.connect().close()
        except (OSError, amqp.AMQPError):
            return False
        return True

    def connect(self) -> amqp.Connection:
        """An open AMQP connection; close it."""
        connection = amqp.Connection(host=f"127.0.0.1:{self.port}", userid="guest", password="guest", connect_timeout=5)
        connection.connect()
        return connection

    def log(self, last: int = 2000) -> str:
        """The end of what the node printed and logged."""
        path = self.directory / "log" / "node.log"
        own = path.read_text(errors="replace")[-last:] if path.exists() else ""
        return super().log(last) + own

    def depths(self) -> dict[str, int]:
        """Queue → messages in it, ready and unacknowledged."""
        answer = self._ask(
            'lists:flatten([io_lib:format("~s ~b~n", [element(4, proplists:get_value(name, Q)), '
            "proplists:get_value(messages, Q)]) "
            '|| Q <- rabbit_amqqueue:info_all(<<"/">>, [name, messages])]).'
        )
        pairs = (line.rpartition(" ") for line in answer.splitlines() if line)
        return {name: int(count) for name, _, count in pairs}

    def depth(self, queue: str) -> int:
        """Messages in one queue, ready and unacknowledged; 0 when there is none of that name."""
        return self.depths().get(queue, 0)

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue; how many messages that were."""
        with self.connect() as connection, connection.channel() as channel:
            return int(channel.queue_purge(queue) or 0)

    def purge_all(self) -> int:
        """Throw away what waits anywhere; how many messages that were. Unacknowledged ones stay."""
        names = list(self.depths())
        with self.connect() as connection, connection.channel() as channel:
            return sum(int(channel.queue_purge(name) or 0) for name in names)

    def delete_all_queues(self) -> None:
        """Remove every queue, with what is in it and unacknowledged."""
        names = list(self.depths())
        with self.connect() as connection, connection.channel() as channel:
            for name in names:
                channel.queue_delete(name)

    def _ask(self, expression: str) -> str:
        """The value of an Erlang expression that makes a string, evaluated in the node."""
        done = subprocess.run(
            ["erl_call", "-address", f"127.0.0.1:{self.distribution_port}", "-timeout", "10", "-e"],
            input=expression + "\n",
            env=self.env,
            capture_output=True,
            text=True,
        )
        match = re.fullmatch(r'\{ok, (?:"(.*)"|\[\])\}\s*', done.stdout, re.DOTALL)
        if match is None:
            raise ServerError(f"the node answered {done.stdout!r} {done.stderr!r}")
        return (match.group(1) or "").replace("\\n", "\n").replace('\\"', '"')
