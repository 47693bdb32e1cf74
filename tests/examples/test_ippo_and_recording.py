"""The examples, run as a user runs them, small."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import ippo_sb3
import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv

ROOT = Path(__file__).parents[2]
SMALL = ["--env", "smax:3m", "--num-envs", "4", "--n-steps", "16", "--eval-every", "64", "--eval-episodes", "4"]
SMALL += ["--final-episodes", "4"]


def run(script, *options, cwd):
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, options)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def demos():
    return ROOT / "demos_data" / "smax_3m_win50.npz"


def steps(folder):
    with (folder / "evaluations.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_c_is_the_papers_where_it_has_one_and_falls_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(ippo_sb3, "train", lambda *anything: None)
    for scenario, c, falls in (("5m_vs_6m", 0.3, False), ("3s_vs_4z", 0.05, False), ("3m", 0.3, True)):
        ippo_sb3.main(ippo_sb3.Args(env=f"smax:{scenario}", run=tmp_path / scenario))
        config = json.loads((tmp_path / scenario / "config.json").read_text())
        assert (config["coefficient"], config["anneal"]) == (c, falls)
    ippo_sb3.main(ippo_sb3.Args(env="smax:3m", coefficient=0.2, run=tmp_path / "given"))
    config = json.loads((tmp_path / "given" / "config.json").read_text())
    assert (config["coefficient"], config["anneal"]) == (0.2, False)


def test_c_falls_to_0_over_the_run_and_unmatched_agents_have_none():
    falling = ippo_sb3.Args(coefficient=0.4, anneal=True, unmatched=["b"])
    assert ippo_sb3.coefficient(falling, ("a", "b"), done=0.0) == {"a": 0.4, "b": 0.0}
    assert ippo_sb3.coefficient(falling, ("a", "b"), done=0.75) == pytest.approx({"a": 0.1, "b": 0.0})
    assert ippo_sb3.coefficient(ippo_sb3.Args(coefficient=0.4), ("a", "b"), done=0.75) == {"a": 0.4, "b": 0.4}


def test_teams_begin_as_clones_and_learn_in_turns(tmp_path):
    rng = np.random.default_rng(0)
    tiny = dm2.Demonstrations.record(TinyEnv(), lambda seen: {agent: int(rng.integers(3)) for agent in seen}, 4, seed=0)
    tiny.save(tmp_path / "tiny.npz")
    common = {"env": "tests.helpers.tiny_envs:TinyEnv", "demos": tmp_path / "tiny.npz", "pretrain": 2, "steps": 32}
    common |= {"eval_every": 32, "eval_episodes": 2, "final_episodes": 2}
    for algorithm in ("dm2", "ippo"):
        learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
        run = tmp_path / algorithm
        ippo_sb3.main(ippo_sb3.Args(algorithm=algorithm, order="turn", run=run, learner=learner, **common))
        cloned = json.loads((run / "pretrain.json").read_text())
        assert {agent: len(history["accuracy"]) for agent, history in cloned.items()} == {"agent_0": 2, "agent_1": 2}
        assert steps(run) == [0, 32]
        with zipfile.ZipFile(run / "checkpoint.zip") as checkpoint:
            facts = json.loads(checkpoint.read("team.json"))
        assert facts["options"]["order"] == ("turn" if algorithm == "dm2" else "simultaneous")


def test_ippo_sb3_trains_evaluates_plots_and_goes_on_from_its_checkpoint(tmp_path, demos):
    fixed = [*SMALL, "--coefficient", 0.3, "--demos", demos]
    run("ippo_sb3.py", *fixed, "--steps", 128, "--run", tmp_path / "dm2", cwd=tmp_path)
    folder = tmp_path / "dm2"
    assert steps(folder) == [0, 64, 128]
    assert {"config.json", "evaluations.csv", "curve.png", "checkpoint.zip", "final.json", "agents"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "final.json").read_text())["episodes"] == 4
    assert "dm2/gail_reward" in (folder / "agents" / "ally_0" / "progress.csv").read_text().splitlines()[0]
    run("ippo_sb3.py", *fixed, "--steps", 192, "--run", folder, cwd=tmp_path)
    assert steps(folder) == [0, 64, 128, 192]
    with pytest.raises(AssertionError, match=r"holds a run with \{'coefficient': 0.3\}, not"):
        run("ippo_sb3.py", *SMALL, "--steps", 192, "--coefficient", 3, "--demos", demos, "--run", folder, cwd=tmp_path)

    run("ippo_sb3.py", *SMALL, "--algorithm", "ippo", "--steps", 64, "--run", tmp_path / "ippo", cwd=tmp_path)
    assert steps(tmp_path / "ippo") == [0, 64]

    run("ippo_sb3.py", *SMALL, "--algorithm", "ippo", "--steps", 64, "--recurrent", "--run", tmp_path / "lstm", cwd=tmp_path)
    assert steps(tmp_path / "lstm") == [0, 64]  # with illegal actions, which MaskablePPO never takes
    with pytest.raises(AssertionError, match=r"holds a run with \{'learner.recurrent': True\}"):
        run("ippo_sb3.py", *SMALL, "--algorithm", "ippo", "--steps", 64, "--run", tmp_path / "lstm", cwd=tmp_path)
    config = tmp_path / "ippo" / "config.json"  # as a run has it that is older than the option
    facts = json.loads(config.read_text())
    del facts["learner"]["recurrent"]
    config.write_text(json.dumps(facts))
    with pytest.raises(AssertionError, match=r"holds a run with \{'learner.recurrent': False\}"):
        run(
            "ippo_sb3.py",
            *SMALL,
            "--algorithm",
            "ippo",
            "--steps",
            64,
            "--recurrent",
            "--run",
            tmp_path / "ippo",
            cwd=tmp_path,
        )


def test_a_run_whose_c_falls_over_its_steps_keeps_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(ippo_sb3, "train", lambda args, run, *rest: (run / "checkpoint.zip").touch())
    for anneal in (True, False):
        args = {"env": "smax:3m", "coefficient": 0.3, "anneal": anneal, "run": tmp_path / str(anneal)}
        ippo_sb3.main(ippo_sb3.Args(steps=128, **args))
        if anneal:
            why = r"c falls to 0 over a run's steps, so one of 256 steps is another run from the start"
            with pytest.raises(SystemExit, match=rf"holds a run with \{{'steps': 128\}}, not \{{'steps': 256\}} \({why}\)"):
                ippo_sb3.main(ippo_sb3.Args(steps=256, **args))
        else:
            ippo_sb3.main(ippo_sb3.Args(steps=256, **args))


def test_unmatched_agents_have_to_be_agents(tmp_path, demos):
    short = {"steps": 1, "eval_episodes": 4, "final_episodes": 4}
    args = ippo_sb3.Args(env="smax:3m", demos=demos, unmatched=["ally_1", "marine_0"], run=tmp_path, **short)
    with pytest.raises(SystemExit, match="unmatched has marine_0, but the agents of smax:3m are ally_0, ally_1, ally_2"):
        ippo_sb3.main(args)


def test_demo_runs_both_and_prints_the_experts_rate(tmp_path, demos):
    options = [
        "--env",
        "smax:3m",
        "--demos",
        demos,
        "--steps",
        4096,
        "--eval-episodes",
        4,
        "--final-episodes",
        4,
        "--out",
        tmp_path / "demo",
    ]
    table = run("demo.py", *options, cwd=tmp_path)
    assert "| DM2, 4,096 steps (" in table
    assert "| IPPO, 4,096 steps (" in table
    assert "| experts (1000 episodes) | 0.4" in table
    assert (tmp_path / "demo" / "curve.png").stat().st_size > 5_000


def test_record_demos_records_at_the_level_and_names_files_truthfully(tmp_path):
    options = ["--env", "smax:3m", "--levels", 0.0, "--episodes", 20, "--num-envs", 8, "--out", tmp_path]
    run("record_demos.py", *options, "--run", tmp_path / "run", cwd=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    demos = dm2.Demonstrations.load(path)
    assert len(demos) == 20
    named = int(path.stem.rpartition("win")[2]) / 100
    assert abs(named - demos.win_rate) <= 0.05
    assert demos.metadata["policy"]["train_steps"] > 0


def test_record_demos_interrupted_records_what_it_would_have_recorded(tmp_path):
    def recorded(name, *max_steps):
        fixed = ["--env", "smax:3m", "--levels", 0.99, "--episodes", 4, "--num-envs", 8]
        for most in max_steps:
            run(
                "record_demos.py",
                *fixed,
                "--max-steps",
                most,
                "--out",
                tmp_path / name,
                "--run",
                tmp_path / name,
                cwd=tmp_path,
            )
        return (tmp_path / name / "evaluations.csv").read_text()

    # Intervals between looks grow: 4,096, then 8,192 steps.
    assert recorded("twice", 4_096, 12_288) == recorded("once", 12_288)


def test_record_demos_keeps_what_it_recorded_when_it_gives_up(tmp_path):
    options = ["--env", "smax:3m", "--levels", 0.0, 0.99, "--episodes", 10, "--num-envs", 8, "--max-steps", 4_096]
    before = run("record_demos.py", *options, "--out", tmp_path, "--run", tmp_path / "run", cwd=tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert files
    said = run("record_demos.py", *options, "--out", tmp_path, "--run", tmp_path / "run", cwd=tmp_path)
    assert "stopped at 4,096 steps, below the levels [0.99]" in before
    assert "already exists, so the last team" in said
    assert {path: path.read_bytes() for path in tmp_path.glob("*.npz")} == files


def test_record_demos_may_begin_with_another_after_death(tmp_path):
    def taught(name, *options):
        fixed = ["--env", "smax:3m", "--levels", 0.99, "--episodes", 4, "--num-envs", 8, "--max-steps", 8_192, "--seed", 3]
        run("record_demos.py", *fixed, *options, "--out", tmp_path / name, "--run", tmp_path / name, cwd=tmp_path)
        return (tmp_path / name / "evaluations.csv").read_text().splitlines()[1:]

    first, mean = taught("first", "--mean-first", 1), taught("mean", "--after-death", "mean")
    assert len(first) == 2
    assert first[0] == mean[0]
    assert first[1] != mean[1]


@pytest.mark.parametrize("script", ["ippo_sb3.py", "demo.py", "record_demos.py", "wrap_any_env.py"])
def test_help(script, tmp_path):
    assert "usage" in run(script, "--help", cwd=tmp_path)
