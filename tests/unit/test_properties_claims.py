"""The claim about the state machine counts what did not end as it must."""

from tests.faults.mutants.changes import FINER, MUTANTS
from tests.properties.claims import ELSEWHERE, Hunt, hunts, properties_value


def test_each_mutant_is_looked_for_or_has_a_reason_why_not():
    looked_for = {mutant for mutant, _ in hunts() if mutant}
    assert looked_for | ELSEWHERE.keys() == MUTANTS.keys() | FINER.keys()
    assert not looked_for & ELSEWHERE.keys()


def test_the_product_is_looked_at_on_both_databases():
    assert [database for mutant, database in hunts() if not mutant] == ["sqlite", "postgresql"]


def test_a_mutant_that_is_not_found_a_broken_promise_and_a_failed_search_count():
    missed = Hunt("reaper_off", "sqlite", 100, "", 1.0)
    broken = Hunt("", "sqlite", 100, "G1: these stand still", 1.0)
    failed = Hunt("reaper_off", "sqlite", None, "could not be looked at", 1.0)
    good = [Hunt("reaper_off", "sqlite", 9, "G1: these stand still", 1.0), Hunt("", "postgresql", 100, "", 1.0)]
    value, told = properties_value([missed, broken, failed, *good])
    assert value == 3
    assert "permit_off: cannot show here" in told
    assert properties_value([])[0] == float("inf")
