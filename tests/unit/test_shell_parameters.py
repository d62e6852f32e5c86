"""What a shell command's parameters may be."""

import pytest

from tasks_app.shell_parameters import argv_of, check_parameters


@pytest.mark.parametrize(
    ("parameters", "argv"),
    [
        ({"argv": ["ls", "a b"]}, ["ls", "a b"]),
        ({"command": "ls 'a b' $HOME"}, ["ls", "a b", "$HOME"]),
        ({"command": "ls | wc", "shell": True}, ["/bin/sh", "-c", "ls | wc"]),
        ({"argv": ["ls", ""], "env": {"A": ""}, "cwd": "/tmp", "stdin": "x\ny"}, ["ls", ""]),
        ({"argv": ["ls"], "env": None, "cwd": None, "stdin": None}, ["ls"]),
    ],
)
def test_good_parameters_mean_one_argument_list(parameters, argv):
    assert check_parameters(parameters) == []
    assert argv_of(parameters) == argv


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({}, "argv"),
        ({"argv": ["a"], "command": "a"}, "either"),
        ({"argv": []}, "at least one"),
        ({"argv": "ls"}, "list of texts"),
        ({"argv": ["ls", 3]}, "list of texts"),
        ({"argv": [""]}, "empty"),
        ({"argv": ["ls"], "shell": "yes"}, "true or false"),
        ({"command": "   "}, "not empty"),
        ({"command": 3}, "not empty"),
        ({"command": "''"}, "empty"),
        ({"command": "a 'b"}, "split"),
        ({"command": "a", "timeout": 3}, "unknown parameter 'timeout'"),
        ({"argv": ["a"], "env": ["A"]}, "env"),
        ({"argv": ["a"], "env": {"A": 1}}, "env"),
        ({"argv": ["a"], "env": {"A=B": "c"}}, "env"),
        ({"argv": ["a"], "env": {"": "c"}}, "env"),
        ({"argv": ["a"], "env": {"SIGNALBOX_RUN_ID": "1"}}, "SIGNALBOX_RUN_ID"),
        ({"argv": ["a"], "cwd": 3}, "cwd"),
        ({"argv": ["a"], "cwd": "here"}, "absolute"),
        ({"argv": ["a"], "stdin": b"x"}, "stdin"),
        ({"argv": ["a\x00"]}, "NUL"),
        ({"argv": ["a"], "env": {"A": "\x00"}}, "NUL"),
        ({"command": "a \ud800", "shell": True}, "Unicode"),
        ({"argv": ["a"], "stdin": "\ud800"}, "Unicode"),
    ],
)
def test_bad_parameters_are_named(parameters, word):
    problems = check_parameters(parameters)
    assert problems
    assert word in problems[0]
