"""The training examples with the options that a user gives, small.

Most run in this process and on a tiny environment, because each program spends many seconds on imports and compilation.
"""

import csv
import importlib
import json
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import demo
import ippo_sb3
import numpy as np
import pytest
import tyro

import dm2_wrappers as dm2
from tests.helpers import small_demonstrations
from tests.helpers.tiny_envs import HalfWonEnv, TinyEnv

ROOT = Path(__file__).parents[2]
TINY = "tests.helpers.tiny_envs:HalfWonEnv"
FEW = ["--num-envs", "4", "--n-steps", "16", "--eval-every", "64", "--eval-episodes", "4", "--final-episodes", "4"]


def start(script, *options, cwd):
    """Run the script in a process of its own, as a user does; what it prints."""
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, options)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a script's main function with these options; what it prints."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that it starts

    def run(script, *options):
        module = importlib.import_module(script.removesuffix(".py"))
        module.main(tyro.cli(module.Args, args=[str(option) for option in options]))
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def tiny_demos(tmp_path_factory):
    """Demonstrations of the tiny environment."""
    path = tmp_path_factory.mktemp("demos") / "tiny.npz"
    dm2.Demonstrations.record(HalfWonEnv(), lambda observations: dict.fromkeys(observations, 0), 10, seed=0).save(path)
    return path


@pytest.fixture(scope="module")
def demos():
    return ROOT / "demos_data" / "smax_3m_win50.npz"


def steps(folder):
    with (folder / "evaluations.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def settled(run, monkeypatch, **options):
    """c, whether it falls, passes of cloning, and whether observations are standardized, in the config of a run."""
    monkeypatch.setattr(ippo_sb3, "train_and_evaluate", lambda *anything: None)
    ippo_sb3.main(ippo_sb3.Args(run=run, **options))
    config = json.loads((run / "config.json").read_text())
    return config["coefficient"], config["anneal"], config["pretrain"], config["matcher"]["standardize"]


def test_the_default_setting(tmp_path, monkeypatch, tiny_demos):
    for scenario in ("5m_vs_6m", "3s_vs_4z", "3m"):
        assert settled(tmp_path / scenario, monkeypatch, env=f"smax:{scenario}") == (0.05, True, 20, True)
    assert settled(tmp_path / "c", monkeypatch, env="smax:3m", coefficient=0.2) == (0.2, False, 20, True)
    assert settled(tmp_path / "ippo", monkeypatch, env=TINY, algorithm="ippo")[2] == 0
    tiny = {"env": TINY, "demos": tiny_demos}
    assert settled(tmp_path / "own", monkeypatch, **tiny, experts="own")[2:] == (0, False)
    absorbing = ippo_sb3.MatcherArgs(ends="absorbing")
    assert settled(tmp_path / "absorbing", monkeypatch, **tiny, matcher=absorbing)[2:] == (20, True)
    silent = dm2.Demonstrations.from_episodes([{"agent_0": np.ones((2, 3)), "agent_1": np.ones((2, 2))}])
    silent.save(tmp_path / "silent.npz")
    assert settled(tmp_path / "silent", monkeypatch, env=TINY, demos=tmp_path / "silent.npz")[2] == 0
    to_one = {"coefficient": 0.1, "return_gap": True, "gap_target": 1.0}  # needs no rewards
    assert settled(tmp_path / "gap", monkeypatch, env=TINY, demos=tmp_path / "silent.npz", **to_one)[:2] == (0.1, False)


def test_c_falls_to_0_over_the_run_and_unmatched_agents_have_none():
    falling = ippo_sb3.Args(coefficient=0.4, anneal=True, unmatched=["b"])
    assert ippo_sb3.coefficient(falling, ("a", "b"), step=0) == {"a": 0.4, "b": 0.0}
    assert ippo_sb3.coefficient(falling, ("a", "b"), step=750_000) == pytest.approx({"a": 0.1, "b": 0.0})
    assert ippo_sb3.coefficient(ippo_sb3.Args(coefficient=0.4), ("a", "b"), step=750_000) == {"a": 0.4, "b": 0.4}


def test_c_falls_as_the_teams_return_nears_the_experts(tmp_path, tiny_demos):
    demos, log = dm2.Demonstrations.load(tiny_demos), Path("agents") / "agent_0" / "progress.csv"
    demos = replace(demos, rewards=5 * demos.rewards)  # better than the team ever becomes
    demos.save(tmp_path / "better.npz")
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
    common = {"env": TINY, "demos": tmp_path / "better.npz", "pretrain": 0, "experts": "all", "learner": learner}
    common |= {"return_gap": True, "unmatched": ["agent_1"], "eval_every": 32, "eval_episodes": 2, "final_episodes": 2}
    for name, ends in (("whole", (96,)), ("continued", (64, 96))):
        for end in ends:
            ippo_sb3.main(ippo_sb3.Args(run=tmp_path / name, steps=end, **common))
    whole, continued = (tmp_path / name / "evaluations.csv" for name in ("whole", "continued"))
    assert whole.read_text() == continued.read_text()
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (config["anneal"], config["coefficient"]) == (False, ippo_sb3.starting_coefficient(demos))
    with (tmp_path / "whole" / log).open(newline="") as file:
        logged = [float(row["dm2/coefficient"]) for row in csv.DictReader(file)]
    assert logged[0] == pytest.approx(config["coefficient"])
    assert 0 <= min(logged) < logged[0]  # a random team's episodes differ in their return
    gap = ippo_sb3.coefficient(ippo_sb3.Args(coefficient=0.4, return_gap=True, unmatched=["b"]), ("a", "b"), step=0)
    assert (gap.options["start"], gap.options["target"]) == ({"a": 0.4, "b": 0.0}, None)
    to_eleven = ippo_sb3.Args(coefficient=0.4, return_gap=True, gap_target=11.0)
    assert ippo_sb3.coefficient(to_eleven, ("a", "b"), step=0).options["target"] == 11


@pytest.mark.parametrize("name", ["eval_every", "eval_episodes", "final_episodes", "num_envs", "n_steps", "minibatches"])
def test_counts_are_checked_before_anything_starts(name, tmp_path):
    of_learner = name in ("num_envs", "n_steps", "minibatches")
    learner = ippo_sb3.LearnerArgs(**{name: 0} if of_learner else {})
    with pytest.raises(SystemExit, match=f"--{name.replace('_', '-')} must be at least 1, got 0"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "run", learner=learner, **{} if of_learner else {name: 0}))
    with pytest.raises(SystemExit, match="--minibatches must be at most 8, half the steps of a rollout, got 9"):
        ippo_sb3.LearnerArgs(num_envs=2, n_steps=8, minibatches=9).settled("smax:3m")
    assert not (tmp_path / "run").exists()


