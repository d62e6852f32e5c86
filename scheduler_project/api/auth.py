"""`auth/`: sign in, refresh, sign out, ask whether a token is good."""

from __future__ import annotations

from typing import Any
from unicodedata import normalize

from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.viewsets import ViewSet

from scheduler_project.access import tokens
from scheduler_project.access.authentication import BearerAuthentication
from scheduler_project.access.errors import InvalidCredentials, NotAuthenticated
from scheduler_project.api.parsing import body_of, text_of
from tasks_app.clock import clock
from tasks_app.parameters import digest


class TokenPair(serializers.Serializer[Any]):
    """A pair of tokens; `expires_in` is the access token's life in seconds."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField()


class SignInThrottle(SimpleRateThrottle):
    """Attempts to sign in, per address and user name: passwords are not guessed here."""

    scope = "sign_in"
    rate = "20/min"

    def get_cache_key(self, request: Request, _view: Any) -> str | None:
        """One counter an address and user name."""
        data = request.data
        name = str(data.get("username", "")) if isinstance(data, dict) else ""
        # As the console's form reads it: spaces around a name and its other spellings are no other names.
        name = normalize("NFKC", name.strip()[:150])
        return f"signalbox:sign_in:{self.get_ident(request)}:{digest(name)}"


def _pair(issued: tokens.Tokens) -> Response:
    body = {
        "access_token": issued.access_token,
        "refresh_token": issued.refresh_token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
    }
    return Response(body, headers={"Cache-Control": "no-store"})


class SignIn(ViewSet):
    """Tokens for a user name and password."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = (SignInThrottle,)

    @extend_schema(
        operation_id="auth_login",
        request=inline_serializer("SignIn", {"username": serializers.CharField(), "password": serializers.CharField()}),
        responses=TokenPair,
    )
    def login(self, request: Request) -> Response:
        """Sign in."""
        body = body_of(request, {"username", "password"})
        user = authenticate(
            request._request,
            username=text_of(body, "username", length_max=150),
            password=text_of(body, "password", length_max=4096),
        )
        if user is None:
            raise InvalidCredentials
        update_last_login(None, user)  # type: ignore[arg-type]
        return _pair(tokens.issue(user, now=clock.now()))


class Refresh(ViewSet):
    """Tokens for a refresh token."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="auth_refresh",
        request=inline_serializer("Refresh", {"refresh_token": serializers.CharField()}),
        responses=TokenPair,
    )
    def refresh(self, request: Request) -> Response:
        """A new pair. The given refresh token is void from then on; using it again ends the whole log-in."""
        body = body_of(request, {"refresh_token"})
        return _pair(tokens.rotate(text_of(body, "refresh_token"), now=clock.now()))


class Session(ViewSet):
    """What a token is worth."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="auth_logout",
        request=inline_serializer("SignOut", {"refresh_token": serializers.CharField(required=False)}),
        responses={204: None},
    )
    def logout(self, request: Request) -> Response:
        """End the log-in of the given refresh token, or of the access token in the header."""
        body = body_of(request, {"refresh_token"})
        if body.get("refresh_token"):
            tokens.revoke_by_token(text_of(body, "refresh_token"), now=clock.now())
        elif request.user.is_authenticated and request.auth is not None:
            tokens.revoke(request.auth[tokens.FAMILY], now=clock.now())  # type: ignore[index]
        else:
            raise NotAuthenticated
        return Response(status=204)

    @extend_schema(
        operation_id="auth_validate",
        request=None,
        responses=inline_serializer(
            "Validation",
            {
                "valid": serializers.BooleanField(),
                "username": serializers.CharField(),
                "expires_in": serializers.IntegerField(),
                "permissions": serializers.ListField(child=serializers.CharField()),
            },
        ),
    )
    def validate(self, request: Request) -> Response:
        """Whom the access token stands for, how many seconds it is still good, and what it may do; else 401."""
        if not request.user.is_authenticated or request.auth is None:
            raise NotAuthenticated
        import time

        own = ("tasks_app.", "workers_app.")
        return Response(
            {
                "valid": True,
                "username": request.user.get_username(),
                "expires_in": max(0, int(request.auth["exp"] - time.time())),  # type: ignore[index]
                "permissions": sorted(p for p in request.user.get_all_permissions() if p.startswith(own)),
            },
            headers={"Cache-Control": "no-store"},
        )
