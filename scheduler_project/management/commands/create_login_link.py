"""`manage.py create_login_link`: a way in without a password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from scheduler_project.access import links
from scheduler_project.management.face import PlainCommand
from tasks_app.clock import clock


class Command(PlainCommand):
    """Make a link."""

    help: Any = _lazy(
        'Print the path of a link that signs in once within 15 minutes; makes the superuser "admin" if needed.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Options of the command."""
        super().add_arguments(parser)
        parser.add_argument("--user", default=links.OPERATOR, metavar="NAME", help=_("who signs in"))
        parser.add_argument("--base-url", default="", metavar="URL", help=_("print the whole address"))

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the link."""
        name = options["user"]
        user = links.operator() if name == links.OPERATOR else User.objects.filter(username=name).first()
        if user is None or not user.is_active:
            raise CommandError(_('there is no active user "%(name)s"') % {"name": options["user"]})
        path = reverse("login-once", args=[links.create_link(user, now=clock.now())])
        self.stdout.write(options["base_url"].rstrip("/") + path)
