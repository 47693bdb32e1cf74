"""``python -m dm2_wrappers.testing``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dm2_wrappers.testing.__main__ import main

ROOT = Path(__file__).parents[2]
LEARNERS = """
from tests.testing import table_team, test_saboteurs

train = table_team.trains(table_team.Exact)
sabotage = table_team.trains(test_saboteurs.Twice)
"""
LISTED = """
from tests.testing import table_team, test_saboteurs


def train(make_env, make_matcher, **options):
    return table_team.trains({kind})(make_env, make_matcher, **options)
"""


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("dm2_cli_"):
            del sys.modules[name]


def write(folder, name, text, encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return str(folder / name)


def test_a_learner_passes_or_is_refused(tmp_path, capsys):
    file = write(tmp_path, "dm2_cli_learners.py", LEARNERS)
    assert main(["learner", file, "--steps", "3200", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("passed: 100% of the steps heard, agents moved 0.")
    assert main(["learner", f"{file}:sabotage", "--steps", "3200"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: 200% of the steps of 'first' were recorded: record each step once, not twice\n"


def test_an_environment_passes_or_is_refused(capsys):
    assert main(["env", "tests.helpers.tiny_envs:TinyEnv"]) == 0
    assert capsys.readouterr().out == "passed\n"
    assert main(["env", "tests.testing.test_env_check:RandomStart"]) == 1
    assert "different episodes from the same seed" in capsys.readouterr().err


def test_what_is_no_environment_is_said_to_be_none(tmp_path, capsys):
    file = write(tmp_path, "dm2_cli_no_env.py", "def make():\n    return 'an environment'\n")
    assert main(["env", f"{file}:make"]) == 1
    assert "checks a PettingZoo ParallelEnv, got str" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("no_such_file.py", "there is no file no_such_file.py"),
        ("no_such_module:train", "there is no module 'no_such_module'"),
        ("tests.helpers.tiny_envs:train", "tests.helpers.tiny_envs has no function 'train'"),
        ("tests.helpers.tiny_envs", "tests.helpers.tiny_envs has no function 'train'"),
    ],
)
def test_places_that_do_not_exist(place, fault, capsys):
    assert main(["learner", place]) == 1
    assert fault in capsys.readouterr().err
    if ":" not in place:
        assert main(["env", place]) == 1
        assert "expected FILE_OR_MODULE:FUNCTION" in capsys.readouterr().err


def test_a_file_with_the_name_of_a_module(tmp_path, capsys):
    assert main(["learner", write(tmp_path, "json.py", LEARNERS)]) == 1
    assert "has the name of another module" in capsys.readouterr().err


def test_the_table_has_a_line_for_each_learner(tmp_path, capsys):
    files = [
        write(tmp_path, "dm2_cli_honest.py", LISTED.format(kind="table_team.Exact")),
        write(tmp_path, "dm2_cli_twice.py", LISTED.format(kind="test_saboteurs.Twice")),
        write(tmp_path, "dm2_cli_missing.py", "import no_such_library\n" + LISTED.format(kind="table_team.Exact")),
        write(tmp_path, "dm2_cli_other.py", "def train(args):\n    pass\n"),
        write(tmp_path, "dm2_cli_typo.py", "def train(make_env:\n    pass\n"),
        write(tmp_path, "dm2_cli_accents.py", "# -*- coding: latin-1 -*-\n# \xe4\ndef other():\n    pass\n", "latin-1"),
    ]
    assert main(["table", *files, "--steps", "3200"]) == 1
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[2:]] == ["dm2_cli_honest", "dm2_cli_twice", "dm2_cli_missing", "dm2_cli_typo"]
    assert lines[2][1].startswith("torch ")
    assert lines[2][2] == "100%"
    assert float(lines[2][3]) > 0.5
    assert lines[2][4:6] == ["exact", "passes"]
    assert lines[2][7] == f"`python -m dm2_wrappers.testing learner {files[0]}`"
    assert lines[3][5] == "200% of the steps of 'first' were recorded: record each step once, not twice"
    assert lines[4][5] == "error: No module named 'no_such_library'"
    assert lines[5][5].startswith("error: '(' was never closed")
