# The benchmark. The whole takes about an hour, on a machine that does nothing else, and writes docs/benchmarks.md;
# SCALE=small is a quick look that leaves the page alone.

.PHONY: bench

bench: venv-dev servers ## beside bare Celery and django-celery-results: SCALE=small PARTS=rounds,redis,rates,profile
	$(PY) -m tests.benchmarks --scale $(or $(SCALE),full) $(if $(PARTS),--parts $(PARTS))
