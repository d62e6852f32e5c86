.PHONY: screenshots

screenshots: venv-dev servers ## a picture of each page of the console, theme and language into build/screenshots
	$(PY) -m tests.console.screenshots
