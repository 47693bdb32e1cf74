"""Command lines of programs."""

from experiments.programs import command_line_arguments


def test_options_become_command_line_arguments():
    assert command_line_arguments({"a": 1, "on": True, "off": False}) == ["--a", "1", "--on", "--no-off"]
