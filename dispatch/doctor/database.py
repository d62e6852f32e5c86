"""The database answers, and has the tables that this version of the program needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db import Error as DatabaseFailure
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dispatch.doctor.findings import Finding, Severity


class Database:
    """Connected to, asked, and compared with the migrations."""

    name = "database"
    needs_database = False

    def find(self, _now: datetime) -> Iterator[Finding]:
        """See `Check`."""
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseFailure as error:
            connection.close()
            yield Finding(
                "database.away", Severity.ERROR,
                _("The database does not answer: %(reason)s") % {"reason": " ".join(str(error).split())[:300]},
                _("Start it, or correct its address. Workers go on with what runs until their leases end."),
            )  # fmt: skip
            return
        if missing:
            text = ngettext(
                "%(count)d migration has not been applied.", "%(count)d migrations have not been applied.", len(missing)
            )
            yield Finding(
                "database.migrations", Severity.ERROR, text % {"count": len(missing)}, _("Run: manage.py migrate")
            )
