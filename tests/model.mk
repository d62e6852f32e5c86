# The model of claim, permit, lease and reaper (docs/model/README.md). Wants spin and a C compiler.
.PHONY: model

model: venv-dev servers ## check every state of the model, and that each of its mutants fails
	$(PY) -m tests.model
