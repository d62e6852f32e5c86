.PHONY: messages

messages: venv-dev ## texts of the program into the catalogues of translations, and these into their compiled form
	$(PY) -m tests.messages
