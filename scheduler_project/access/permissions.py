"""What a user may do: Django's model permissions, named by each view for each of its actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from scheduler_project.access.errors import NotAuthenticated, PermissionMissing


class NamedPermission(BasePermission):
    """The view's `permissions_needed` maps its actions to permissions; one that is missing there does not exist."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """True, or an error that says what is missing."""
        if not request.user.is_authenticated:
            raise NotAuthenticated
        if view.action is None:  # a method that the resource does not have: DRF answers that
            return True
        needed = view.permissions_needed.get(view.action)
        if needed is None:
            raise MethodNotAllowed(str(request.method))
        if not request.user.has_perm(needed):
            raise PermissionMissing(permission=needed)
        return True


class Guarded:
    """What the views of resources have in common."""

    permission_classes: Any = (NamedPermission,)
    #: action -> "app.codename"
    permissions_needed: ClassVar[Mapping[str, str]] = {}
