"""The catalogues of translations: `python -m tests.messages` collects, merges and compiles; no GNU gettext is needed.

Texts are what stands as a literal in a call of gettext (under the names that Django's users give it), `Text` or
`ngettext`, and in the tags of templates. What is not used any more leaves the catalogue; what is new is there and
empty, and a test fails until somebody has translated it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tasks_app", "workers_app", "dispatch", "scheduler_project")
LOCALE = ROOT / "scheduler_project" / "locale"
LANGUAGES = ("zh_Hans",)

ONE = {"_", "_lazy", "_text", "gettext", "gettext_lazy", "gettext_noop", "Text"}
MANY = {"ngettext", "ngettext_lazy"}
_TAG = re.compile(r"""{%\s*(?:translate|trans)\s+(["'])(.+?)\1""")

Key = tuple[str, str]


def collected() -> dict[Key, list[tuple[str, int]]]:
    """(text, plural or "") -> where it stands."""
    found: dict[Key, list[tuple[str, int]]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for key, line in texts_of(path.read_text(encoding="utf-8")):
                found.setdefault(key, []).append((str(path.relative_to(ROOT)), line))
    for path in sorted((ROOT / "templates").rglob("*.html")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for match in _TAG.finditer(text):
                found.setdefault((match[2], ""), []).append((str(path.relative_to(ROOT)), number))
    return found


def texts_of(source: str) -> Iterator[tuple[Key, int]]:
    """The texts of a module."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ONE and (text := _literal(node, 0)):
            yield (text, ""), node.lineno
        elif name in MANY and (text := _literal(node, 0)) and (plural := _literal(node, 1)):
            yield (text, plural), node.lineno


def _literal(call: ast.Call, position: int) -> str:
    if len(call.args) <= position:
        return ""
    argument = call.args[position]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else ""


def merged(path: Path, found: dict[Key, list[tuple[str, int]]]) -> polib.POFile:
    """The catalogue with exactly the texts that were found, and the translations that it had."""
    old = {(entry.msgid, entry.msgid_plural): entry for entry in polib.pofile(str(path))} if path.exists() else {}
    made = polib.POFile(wrapwidth=110)
    made.metadata = {
        "Project-Id-Version": "Signalbox",
        "Language": path.parent.parent.name,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": "nplurals=1; plural=0;",
    }
    for (text, plural), places in sorted(found.items()):
        known = old.get((text, plural))
        files = sorted({file for file, _ in places})
        entry = polib.POEntry(msgid=text, occurrences=[(file, "") for file in files])
        if plural:
            entry.msgid_plural = plural
            entry.msgstr_plural = known.msgstr_plural if known else {0: ""}
        else:
            entry.msgstr = known.msgstr if known else ""
        if "%(" in text:
            entry.flags = ["python-format"]
        made.append(entry)
    return made


def main() -> int:
    """Write every catalogue; 1 when something is not translated yet."""
    found = collected()
    missing = 0
    for language in LANGUAGES:
        path = LOCALE / language / "LC_MESSAGES" / "django.po"
        path.parent.mkdir(parents=True, exist_ok=True)
        catalogue = merged(path, found)
        catalogue.save(str(path))
        catalogue.save_as_mofile(str(path.with_suffix(".mo")))
        empty = catalogue.untranslated_entries()
        missing += len(empty)
        print(f"{path.relative_to(ROOT)}: {len(catalogue)} texts, {len(empty)} not translated")
        for entry in empty:
            print(f"  {entry.msgid}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