def test_c_falls_in_one_way_only(tmp_path):
    with pytest.raises(SystemExit, match="--anneal and --return-gap are two ways for c to fall: give one of them"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "run", anneal=True, return_gap=True))
    with pytest.raises(SystemExit, match="which --experts own does not have: use --gap-target"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "run", experts="own", return_gap=True))
    with pytest.raises(SystemExit, match="--gap-target is the return at which --return-gap has c at 0: give both"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "run", gap_target=11.0))
    silent = dm2.Demonstrations.from_episodes([{"agent_0": np.ones((2, 3)), "agent_1": np.ones((2, 2))}])
    silent.save(tmp_path / "silent.npz")
    with pytest.raises(SystemExit, match="but the demonstrations hold no rewards: use --gap-target"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "silent", env=TINY, demos=tmp_path / "silent.npz", return_gap=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"order": "turn"}, {"profile": True}])
def test_workers_exclude_other_options(options, tmp_path):
    with pytest.raises(SystemExit, match="leave --workers out"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / "run", learner=ippo_sb3.LearnerArgs(workers=2), **options))
    assert not (tmp_path / "run").exists()


def test_the_matcher_is_shown_what_was_asked_for():
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win50.npz")
    assert ippo_sb3.shown(demos, "all", None) is demos
    assert ippo_sb3.shown(demos, "won", None).win_rate == 1
    assert ippo_sb3.shown(demos, "all+own", None).experts is demos
    both = ippo_sb3.shown(demos, "best+own", None)
    assert (both.experts.win_rate, both.episodes, both.prefer_newest) == (1, 300, True)
    venv = dm2.vectorize(TinyEnv, 1)
    assert (own := ippo_sb3.shown(demos, "own", venv)).experts is None
    assert own.agents == venv.possible_agents
    lost = demos.filter(won=False)
    with pytest.raises(SystemExit, match="--experts won: "):
        ippo_sb3.shown(lost, "won", None)


