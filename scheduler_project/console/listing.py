"""Lists that stay quick over millions of rows, and pages that only show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduler_project.api.errors import said
from tasks_app.errors import SignalboxError

#: What a list counts and turns pages over, at most. Older rows are found by a filter or with `?id__lt=`.
ROWS_MAX: Final = 1000
#: What one action does at most.
ACTION_MAX: Final = 1000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages over the first ROWS_MAX rows."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, ROWS_MAX at most; never looks at more."""
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:ROWS_MAX].count()


class BoundedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A list without full counts and without sorting by whatever column."""

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    sortable_by: ClassVar[tuple[str, ...]] = ()
    #: A text that is not a number is the beginning of this column.
    prefix_column: ClassVar[str] = ""
    #: A number is one of these columns; they have an index.
    number_columns: ClassVar[tuple[str, ...]] = ("pk",)

    def get_search_results(
        self, _request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By number, else by the beginning of a name; never by something in the middle, which no index knows."""
        term = search_term.strip()
        if not term or "\x00" in term:
            return queryset, False
        if self.number_columns and term.isascii() and term.isdecimal() and len(term) < 19:
            return queryset.filter(**{self.number_columns[0]: int(term)}), False
        return self.search_by_name(queryset, term), False

    def search_by_name(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Rows whose name begins with the term."""
        if not self.prefix_column:
            return queryset.none()
        return queryset.filter(**{f"{self.prefix_column}__startswith": term})


class ReadOnlyAdmin(BoundedAdmin):
    """Pages that only show. Actions name the permission that they need."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Never."""
        return False


def each(request: HttpRequest, rows: Iterable[Any], act: Callable[[Any], object]) -> None:
    """Call `act` for each row, ACTION_MAX at most, and say how it went."""
    done = 0
    refused: dict[str, int] = {}
    for row in list(rows)[:ACTION_MAX] if not isinstance(rows, QuerySet) else rows[:ACTION_MAX]:
        try:
            act(row)
        except SignalboxError as error:
            text = said(error.detail)
            refused[text] = refused.get(text, 0) + 1
        else:
            done += 1
    tell(request, done, refused)


def tell(request: HttpRequest, done: int, refused: dict[str, int]) -> None:
    """How many it was done for, and what was in the way of the others."""
    if done:
        messages.success(request, ngettext("Done for %(count)d.", "Done for %(count)d.", done) % {"count": done})
    for text, count in refused.items():
        messages.error(request, _("Not done for %(count)d: %(reason)s") % {"count": count, "reason": text})


def link(address: str, text: str) -> str:
    """An anchor."""
    return format_html('<a href="{}">{}</a>', address, text)
