"""What a search says: `is:failed,timeout task:etl.* -worker:w-06 type:backup attempt:>1 created:>-2h id:12 etl`.

Terms stand side by side and must all hold; commas within one mean "or"; `-` before one means "not". Words without a
key are the beginning of a task's name. Quotes hold a value with spaces or colons together. Pure but for the text of
messages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from tasks_app.errors import InvalidSearch
from tasks_app.states import ACTIVE, FINAL, RunStatus
from tasks_app.text import Text

LENGTH_MAX: Final = 500
KEYS: Final = ("is", "task", "type", "worker", "attempt", "created", "id")
#: Words for several states at once.
GROUPS: Final[dict[str, frozenset[RunStatus]]] = {
    "active": ACTIVE,
    "final": FINAL,
    "waiting": frozenset({RunStatus.PENDING, RunStatus.DISPATCHED}),
}
_TOKEN = re.compile(
    r'(?P<minus>-?)(?:(?P<key>[A-Za-z_]+):)?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"]*))(?=\s|$)'
)
_COMPARED = re.compile(r"(>=|<=|>|<|)(.+)")
_AGE = re.compile(r"-(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OPERATORS: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "": "exact"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A bound: `operator` is gt, gte, lt, lte or exact."""

    operator: str
    value: int | datetime


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. values: states, names or ids as texts; `prefix` values match the beginning of a name."""

    key: str
    source: str
    negated: bool = False
    values: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class RunSearch:
    """A search that was understood."""

    terms: tuple[Term, ...] = field(default=())

    def of(self, key: str, *, negated: bool = False) -> list[Term]:
        """The terms with this key."""
        return [term for term in self.terms if term.key == key and term.negated == negated]

    def without(self, term: Term) -> str:
        """The text of this search with one term left out."""
        return " ".join(other.source for other in self.terms if other is not term)

    @property
    def text(self) -> str:
        """The text, with single spaces."""
        return " ".join(term.source for term in self.terms)


def parse(text: str, *, now: datetime) -> RunSearch:
    """What a text says. Raises InvalidSearch, which names the term and, where there is one, the nearest known word."""
    if len(text) > LENGTH_MAX:
        raise _refused(
            text[:40], Text("at most %(limit)s characters, not %(length)s", limit=LENGTH_MAX, length=len(text))
        )
    if "\x00" in text:
        raise _refused("", Text("NUL characters cannot be stored"))
    terms: list[Term] = []
    bare: list[str] = []
    for token in _tokens(text):
        key, value = token["key"], _value(token)
        if key is None:
            if token["minus"]:
                raise _refused(token[0], Text("write -task:%(name)s* to leave out tasks", name=value))
            bare.append(value)
        else:
            terms.append(_term(token, key.lower(), value, now))
    if bare:
        name = " ".join(bare)
        terms.append(Term("task", quoted(name), prefixes=(name,)))
    return RunSearch(tuple(terms))


def quoted(value: str) -> str:
    """A value as it can be typed."""
    if not re.search(r'[\s:",*\\]|^-|^$', value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tokens(text: str) -> Iterable[re.Match[str]]:
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise _refused(text[position : position + 40], Text("a quotation mark is missing or stands inside a word"))
        yield match
        position = match.end()


def _value(token: re.Match[str]) -> str:
    inside: str | None = token["quoted"]
    return token["plain"] if inside is None else re.sub(r"\\(.)", r"\1", inside)


def _term(token: re.Match[str], key: str, value: str, now: datetime) -> Term:
    source, negated = token[0], bool(token["minus"])
    if key not in KEYS:
        raise _unknown(
            source, key, KEYS, Text('unknown key "%(given)s"; known: %(known)s', given=key[:40], known=", ".join(KEYS))
        )
    if not value.strip(","):
        raise _refused(source, Text("a value is needed after the colon"))
    if key in {"attempt", "created"}:
        if negated:
            raise _refused(source, Text("turn the comparison round instead of writing -"))
        return Term(key, source, comparison=_comparison(source, key, value, now))
    values = [value] if token["quoted"] is not None else [part for part in value.split(",") if part]
    if key == "is":
        return Term(key, source, negated, tuple(sorted(_statuses(source, values))))
    if key == "id" and not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in values):
        raise _refused(source, Text("must be the number of a run"))
    begins = key == "task" and token["quoted"] is None
    exact = [part for part in values if not (begins and part.endswith("*"))]
    prefixes = [part[:-1] for part in values if part not in exact]
    return Term(key, source, negated, tuple(exact), tuple(prefixes))


def _statuses(source: str, words: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        if word.lower() in GROUPS:
            found |= {status.value for status in GROUPS[word.lower()]}
        elif word.upper() in RunStatus.__members__:
            found.add(word.upper())
        else:
            known = [name.lower() for name in RunStatus.__members__] + list(GROUPS)
            message = Text('unknown state "%(given)s"; known: %(known)s', given=word[:40], known=", ".join(known))
            raise _unknown(source, word.lower(), known, message)
    return found


def _comparison(source: str, key: str, value: str, now: datetime) -> Comparison:
    match = _COMPARED.fullmatch(value)
    sign, operand = (match[1], match[2]) if match else ("", "")
    if key == "attempt":
        if not (operand.isascii() and operand.isdecimal() and len(operand) < 6):
            raise _refused(source, Text("must be a number, as in attempt:>1"))
        return Comparison(_OPERATORS[sign], int(operand))
    if not sign:
        raise _refused(source, Text("must be a comparison, as in created:>-2h or created:<2030-01-31"))
    return Comparison(_OPERATORS[sign], _instant(source, operand, now))


def _instant(source: str, text: str, now: datetime) -> datetime:
    try:
        if age := _AGE.fullmatch(text):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        message = Text("must be an age as -2h (s, m, h, d, w) or a time as 2030-01-31T08:00 (UTC)")
        raise _refused(source, message) from error


def _refused(source: str, message: Text) -> InvalidSearch:
    return InvalidSearch(source[:100], message)


def _unknown(source: str, given: str, known: Iterable[str], otherwise: Text) -> InvalidSearch:
    near = difflib.get_close_matches(given[:40], list(known), n=1, cutoff=0.5)
    if not near:
        return _refused(source, otherwise)
    return InvalidSearch(
        source[:100],
        Text('unknown word "%(given)s"; did you mean "%(near)s"?', given=given[:40], near=near[0]),
        suggestion=source.replace(given, near[0], 1) if given in source else "",
    )
