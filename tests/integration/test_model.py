"""The model of claim, permit, lease and reaper is checked: in short here, in full by `make model`."""

import dataclasses
import re

import pytest

from tests.model.claims import model_value
from tests.model.variants import MODEL, VARIANTS, Outcome, Variant, check, missing_tools, table

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def spin(monkeypatch, tmp_path):
    if missing := missing_tools():
        pytest.skip(f"not installed: {' '.join(missing)} (on Debian: sudo tests/servers/install.sh)")
    monkeypatch.setattr(Variant, "folder", property(lambda _self: tmp_path / "model"))


def test_every_run_of_the_model_ends_when_nothing_fails():
    outcome = check(Variant("every run ends", live=True, faults=0))
    assert outcome.complete
    assert outcome.verdict == "holds"
    assert outcome.states > 1000


def test_a_mutant_of_the_model_fails_by_what_its_defect_leads_to():
    outcome = check(Variant("cancel lost on the way back", "CANCEL_DROPPED"))
    assert outcome.verdict == "fails: a permit after an answered cancel"


def test_each_mutant_that_the_model_names_is_checked():
    named = set(re.findall(r"MUTANT [!=]= (\w+)", MODEL.read_text()))
    assert named == {variant.mutant for variant in VARIANTS if variant.mutant}


def test_a_mutant_that_holds_and_a_search_that_was_cut_off_are_told():
    held = Outcome(Variant("mutant", "NO_TOKEN"), 10, 5, "", complete=True, seconds=1.0)
    cut = Outcome(Variant("the model"), 10, 5, "", complete=False, seconds=1.0)
    assert [one.as_it_must for one in (held, cut)] == [False, False]
    assert "NOT AS IT MUST BE" in table([held])[1]
    assert "NOT SEARCHED THROUGH" in table([cut])[1]
    assert model_value([held, cut, dataclasses.replace(cut, complete=True)])[0] == 2
    assert model_value([])[0] == float("inf")
