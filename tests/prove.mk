# Faults and claims. At full scale both want a machine that does nothing else.

.PHONY: faults prove

faults: venv-dev servers ## kill, stop and empty everything: PARTS="cells nemeses" SCALE=small
	$(PY) -m tests.faults --scale $(or $(SCALE),full) $(PARTS)

prove: venv-dev servers ## measure the claims into build/prove.json: ONLY=spine. SCALE=small
	$(PY) -m tests.prove --scale $(or $(SCALE),full) --only "$(ONLY)"
