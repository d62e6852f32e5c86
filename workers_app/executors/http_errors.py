"""How a request can end otherwise than well. Each says whether another attempt is worth it, and when.

Messages name the method and the origin of a URL, nothing behind it: paths and queries of webhooks are secrets. They are
pickled on their way to the worker's main process, so whatever is not in `args` is a plain attribute.
"""

from __future__ import annotations

from workers_app.job import BodyStopped


class HttpFailed(Exception):
    """The run fails. retry_after_seconds: what the server asked for."""

    retryable = False
    retry_after_seconds: float | None = None


class HttpNotSent(HttpFailed):
    """The request cannot be sent as it is: its parameters are wrong."""


class HttpAddressRefused(HttpFailed):
    """The address, or that of a redirect, is not one that a user's request may be sent to."""


class HttpRedirectRefused(HttpFailed):
    """Too many redirects, or one to somewhere that must not be asked."""


class HttpCertificateRefused(HttpFailed):
    """The server's certificate is not valid for its name."""


class HttpResponseTooLarge(HttpFailed):
    """The response is larger than the request allows."""


class HttpUnreachable(HttpFailed):
    """No connection, or one that broke, or an answer that is no HTTP."""

    retryable = True


class HttpTimedOut(HttpFailed):
    """The server took too long to connect or between two pieces of its answer."""

    retryable = True


class HttpStatusUnexpected(HttpFailed):
    """The server answered, with a status that was not expected."""

    def __init__(
        self, message: str, status: int = 0, *, retryable: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        """retry_after_seconds: only where another attempt is worth it."""
        super().__init__(message)
        self.status, self.retryable, self.retry_after_seconds = status, retryable, retry_after_seconds


class HttpStopped(BodyStopped):
    """The request was ended by us; `stop_reason` says why."""

    def __str__(self) -> str:
        """One line."""
        return f"stopped: {self.stop_reason}"
