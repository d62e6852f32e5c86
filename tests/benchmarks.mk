# The benchmark. The whole takes about half an hour, on a machine that does nothing else, and writes docs/benchmarks.md;
# SCALE=small is a quick look that leaves the page alone.

.PHONY: bench

bench: venv-dev servers ## measure beside bare Celery and django-celery-results (SCALE=small: a quick look)
	$(PY) -m tests.benchmarks --scale $(or $(SCALE),full)
