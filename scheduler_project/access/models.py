"""Tables of access: fields and constraints only. Secrets are kept as hashes."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class LoginLink(models.Model):
    """A link that signs a user in once. Only the token's SHA-256 is here."""

    token_sha256 = models.CharField(_("token (SHA-256)"), max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("user"))
    created_at = models.DateTimeField(_("created at"))
    expires_at = models.DateTimeField(_("expires at"))
    used_at = models.DateTimeField(_("used at"), null=True, blank=True)

    class Meta:
        verbose_name = _("log-in link")
        verbose_name_plural = _("log-in links")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.user_id} {self.created_at:%Y-%m-%dT%H:%M:%SZ}"


class TokenFamily(models.Model):
    """One log-in to the API: `current_jti` is the id of the only refresh token that is good now."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("user"))
    current_jti = models.CharField(_("current refresh token (id)"), max_length=64)
    created_at = models.DateTimeField(_("created at"))
    refreshed_at = models.DateTimeField(_("refreshed at"))
    expires_at = models.DateTimeField(_("expires at"), db_index=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    revoked_because = models.CharField(_("revoked because"), max_length=20, blank=True, default="")

    class Meta:
        verbose_name = _("token family")
        verbose_name_plural = _("token families")
        ordering = ("-created_at", "id")

    def __str__(self) -> str:
        return f"{self.user_id} {self.created_at:%Y-%m-%dT%H:%M:%SZ}"
