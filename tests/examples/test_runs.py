"""How the training examples' runs start, stop and continue: Ctrl-C, locks, full disks, damaged files, own environments."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import _plot
import _runs
import ippo_sb3
import pytest
import record_demos

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import checkpoint
from dm2_wrappers.sb3.logs import folder_of

ROOT = Path(__file__).parents[2]
ROWS = [
    {"step": 0, "win_rate": 0.25, "win_rate_se": 0.1, "return": 1.5, "return_se": float("nan"), "length": 9.0},
    {"step": 64, "return": 2.0, "return_se": 0.5, "length": 8.0, "episodes": 4.0},
]
MINE = """
from tests.helpers.tiny_envs import TinyEnv

NUMBER = 3

def make():
    return TinyEnv(masks=True, limit=4, truncates=True)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's module in the current folder."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return "mine:make"


def options(env, run, **changes):
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
    few = {"eval_every": 32, "eval_episodes": 2, "final_episodes": 2, "steps": 96}
    return ippo_sb3.Args(**({"algorithm": "ippo", "env": env, "run": run, "learner": learner} | few | changes))


# --- files --------------------------------------------------------------------------------------------------------


def test_curves_are_read_as_they_were_written(tmp_path):
    _runs.write_curve(tmp_path / "e.csv", ROWS)
    first, second = _runs.read_curve(tmp_path / "e.csv", up_to=64)
    assert first.pop("return_se") != first.get("return_se")  # NaN
    assert (first, second) == ({key: value for key, value in ROWS[0].items() if key != "return_se"}, ROWS[1])
    assert len(_runs.read_curve(tmp_path / "e.csv", up_to=0)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]


DAMAGES = {
    "a line cut off": lambda text: text[:-9],
    "a number cut off": lambda text: text[:-3],
    "a line twice": lambda text: text + text[text.rindex("64") :],
    "its last line lost": lambda text: text[: text.rindex("64")],
    "a cell lost": lambda text: text.replace(",8.0", ""),
    "a cell that is no number": lambda text: text.replace("2.0", "2.o"),
    "no return": lambda text: text.replace("2.0", ""),
    "lines in another order": lambda text: text + "32,,,1,1,1,1,1\n64,,,1,1,1,1,1\n",
    "another header": lambda text: text.replace("win_rate,", "won,"),
    "empty": lambda text: "",
    "zeros": lambda text: "\0" * len(text),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_curve_is_never_read_as_far_as_it_goes(tmp_path, name):
    path = tmp_path / "evaluations.csv"
    _runs.write_curve(path, ROWS)
    path.write_text(DAMAGES[name](path.read_text()))
    with pytest.raises(SystemExit, match=r"evaluations.csv is damaged \(.*\): restore it, or remove .* again"):
        _runs.read_curve(path, up_to=64)


def test_binary_and_missing_curves_are_one_sentence_too(tmp_path):
    with pytest.raises(SystemExit, match="is missing"):
        _runs.read_curve(tmp_path / "evaluations.csv", up_to=0)
    (tmp_path / "evaluations.csv").write_bytes(b"step\xff\xfe\n")
    with pytest.raises(SystemExit, match="is damaged"):
        _runs.read_curve(tmp_path / "evaluations.csv", up_to=0)


@pytest.mark.parametrize("text", ["{", "", "[1, 2]", '"x"', "[" * 100_000])
def test_a_damaged_config_is_one_sentence(tmp_path, text):
    (tmp_path / "checkpoint.zip").touch()
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SystemExit, match=r"config.json is damaged \(.*\): restore it"):
        _runs.begin(tmp_path, ippo_sb3.Args())
    assert (tmp_path / "config.json").read_text() == text


def test_a_checkpoint_without_its_config_is_refused(tmp_path):
    (tmp_path / "checkpoint.zip").touch()
    with pytest.raises(SystemExit, match=r"config.json is missing: restore it, or remove"):
        _runs.begin(tmp_path, ippo_sb3.Args())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_a_full_disk_is_one_sentence_and_other_errors_keep_their_traceback(tmp_path, code):
    sentence = rf"^Cannot write to .*x.zip \({os.strerror(code)}\): .* Everything up to the last checkpoint is saved\.$"
    with pytest.raises(SystemExit, match=sentence), _runs.running(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "x.zip"))
    with pytest.raises(ConnectionError), _runs.running(tmp_path):
        raise ConnectionError("another")


def test_a_run_whose_folder_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(SystemExit, match=r"Cannot write to .*run"), _runs.running(tmp_path / "run"):
        pass