def test_the_best_episodes_are_those_won_or_of_the_highest_return():
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win50.npz")
    best = ippo_sb3.chosen(demos, "best")
    assert (len(best), best.win_rate) == (len(demos.filter(won=True)), 1)
    lost = demos.filter(won=False)
    assert len(ippo_sb3.chosen(lost, "best")) == -(-len(lost) * 3 // 10)
    assert ippo_sb3.chosen(lost, "best").mean_return > lost.mean_return
    few = next(few for few in (demos.subset(n) for n in range(1, 99)) if (few.won[0] == 1).sum() == 3)
    shuffled = next(each for each in map(few.shuffled, range(99)) if not (each.won == 1).all(axis=0).any())
    assert (len(own := ippo_sb3.chosen(shuffled, "best")), own.win_rate) == (3, 1)  # each agent's, whatever their order
    unpaid = replace(demos, won=np.full_like(demos.won, -1), rewards=np.zeros_like(demos.rewards))
    assert ippo_sb3.chosen(unpaid, "best") is unpaid


def test_absorbing_ends_have_the_learners_discount():
    assert "gamma" not in ippo_sb3.MatcherArgs().options(0.9)
    absorbing = ippo_sb3.MatcherArgs(ends="absorbing").options(0.9)
    assert absorbing["gamma"] == 0.9


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


def test_the_final_evaluation_has_sampled_and_greedy_actions(tmp_path):
    learner, run = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8), tmp_path / "run"
    few = {"steps": 16, "eval_every": 16, "eval_episodes": 2, "final_episodes": 6}
    ippo_sb3.main(ippo_sb3.Args(algorithm="ippo", env="tests.helpers.tiny_envs:TinyEnv", run=run, learner=learner, **few))
    final = json.loads((run / "final.json").read_text())
    with ippo_sb3._runs.vector_env("tests.helpers.tiny_envs:TinyEnv", 2) as venv:
        team = dm2.sb3.IndependentLearners.load(run / "checkpoint.zip", venv)
        sampled, greedy = (team.evaluate(venv, 6, seed=20_000, deterministic=each) for each in (False, True))
    assert final == {"step": 16, **sampled, **{f"greedy_{name}": greedy[name] for name in greedy if name != "episodes"}}
    assert final["greedy_return"] != final["return"]


def test_clones_of_the_episodes_that_were_won(tmp_path, monkeypatch):
    env, rng = TinyEnv(wins=True), np.random.default_rng(0)
    demos = dm2.Demonstrations.record(env, lambda seen: {agent: int(rng.integers(3)) for agent in seen}, 6, seed=0)
    assert 0 < demos.win_rate < 1
    demos.save(tmp_path / "tiny.npz")
    cloned = []
    monkeypatch.setattr(dm2.sb3, "pretrain", lambda team, own, **options: cloned.append(own.win_rate) or {})
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
    common = {"env": "tests.helpers.tiny_envs:TinyEnv", "demos": tmp_path / "tiny.npz", "pretrain": 1, "steps": 16}
    common |= {"eval_every": 16, "eval_episodes": 2, "final_episodes": 2, "learner": learner, "algorithm": "ippo"}
    for experts in ("all", "won"):
        ippo_sb3.main(ippo_sb3.Args(run=tmp_path / experts, experts=experts, **common))
    assert cloned == [demos.win_rate, 1]


def test_ippo_sb3_trains_evaluates_plots_and_goes_on_from_its_checkpoint(tmp_path, demos, run):
    folder = tmp_path / "dm2"
    fixed = ["--env", "smax:3m", *FEW, "--coefficient", 0.3, "--demos", demos, "--run", folder]
    start("ippo_sb3.py", *fixed, "--steps", 128, cwd=tmp_path)
    assert steps(folder) == [0, 64, 128]
    assert {"config.json", "evaluations.csv", "curve.png", "checkpoint.zip", "final.json", "agents"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "final.json").read_text())["episodes"] == 4
    assert "dm2/gail_reward" in (folder / "agents" / "ally_0" / "progress.csv").read_text().splitlines()[0]
    run("ippo_sb3.py", *fixed, "--steps", 192)
    assert steps(folder) == [0, 64, 128, 192]


