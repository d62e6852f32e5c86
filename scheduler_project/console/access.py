"""Log-in links and token families: shown, so that somebody can see who has a way in."""

from __future__ import annotations

from django.contrib import admin

from scheduler_project.access.models import LoginLink, TokenFamily
from scheduler_project.console.listing import ReadOnlyAdmin


class LoginLinkAdmin(ReadOnlyAdmin):
    """Links; the token is nowhere."""

    list_display = ("id", "user", "created_at", "expires_at", "used_at")
    list_select_related = ("user",)
    fields = ("user", "created_at", "expires_at", "used_at")
    ordering = ("-pk",)


class TokenFamilyAdmin(ReadOnlyAdmin):
    """Log-ins to the API."""

    list_display = ("user", "created_at", "refreshed_at", "expires_at", "revoked_at", "revoked_because")
    list_select_related = ("user",)
    fields = ("user", "created_at", "refreshed_at", "expires_at", "revoked_at", "revoked_because")
    ordering = ("-created_at",)


admin.site.register(LoginLink, LoginLinkAdmin)
admin.site.register(TokenFamily, TokenFamilyAdmin)
