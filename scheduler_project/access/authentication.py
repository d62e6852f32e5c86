"""How a request to the API says who it is from: `Authorization: Bearer <access token>`."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework_simplejwt import authentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken

from scheduler_project.access import tokens
from scheduler_project.access.errors import TokenInvalid


class BearerAuthentication(authentication.JWTAuthentication):
    """JSON web tokens whose family has not been revoked."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """The user and the token; None without a bearer token. Raises TokenInvalid."""
        try:
            return super().authenticate(request)
        except (InvalidToken, AuthenticationFailed) as error:
            raise TokenInvalid from error

    def get_user(self, validated_token: Any) -> Any:
        """The token's user. Raises TokenInvalid for a family that is over."""
        user = super().get_user(validated_token)
        if not tokens.is_live(validated_token.get(tokens.FAMILY)):
            raise TokenInvalid
        return user
