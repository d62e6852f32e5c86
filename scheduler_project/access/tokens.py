"""Tokens of the API: issue, rotate, revoke."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import RefreshToken

from scheduler_project.access.errors import TokenInvalid, TokenReused
from scheduler_project.access.models import TokenFamily

#: Claim that names the family, in refresh and access tokens alike.
FAMILY = "family"


class Tokens(NamedTuple):
    """A pair of tokens; expires_in is of the access token, in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


def issue(user: AbstractBaseUser, *, now: datetime) -> Tokens:
    """Begin a family for a user who has just proved who they are."""
    TokenFamily.objects.filter(user_id=user.pk, expires_at__lt=now).delete()
    family = uuid.uuid4()
    refresh = _refresh_token(user, family)
    TokenFamily.objects.create(
        id=family,
        user_id=user.pk,
        current_jti=refresh["jti"],
        created_at=now,
        refreshed_at=now,
        expires_at=now + api_settings.REFRESH_TOKEN_LIFETIME,
    )
    return _pair(refresh)


def rotate(text: str, *, now: datetime) -> Tokens:
    """A new pair for a refresh token, which is void from then on.

    Raises TokenInvalid, or TokenReused when the token was rotated before: then its family is revoked.
    """
    given = _read(text)
    with transaction.atomic():
        family = _locked_family(given)
        if family is None or family.revoked_at is not None:
            raise TokenInvalid
        user = get_user_model().objects.filter(pk=family.user_id, is_active=True).first()
        if user is None:
            raise TokenInvalid
        refresh: RefreshToken | None = None
        if family.current_jti != given["jti"]:
            family.revoked_at, family.revoked_because = now, "reuse"
        else:
            refresh = _refresh_token(user, family.pk)
            family.current_jti, family.refreshed_at = refresh["jti"], now
            family.expires_at = now + api_settings.REFRESH_TOKEN_LIFETIME
        family.save()
    if refresh is None:
        raise TokenReused
    return _pair(refresh)


def revoke_by_token(text: str, *, now: datetime) -> None:
    """End the family of a refresh token. Raises TokenInvalid."""
    revoke(_read(text)[FAMILY], now=now)


def revoke(family_id: str, *, now: datetime) -> None:
    """End a family: its refresh token and all its access tokens."""
    TokenFamily.objects.filter(pk=family_id, revoked_at__isnull=True).update(revoked_at=now, revoked_because="logout")


def is_live(family_id: object) -> bool:
    """Whether tokens of this family are still good."""
    try:
        return TokenFamily.objects.filter(pk=uuid.UUID(str(family_id)), revoked_at__isnull=True).exists()
    except ValueError:
        return False


def _read(text: str) -> RefreshToken:
    try:
        token = RefreshToken(text)  # type: ignore[arg-type]
        uuid.UUID(str(token[FAMILY]))
        token["jti"]
    except (TokenError, KeyError, ValueError) as error:
        raise TokenInvalid from error
    return token


def _locked_family(token: RefreshToken) -> TokenFamily | None:
    return TokenFamily.objects.select_for_update().filter(pk=token[FAMILY]).first()


def _refresh_token(user: AbstractBaseUser, family: uuid.UUID) -> RefreshToken:
    token: Any = RefreshToken.for_user(user)
    token[FAMILY] = str(family)
    return token  # type: ignore[no-any-return]


def _pair(refresh: RefreshToken) -> Tokens:
    seconds = int(api_settings.ACCESS_TOKEN_LIFETIME.total_seconds())
    return Tokens(str(refresh.access_token), str(refresh), seconds)