def test_ippo_sb3_with_workers_writes_the_curve_of_one_process_and_goes_on_without(tmp_path, tiny_demos, run):
    fixed = ["ippo_sb3.py", "--env", TINY, *FEW, "--demos", tiny_demos, "--coefficient", 0.3]
    run(*fixed, "--steps", 64, "--run", tmp_path / "one")
    run(*fixed, "--steps", 64, "--run", tmp_path / "many", "--workers", 1)
    assert (tmp_path / "one" / "evaluations.csv").read_text() == (tmp_path / "many" / "evaluations.csv").read_text()
    run(*fixed, "--steps", 128, "--run", tmp_path / "many")
    assert steps(tmp_path / "many") == [0, 64, 128]


def test_ippo_sb3_refuses_a_folder_with_other_options(tmp_path, tiny_demos, run):
    fixed = ["ippo_sb3.py", "--env", TINY, *FEW, "--steps", 64]
    dm2_run = [*fixed, "--demos", tiny_demos, "--run", tmp_path / "dm2"]
    run(*dm2_run, "--coefficient", 0.3)
    with pytest.raises(SystemExit, match=r"holds a run with \{'coefficient': 0.3\}, not"):
        run(*dm2_run, "--coefficient", 3)

    run(*fixed, "--algorithm", "ippo", "--run", tmp_path / "ippo")
    assert steps(tmp_path / "ippo") == [0, 64]
    run(*fixed, "--algorithm", "ippo", "--recurrent", "--run", tmp_path / "lstm")
    assert steps(tmp_path / "lstm") == [0, 64]  # with illegal actions, which MaskablePPO never takes
    with pytest.raises(SystemExit, match=r"holds a run with \{'learner.recurrent': True\}"):
        run(*fixed, "--algorithm", "ippo", "--run", tmp_path / "lstm")
    config = tmp_path / "ippo" / "config.json"  # as a run has it that is older than the option
    facts = json.loads(config.read_text())
    del facts["learner"]["recurrent"]
    config.write_text(json.dumps(facts))
    with pytest.raises(SystemExit, match=r"holds a run with \{'learner.recurrent': False\}"):
        run(*fixed, "--algorithm", "ippo", "--recurrent", "--run", tmp_path / "ippo")


def test_a_run_whose_c_falls_over_its_steps_keeps_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(ippo_sb3, "train_and_evaluate", lambda args, run, *rest: (run / "checkpoint.zip").touch())
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


def test_demo_compares_both_with_the_experts(tmp_path, tiny_demos, run, monkeypatch):
    def train_both(args):
        for algorithm in demo.ALGORITHMS:
            options = ["--env", args.env, "--demos", args.demos, "--steps", args.steps, "--algorithm", algorithm]
            run("ippo_sb3.py", *FEW, *options, "--coefficient", 0.3, "--run", args.out / algorithm)

    monkeypatch.setattr(demo, "train_both", train_both)
    table = run("demo.py", "--env", TINY, "--demos", tiny_demos, "--steps", 128, "--out", tmp_path / "demo")
    assert "| DM2, 128 steps (4 episodes) | " in table
    assert "| IPPO, 128 steps (4 episodes) | " in table
    experts = dm2.Demonstrations.load(tiny_demos)
    assert f"| experts (10 episodes) | {experts.win_rate:.3f} |" in table
    assert (tmp_path / "demo" / "curve.png").stat().st_size > 5_000


def test_demo_scores_the_experts_by_the_outcomes_that_are_known_or_by_returns():
    demos = small_demonstrations.make(lengths=(2, 3, 4), won=(1, -1, 0))  # a reward of 1 in each step
    assert demo.scores_of(demos, wins=True).tolist() == [1, 0]
    assert demo.scores_of(demos, wins=False).tolist() == [2, 3, 4]


