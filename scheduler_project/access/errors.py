"""Errors of signing in and of permissions."""

from __future__ import annotations

from django.utils.translation import gettext_noop

from tasks_app.errors import SignalboxError


class NotAuthenticated(SignalboxError):
    """Sign in first."""

    code = "auth.not_authenticated"
    message = gettext_noop("Sign in first: send Authorization: Bearer and an access token.")


class InvalidCredentials(NotAuthenticated):
    """The user name or the password is wrong."""

    code = "auth.invalid_credentials"
    message = gettext_noop("The user name or the password is wrong.")


class TokenInvalid(NotAuthenticated):
    """The token is not valid, has expired, or was revoked."""

    code = "auth.token_invalid"
    message = gettext_noop("The token is not valid, has expired, or was revoked.")


class TokenReused(NotAuthenticated):
    """This refresh token was used before; every token of this log-in was revoked."""

    code = "auth.token_reused"
    message = gettext_noop("This refresh token was used before; every token of this log-in was revoked.")


class PermissionMissing(SignalboxError):
    """You are not allowed to do this. `details["permission"]` names what is missing."""

    code = "permission.missing"
    message = gettext_noop("You are not allowed to do this.")


class LinkInvalid(SignalboxError):
    """This log-in link is not known, was used, or has expired."""

    code = "login.link_invalid"
    message = gettext_noop("This log-in link is not known, was used, or has expired.")
