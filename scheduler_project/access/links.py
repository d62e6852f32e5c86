"""One-time log-in links."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet

from scheduler_project.access.errors import LinkInvalid
from scheduler_project.access.models import LoginLink

LIFETIME: Final = timedelta(minutes=15)
OPERATOR: Final = "admin"


def operator() -> User:
    """The superuser of an installation that has none yet; its password cannot be used before somebody sets one."""
    with transaction.atomic():
        user, made = User.objects.get_or_create(username=OPERATOR, defaults={"is_staff": True, "is_superuser": True})
        if made:
            user.set_unusable_password()
            user.save(update_fields=["password"])
    return user


def create_link(user: User, *, now: datetime) -> str:
    """A fresh token for a log-in link. It is nowhere but in the answer; links that are over are removed."""
    token = secrets.token_urlsafe(32)
    LoginLink.objects.filter(Q(expires_at__lt=now) | Q(used_at__isnull=False)).delete()
    LoginLink.objects.create(token_sha256=_digest(token), user=user, created_at=now, expires_at=now + LIFETIME)
    return token


def is_usable(token: str, *, now: datetime) -> bool:
    """Whether the link would work now; uses nothing up."""
    return _usable(token, now).exists()


def use_link(token: str, *, now: datetime) -> User:
    """The user whom the link signs in. Of any number of simultaneous uses one wins. Raises LinkInvalid."""
    # No join in this query: PostgreSQL compares a row again after it waited for it, but not a joined one.
    if not _usable(token, now).update(used_at=now):
        raise LinkInvalid
    link = LoginLink.objects.select_related("user").get(token_sha256=_digest(token))
    if not link.user.is_active:
        raise LinkInvalid
    return link.user


def _usable(token: str, now: datetime) -> QuerySet[LoginLink]:
    return LoginLink.objects.filter(token_sha256=_digest(token), used_at__isnull=True, expires_at__gt=now)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