def test_demo_starts_two_programs_with_equal_options(tmp_path, monkeypatch):
    started = []

    class Process:
        def __init__(self, command, **options):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            started.append(command)
            self.code = len(started) - 1  # the second one fails

        def wait(self):
            return self.code

        def terminate(self):
            pass

    monkeypatch.setattr("demo.subprocess.Popen", Process)
    args = demo.Args(env=TINY, demos=tmp_path / "tiny.npz", steps=128, seed=3, eval_episodes=5, out=tmp_path)
    with pytest.raises(SystemExit, match=r"^ippo failed: see the messages above"):
        demo.train_both(args)
    parsed = [tyro.cli(ippo_sb3.Args, args=command[2:]) for command in started]
    for name, each in zip(("dm2", "ippo"), parsed, strict=True):
        assert (each.algorithm, each.run) == (name, tmp_path / name)
        assert (each.env, each.demos, each.steps, each.seed, each.eval_episodes) == (TINY, args.demos, 128, 3, 5)
        assert each.final_episodes == args.final_episodes


def test_record_demos_records_at_the_level_and_names_files_truthfully(tmp_path, run):
    options = ["--env", "smax:3m", "--levels", 0.0, "--episodes", 20, "--num-envs", 8, "--out", tmp_path]
    run("record_demos.py", *options, "--run", tmp_path / "run")
    (path,) = tmp_path.glob("*.npz")
    demos = dm2.Demonstrations.load(path)
    assert len(demos) == 20
    named = int(path.stem.rpartition("win")[2]) / 100
    assert abs(named - demos.win_rate) <= 0.05
    assert demos.metadata["policy"]["train_steps"] > 0
    assert str(tmp_path) not in json.dumps(demos.metadata)  # no paths of the machine that recorded


@pytest.fixture
def short_intervals(monkeypatch):
    monkeypatch.setattr("record_demos.SHORTEST", 256)


@pytest.mark.usefixtures("short_intervals")
def test_record_demos_interrupted_records_what_it_would_have_recorded(tmp_path, run):
    def recorded(name, *max_steps):
        fixed = ["--env", TINY, "--levels", 0.99, "--episodes", 4, "--num-envs", 8, "--n-steps", 16]
        for most in max_steps:
            run("record_demos.py", *fixed, "--max-steps", most, "--out", tmp_path / name, "--run", tmp_path / name)
        return (tmp_path / name / "evaluations.csv").read_text()

    once = recorded("once", 768)
    assert [line.split(",")[0] for line in once.splitlines()[1:]] == ["256", "768"]  # intervals between looks grow
    assert recorded("twice", 256, 768) == once


@pytest.mark.usefixtures("short_intervals")
def test_record_demos_keeps_what_it_recorded_when_it_gives_up(tmp_path, run):
    options = ["--env", TINY, "--levels", 0.0, 0.99, "--episodes", 10, "--num-envs", 8, "--n-steps", 16, "--max-steps", 256]
    options += ["--out", tmp_path, "--run", tmp_path / "run"]
    before = run("record_demos.py", *options)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert files
    said = run("record_demos.py", *options)
    assert "stopped at 256 steps, below the levels [0.99]" in before
    assert "already exists, so the last team" in said
    assert {path: path.read_bytes() for path in tmp_path.glob("*.npz")} == files


@pytest.mark.usefixtures("short_intervals")
def test_record_demos_may_begin_with_another_after_death(tmp_path, run):
    def taught(name, *options):
        fixed = ["--env", TINY, "--levels", 0.99, "--episodes", 4, "--num-envs", 8, "--n-steps", 16, "--max-steps", 512]
        run("record_demos.py", *fixed, *options, "--out", tmp_path / name, "--run", tmp_path / name)
        return (tmp_path / name / "evaluations.csv").read_text().splitlines()[1:]

    first, mean = taught("first", "--mean-first", 1), taught("mean", "--after-death", "mean")
    assert len(first) == 2
    assert first[0] == mean[0]
    assert first[1] != mean[1]


@pytest.mark.parametrize("script", ["ippo_sb3.py", "demo.py", "record_demos.py", "wrap_any_env.py"])
def test_help(script, tmp_path):
    assert "usage" in start(script, "--help", cwd=tmp_path)
