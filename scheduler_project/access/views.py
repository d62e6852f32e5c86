"""Ways in beside the console's form: the page of a one-time log-in link, and the admin site's way to that form.

Opening a link uses nothing up: link previews only look. The admin site's own form would be one where nobody bounds the
guessing of passwords.
"""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME, login
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from scheduler_project.access import links
from scheduler_project.access.errors import LinkInvalid
from tasks_app.clock import clock


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def login_once(request: HttpRequest, token: str) -> HttpResponse:
    """GET asks for a confirmation, POST signs in and goes to the start page."""
    usable = links.is_usable(token, now=clock.now())
    if request.method == "POST" and usable:
        try:
            user = links.use_link(token, now=clock.now())
        except LinkInvalid:
            usable = False
        else:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            return HttpResponseRedirect(reverse("home"))
    response = render(request, "access/login_once.html", {"usable": usable}, status=200 if usable else 410)
    response.headers["Referrer-Policy"] = "same-origin"
    return response


@never_cache
def admin_login(request: HttpRequest) -> HttpResponse:
    """To the console's form, and from there on to the page of the admin site that was asked for; takes no password.

    Raises PermissionDenied for who is signed in and may not look at the admin site: the form would send them back here.
    """
    wanted = request.GET.get(REDIRECT_FIELD_NAME, "")
    if not url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure()):
        wanted = reverse("admin:index")
    if admin.site.has_permission(request):
        return HttpResponseRedirect(wanted)
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(wanted)