def test_a_full_disk_leaves_the_checkpoint_whole(mine, tmp_path, monkeypatch):
    run, before = tmp_path / "run", {}

    def full(team, path):
        before.update({file.name: file.read_bytes() for file in run.glob("*.*")})
        raise OSError(errno.ENOSPC, "No space left on device")

    ippo_sb3.main(options(mine, run, steps=32))
    with monkeypatch.context() as patch:
        patch.setattr(dm2.sb3.IndependentLearners, "save", full)
        with pytest.raises(SystemExit, match=r"Cannot write to .*run \(No space left on device\)"):
            ippo_sb3.main(options(mine, run))
    assert {file.name: file.read_bytes() for file in run.glob("*.*")} == before
    ippo_sb3.main(options(mine, run))
    ippo_sb3.main(options(mine, tmp_path / "whole"))
    assert (run / "evaluations.csv").read_bytes() == (tmp_path / "whole" / "evaluations.csv").read_bytes()


# --- Ctrl-C and locks ---------------------------------------------------------------------------------------------


@pytest.fixture
def hears_ctrl_c():
    """Let this process and those that it starts hear Ctrl-C, which a job in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_the_first_ctrl_c_waits_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with _runs.ctrl_c_waits() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_program_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _runs.ctrl_c_waits() as stop:
            signal.raise_signal(signal.SIGINT)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_saves_the_team_and_the_run_continues_as_if_undisturbed(mine, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ippo_sb3.main(options(mine, whole))
    moved = []

    class Interrupted(ippo_sb3.Rollouts):
        def _on_rollout_end(self):
            super()._on_rollout_end()
            moved.append(self.bar.n)
            if self.num_timesteps == 48:  # half-way between the checkpoints at 32 and 64
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ippo_sb3, "Rollouts", Interrupted)
        with pytest.raises(SystemExit) as ended:
            ippo_sb3.main(options(mine, parts))
    assert ended.value.code == 130
    assert moved == [16, 32, 48]  # the bar moves at each rollout
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.startswith("Stopped. Run the same command again to continue from the last checkpoint. The team after 50 ")
    stopped = checkpoint.read(parts / "stopped.zip")
    # What the team learned in the rollout after the checkpoint is in it; the steps after that taught nothing.
    assert stopped.facts["counters"]["agent_0"]["_n_updates"] == 3 * 4
    assert checkpoint.read(parts / "checkpoint.zip").facts["num_timesteps"] == 32

    ippo_sb3.main(options(mine, parts))
    assert (parts / "evaluations.csv").read_bytes() == (whole / "evaluations.csv").read_bytes()
    assert (parts / "final.json").read_bytes() == (whole / "final.json").read_bytes()
    assert not (parts / "stopped.zip").exists()


@pytest.mark.usefixtures("hears_ctrl_c")
def test_real_ctrl_c_is_one_sentence_and_a_second_program_in_the_folder_is_refused(mine, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, ROOT / "examples" / "ippo_sb3.py", "--env", mine, "--algorithm", "ippo", "--steps", 10**7]
    command += ["--num-envs", 2, "--n-steps", 8, "--eval-every", 64, "--eval-episodes", 2, "--run", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [str(word) for word in command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        until = time.monotonic() + 120
        while not (folder / "checkpoint.zip").exists() and time.monotonic() < until:
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(SystemExit, match=r"Another program is working in .*run: wait for it, or choose another folder"):
            ippo_sb3.main(options(mine, folder))
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=60)[1]
    finally:
        first.kill()
    assert first.returncode == 130
    assert "Traceback" not in said
    bar, _, sentence = said.rstrip().rpartition("\n")
    assert sentence.startswith("Stopped. Run the same command again to continue from the last checkpoint.")
    assert "Stopped" not in bar
    with _runs.running(folder):  # the lock is free again
        pass


# --- a user's environment -----------------------------------------------------------------------------------------


def test_record_and_train_on_a_users_environment(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(record_demos, "SHORTEST", 128)
    learner = ippo_sb3.LearnerArgs(num_envs=8, n_steps=16)
    args = record_demos.Args(env=mine, levels=[-1e9], episodes=3, max_steps=128, learner=learner, out=tmp_path)
    record_demos.main(args)
    (file,) = tmp_path.glob("mine_make_return*.npz")
    demos = dm2.Demonstrations.load(file)
    assert len(demos) == 3
    assert float(file.stem.rpartition("return")[2]) == pytest.approx(demos.mean_return, rel=1e-3)
    ippo_sb3.main(options(mine, tmp_path / "run", algorithm="dm2", demos=file, coefficient=0.3, steps=32))
    logs = _plot.read_logs(tmp_path / "run" / "agents")
    assert list(logs) == list(demos.agents)
    assert logs["agent_0"]["step"] == [16, 32]
    assert all(0 <= accuracy <= 1 for accuracy in logs["agent_0"]["accuracy"])


def test_looks_are_no_further_apart_than_asked_for():
    args = record_demos.Args(levels=[0.9], look_every=128)
    rows = [{"win_rate": 0.0}, {"win_rate": 0.5}, {"win_rate": 0.5}]
    assert record_demos.SHORTEST > 128
    assert record_demos.first_interval(args) == 128
    assert record_demos.next_interval(128, rows[:1], args) == 128
    assert record_demos.next_interval(128, rows[:2], args) == 128  # a jump, but not below the shortest
    assert record_demos.next_interval(128, rows, args) == 128


def test_environments_that_cannot_be_found_are_one_sentence(mine, monkeypatch):
    for env, sentence in {
        "nothing.here:make": "There is no module 'nothing' for 'nothing.here:make': .* the backends are smax, smac",
        "mine:other": "The module 'mine' has no 'other'",
        "mine:NUMBER": "mine:NUMBER is a int, not a function",
        "smax:3n": "3n",
    }.items():
        with pytest.raises(SystemExit, match=sentence):
            _runs.vector_env(env, 1)
    Path("mine.py").write_text("import nothing_of_that_name")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):  # the user's own mistake keeps its traceback
        _runs.vector_env("mine:make", 1)


def test_missing_demonstrations_name_the_script_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "python examples/record_demos.py --env smax:2s3z --levels 0.3"
    with pytest.raises(SystemExit, match=rf"no demonstrations at demos_data/smax_2s3z_win30.npz.* {command}"):
        ippo_sb3.main(options("smax:2s3z", tmp_path / "run", algorithm="dm2"))
    Path("x.npz").write_bytes(b"PK")
    with pytest.raises(SystemExit, match=r"x.npz is not a usable demonstrations file"):
        _runs.demonstrations(Path("x.npz"), "smax:3m")


# --- logs ---------------------------------------------------------------------------------------------------------


def test_logs_of_a_continued_run_are_joined_where_it_continued(tmp_path):
    folder = tmp_path / "ally_0"
    folder.mkdir()
    names = "dm2/gail_reward_std,dm2/expert_accuracy,time/total_timesteps,dm2/policy_accuracy\n"
    (folder / "progress.csv").write_text(names + "0.5,0.8,10,0.6\n,,20,\n0.7,1.0,30,0.5\n9,9,40,9\n")
    (folder / "progress_from_30.csv").write_text(names + "0.1,0.5,40,0.5\n0.2,0.")
    log = _plot.read_logs(tmp_path)["ally_0"]
    assert log["step"] == [10, 30, 40]
    assert log["accuracy"] == pytest.approx([0.7, 0.75, 0.5])
    assert log["spread"] == [0.5, 0.7, 0.1]


def test_logs_have_the_agents_own_names(tmp_path):
    row = "dm2/gail_reward_std,dm2/expert_accuracy,time/total_timesteps,dm2/policy_accuracy\n0.5,0.8,10,0.6\n"
    for agent in ("red/1", "team"):
        (tmp_path / folder_of(agent)).mkdir()
        (tmp_path / folder_of(agent) / "progress.csv").write_text(row)
    assert set(_plot.read_logs(tmp_path)) == {"red/1", "team"}


def test_a_damaged_checkpoint_is_one_sentence(mine, tmp_path):
    run = tmp_path / "run"
    ippo_sb3.main(options(mine, run, steps=32))
    (run / "checkpoint.zip").write_bytes((run / "checkpoint.zip").read_bytes()[:2000])
    with pytest.raises(SystemExit, match=r"Cannot continue from .*checkpoint.zip: .* damaged"):
        ippo_sb3.main(options(mine, run))


def test_config_names_what_changed(tmp_path):
    (tmp_path / "checkpoint.zip").touch()
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(
        SystemExit, match=r"holds a run with \{'seed': 1\}, not \{'seed': 0\}: choose another folder with --run"
    ):
        _runs.begin(tmp_path, ippo_sb3.Args())


def test_options_that_the_library_refuses_are_one_sentence(mine, tmp_path):
    env = _runs.parallel_env(mine)
    demos = dm2.Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 2, seed=0)
    demos.save(tmp_path / "demos.npz")
    few = {"steps": 32, "demos": tmp_path / "demos.npz", "algorithm": "dm2"}
    with pytest.raises(SystemExit, match=r"coefficient.* at least 0, got -1"):
        ippo_sb3.main(options(mine, tmp_path / "one", coefficient=-1.0, **few))
    wild = replace(demos, actions=demos.actions + 7)
    wild.save(tmp_path / "wild.npz")
    with pytest.raises(SystemExit, match=r"has the actions 0 to .*, but its demonstrations hold"):
        ippo_sb3.main(
            options(mine, tmp_path / "two", coefficient=0.3, pretrain=1, **{**few, "demos": tmp_path / "wild.npz"})
        )


def test_numbers_below_one_are_one_sentence():
    _runs.check_counts(num_envs=1, eval_every=None)
    for wrong in (0, -1):
        with pytest.raises(SystemExit, match=f"^--num-envs must be at least 1, got {wrong}$"):
            _runs.check_counts(steps=3, num_envs=wrong)
