# The state machine over the lifecycle: `make test` runs the same examples each time, this looks at new ones.
.PHONY: properties

PROPERTIES = PROPERTIES_SECONDS=$(or $(SECONDS),600) $(PY) -m pytest -p no:logging \
	tests/integration/test_lifecycle_machine.py -k every_promise

properties: venv-dev servers ## the promises under steps in any order, on both databases: SECONDS=600 on each
	$(PROPERTIES) --database=sqlite
	$(PROPERTIES) --database=postgresql
