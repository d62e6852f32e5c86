"""The catalogues say what the program says, all of it, and are compiled."""

import re

import polib
import pytest
from django.utils import translation

from tests.messages import LANGUAGES, LOCALE, collected

_NAMES = re.compile(r"%\((\w+)\)[sd]")


@pytest.fixture(params=LANGUAGES)
def catalogue(request):
    return polib.pofile(str(LOCALE / request.param / "LC_MESSAGES" / "django.po"))


def test_the_catalogue_has_exactly_the_texts_of_the_program(catalogue):
    assert {(entry.msgid, entry.msgid_plural) for entry in catalogue} == set(collected()), "run: make messages"


def test_every_text_is_translated(catalogue):
    assert [entry.msgid for entry in catalogue.untranslated_entries()] == []
    assert catalogue.fuzzy_entries() == []


def test_the_compiled_form_is_the_one_of_this_catalogue(catalogue):
    compiled = polib.mofile(catalogue.fpath.removesuffix(".po") + ".mo")
    said = {entry.msgid: entry.msgstr or entry.msgstr_plural for entry in compiled}
    assert said == {entry.msgid: entry.msgstr or entry.msgstr_plural for entry in catalogue}, "run: make messages"


def test_a_translation_names_the_same_values(catalogue):
    for entry in catalogue:
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            if text:
                assert set(_NAMES.findall(text)) == set(_NAMES.findall(entry.msgid)), entry.msgid


def test_django_finds_the_catalogue():
    with translation.override("zh-hans"):
        assert translation.gettext("There is no such task.") == "没有这个任务。"
        assert translation.gettext("There is no such task.") != "There is no such task."
