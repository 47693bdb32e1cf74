"""examples/ippo_rllib.py from its start to a run that is continued."""

from __future__ import annotations

import csv
import json
import sys

import pytest

import dm2_wrappers as dm2
from tests.docs.pages import ROOT
from tests.helpers.line_env import LineEnv, experts

pytest.importorskip("ray.rllib", reason="needs the extra rllib")
tyro = pytest.importorskip("tyro")

sys.path.insert(0, str(ROOT / "examples"))
import ippo_rllib  # noqa: E402  found by the line above


def run(folder, *options):
    arguments = ["--env", "tests.helpers.line_env:LineEnv", "--run", str(folder / "run"), "--num-envs", "2"]
    arguments += ["--batch-size", "24", "--eval-every", "24", "--eval-episodes", "2", "--final-episodes", "3"]
    return ippo_rllib.main(tyro.cli(ippo_rllib.Args, args=[*arguments, *options]))


def rows(folder):
    with (folder / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_evaluated_saved_and_continued(ray_session, tmp_path):
    experts().save(tmp_path / "line.npz")
    options = "--demos", str(tmp_path / "line.npz"), "--coefficient", "0.5", "--matcher.updates", "2"
    folder = run(tmp_path, *options, "--steps", "24")
    first = rows(folder)
    assert [row["step"] for row in first] == ["0", "24"]
    assert (folder / "curve.png").stat().st_size > 1000
    assert json.loads((folder / "final.json").read_text())["episodes"] == 3
    assert run(tmp_path, *options, "--steps", "48") == folder
    assert rows(folder)[:2] == first
    assert [row["step"] for row in rows(folder)] == ["0", "24", "48"]
    assert [path.name for path in (folder / "checkpoint.rllib").iterdir()] == ["48"]
    with pytest.raises(SystemExit, match=r"holds a run with .*coefficient"):
        run(tmp_path, *options[:2], "--coefficient", "0.7", "--steps", "48")


def test_train_returns_the_teams_policy(ray_session):
    demos = experts()
    made = []

    def make_matcher():
        made.append(dm2.DistributionMatcher(demos, updates=1, batch_size=8, seed=0))
        return made[-1]

    policy = ippo_rllib.train(LineEnv, make_matcher, coefficient=1.0, env_coefficient=0.0, steps=130, seed=0)
    observations, _ = LineEnv().reset()
    actions = policy(observations)
    assert set(actions) == {"left", "right"}
    assert all(action in (0, 1, 2) for action in actions.values())
    assert [matcher.metrics["trained"] for matcher in made] == [1.0]  # one matcher, and it was trained
