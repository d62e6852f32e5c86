"""How the console writes states, times, durations, values and buttons."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from tasks_app.text import line_of_error

register = template.Library()

#: state -> (word, icon, tone). The tone is a colour of the style sheet; icon and word say it without colour.
STATES: Final[dict[str, tuple[Any, str, str]]] = {
    "PENDING": (_lazy("Pending"), "clock", "wait"),
    "DISPATCHED": (_lazy("Dispatched"), "send", "wait"),
    "RUNNING": (_lazy("Running"), "play", "busy"),
    "COMPLETED": (_lazy("Completed"), "check", "ok"),
    "FAILED": (_lazy("Failed"), "cross", "bad"),
    "TIMEOUT": (_lazy("Timed out"), "hourglass", "bad"),
    "CANCELLED": (_lazy("Cancelled"), "slash", "quiet"),
    "SKIPPED": (_lazy("Skipped"), "skip", "quiet"),
    "LOST": (_lazy("Lost"), "unplug", "bad"),
    "QUARANTINED": (_lazy("Quarantined"), "shield", "warn"),
    "ONLINE": (_lazy("Online"), "check", "ok"),
    "SUSPECT": (_lazy("Suspect"), "alert", "warn"),
    "DRAINING": (_lazy("Draining"), "pause", "wait"),
    "OFFLINE": (_lazy("Offline"), "slash", "quiet"),
    "PAUSED": (_lazy("Paused"), "pause", "warn"),
}
_ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
_VALUE_MAX: Final = 20_000


@register.simple_tag
def icon(name: str) -> SafeString:
    """A picture beside a word; for eyes only."""
    return format_html('<svg class="icon" aria-hidden="true"><use href="#i-{}"/></svg>', name)


@register.simple_tag
def state(value: str) -> SafeString:
    """A state: icon, word and colour."""
    word, picture, tone = STATES[value]
    return format_html('<span class="state t-{}">{}{}</span>', tone, icon(picture), word)


@register.filter
def tone(value: str) -> str:
    """The colour of a state."""
    return STATES[value][2]


@register.filter
def word(value: str) -> str:
    """The word for a state."""
    return str(STATES[value][0])


@register.simple_tag(takes_context=True)
def when(context: template.Context, at: datetime | None, form: str = "age") -> SafeString:
    """An instant as its age (or `clock`: the time of day); the other one and the date on hover."""
    if at is None:
        return format_html('<span class="none">{}</span>', "–")
    now: datetime = context["now"]
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    text = age(at - now) if form == "age" else at.strftime("%H:%M:%S" if at.date() == now.date() else "%m-%d %H:%M:%S")
    title = exact if form == "age" else f"{exact}, {age(at - now)}"
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), title, text)


@register.simple_tag(takes_context=True)
def since(context: template.Context, at: datetime | None) -> str:
    """How long something has been going on."""
    return took((context["now"] - at) / timedelta(milliseconds=1)) if at is not None else "–"


def age(distance: timedelta) -> str:
    """A distance from now: "12 s ago", "in 3 min"."""
    seconds = round(distance.total_seconds())
    if abs(seconds) < 1:
        return _("now")
    text = rough(abs(seconds))
    return _("in %(time)s") % {"time": text} if seconds > 0 else _("%(time)s ago") % {"time": text}


def rough(seconds: float) -> str:
    """A time to its first two units at most."""
    if seconds < 60:
        return _("%(n)d s") % {"n": seconds}
    if seconds < 3600:
        return _("%(n)d min") % {"n": seconds // 60}
    if seconds < 48 * 3600 and seconds % 3600 < 60:
        return _("%(n)d h") % {"n": seconds // 3600}
    if seconds < 48 * 3600:
        return _("%(n)d h %(m)02d min") % {"n": seconds // 3600, "m": seconds % 3600 // 60}
    return _("%(n)d d") % {"n": seconds // 86400}


@register.filter
def took(ms: float | str | None) -> str:
    """A duration in milliseconds: "18 ms", "3.1 s", "2 min 05 s"."""
    if ms is None or ms == "":
        return "–"
    ms = float(ms)
    if ms < 1000:
        return _("%(n)d ms") % {"n": ms}
    if ms < 60_000:
        return _("%(n).1f s") % {"n": ms / 1000}
    if ms < 3_600_000:
        return _("%(n)d min %(s)02d s") % {"n": ms // 60_000, "s": ms % 60_000 // 1000}
    return rough(ms / 1000)


@register.filter
def spaced(seconds: float | None) -> str:
    """An interval: "every 60 s"."""
    if seconds is None:
        return "–"
    return _("every %(time)s") % {"time": took(seconds * 1000) if seconds < 60 or seconds % 60 else rough(seconds)}


@register.filter
def pretty(value: Any) -> str:
    """JSON for reading, cut where it is long."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) <= _VALUE_MAX:
        return text
    return text[:_VALUE_MAX] + "\n" + _("[%(count)d characters cut]") % {"count": len(text) - _VALUE_MAX}


@register.filter
def plain(text: str) -> str:
    """Output without the terminal's colours and control characters."""
    return _ESCAPES.sub("", text)


register.filter("headline", line_of_error)


@register.filter
def within(number: float | None, most: float) -> float:
    """Between 0 and `most`."""
    return min(max(number or 0, 0), most)


@register.inclusion_tag("console/button.html", takes_context=True)
def act(
    context: template.Context,
    address: str,
    label: str,
    picture: str,
    permission: str,
    *,
    possible: bool = True,
    kind: str = "",
    about: str = "",
) -> dict[str, Any]:
    """A button that does something; disabled, with the reason, for whom the permission is missing.

    about: what it acts on, for readers who do not see the row that it stands in.
    """
    allowed = context["request"].user.has_perm(permission)
    needs = "" if allowed else _("needs %(permission)s") % {"permission": permission}
    return {
        "address": address, "label": label, "picture": picture, "needs": needs, "possible": possible, "kind": kind,
        "about": about, "csrf_token": context.get("csrf_token"),
    }  # fmt: skip


@register.inclusion_tag("console/copies.html", takes_context=True)
def copies(context: template.Context, method: str, path: str, command: str) -> dict[str, Any]:
    """What a button does, to be copied: as a request to the API and as a command."""
    address = context["request"].build_absolute_uri(f"/api/v1/{quote(path)}")
    ask = "" if method == "GET" else f" -X {method}"
    return {
        "curl": f'curl{ask} {address} -H "Authorization: Bearer $TOKEN"',
        "command": f"manage.py {command}",
        "about": command,
    }
