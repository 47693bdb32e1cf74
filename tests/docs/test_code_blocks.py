"""Every Python block of the README and the documentation runs, and every command names things that exist.

The blocks of one page run one after the other in one namespace, as a reader would run them, in an empty folder that has
only ``demos_data``. A block whose training is long declares right above itself what the test makes shorter.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
from dataclasses import asdict

import pytest
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2
from tests.docs.pages import ROOT, Block, blocks, pages

sys.path.insert(0, str(ROOT / "examples"))
from ippo_sb3 import CLONING, Args, LearnerArgs, MatcherArgs, chosen, starting_coefficient

PROGRAMS = {page: [block for block in blocks(page) if block.language == "python"] for page in pages()}
COMMANDS = {page: [block for block in blocks(page) if block.language in ("", "bash", "console")] for page in pages()}


@pytest.mark.parametrize("page", [page for page, programs in PROGRAMS.items() if programs])
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demos_data").symlink_to(ROOT / "demos_data")
    names: dict = {"__name__": "page"}
    for block in PROGRAMS[page]:
        # Empty lines in front, so that a traceback has the line numbers of the page.
        exec(compile("\n" * (block.line - 1) + block.shortened(), str(ROOT / page), "exec"), names)


def test_the_readme_has_the_settings_of_the_picture():
    """They are the defaults of examples/ippo_sb3.py; only what the block declares is shortened."""
    learner, matcher = LearnerArgs().settled("smax:5m_vs_6m"), MatcherArgs()
    programs = PROGRAMS["README.md"]
    assert len(programs) == 2
    assert [long for long, _ in programs[1].changes] == [
        "steps = 1_000_000",
        "num_envs=64",
        "batch_size=1024",
        '6m", 32',
        "episodes=512",
        "epochs=20",
    ]
    assert learner.activation == "relu"
    for setting in (
        f"steps = {Args().steps:_}\n",
        f"num_envs={learner.num_envs})",
        f"n_steps={learner.n_steps},",
        f"batch_size={learner.n_steps * learner.num_envs // learner.minibatches},",
        f"n_epochs={learner.n_epochs},",
        f"learning_rate={learner.learning_rate}".replace("0.001", "1e-3,"),
        f"ent_coef={learner.ent_coef},",
        f"max_grad_norm={learner.max_grad_norm},",
        '"activation_fn": torch.nn.ReLU',
        f"DistributionMatcher(best, standardize={matcher.standardize}, seed=0)",
        f"pretrain(team, best, epochs={CLONING})",
    ):
        assert setting in programs[1].code
    # What the README leaves to the defaults is the same there and in the example.
    defaults = {name: value.default for name, value in inspect.signature(dm2.DistributionMatcher).parameters.items()}
    assert {name: defaults[name] for name in asdict(matcher)} == asdict(matcher) | {"standardize": False}
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_5m_vs_6m_win30.npz")
    assert len(chosen(demos, Args().experts)) == len(demos.filter(won=True))
    start = starting_coefficient(chosen(demos, Args().experts))
    assert f"coefficient=dm2.schedules.LinearFall({start}, steps=steps)," in programs[1].code
    defaults = {name: value.default for name, value in inspect.signature(MaskablePPO).parameters.items()}
    assert (learner.gamma, learner.clip_range) == (defaults["gamma"], defaults["clip_range"])


def _lines(block: Block) -> list[str]:
    """The commands of a block, without comments; lines that end in a backslash are joined."""
    text = block.code.replace("\\\n", " ")
    return [line.partition("  #")[0].strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _commands() -> list[tuple[str, str]]:
    return [(page, line) for page, found in COMMANDS.items() for block in found for line in _lines(block)]


def _python_arguments(line: str) -> list[str] | None:
    """What a command passes to a Python interpreter; None for other commands."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # not a command but, for example, a diagram
        return None
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words = words[1:]
    if words and re.fullmatch(r"(.*/)?python[\d.]*", words[0]):
        return words[1:]
    return None


def test_commands_start_programs_that_exist():
    seen = 0
    for page, line in _commands():
        arguments = _python_arguments(line)
        if not arguments:
            continue
        seen += 1
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]) is not None, f"{page}: {line}"
        elif arguments[0].endswith(".py"):
            assert (ROOT / arguments[0]).is_file(), f"{page}: {line}"
    assert seen > 10


def test_commands_read_demonstrations_that_exist():
    for page, line in _commands():
        for word in line.split():
            # Those of StarCraft II, and those that a command writes, are not in the repository.
            if re.fullmatch(r"demos_data/smax_\w+\.npz", word):
                assert (ROOT / word).is_file(), f"{page}: {line}"


def test_options_of_the_examples_exist():
    """Every ``--option`` of a command that runs an example is in its source."""
    for page, line in _commands():
        arguments = _python_arguments(line) or [""]
        if arguments[0].startswith("examples/"):
            source = "".join(path.read_text() for path in (ROOT / "examples").glob("*.py"))
            for option in re.findall(r"--([a-z][\w-]*)", line):
                name = option.removeprefix("no-").replace("-", "_")
                assert re.search(rf"\b{name}\b", source), f"{page}: {line} has --{option}"


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = {
        target
        for page in pages()
        for target in re.findall(r"(?:^|`|= ?\S+ )make ([a-z-]+)", (ROOT / page).read_text(), flags=re.MULTILINE)
    }
    assert used
    assert used <= targets, used - targets


def test_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(project["optional-dependencies"])
    for page, line in _commands():
        for extras in re.findall(r"(?:dm2-wrappers|\.)\[([\w,-]+)\]", line):
            assert set(extras.split(",")) <= known, f"{page}: {line}"
