"""Runs and whoever does many of them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import pytest

from experiments.curves import measured
from experiments.plan import Run
from experiments.run import ROOT, Outcome, execute, facts_of, is_done, steps_done, words
from experiments.scheduler import _on_ray, run_all
from tests.helpers.tiny_grid import PANEL, run_of


def test_options_become_words():
    assert words({"a": 1, "on": True, "off": False}) == ["--a", "1", "--on", "--no-off"]


def test_a_failed_run_is_told_and_does_not_stop_the_rest(tmp_path):
    bad = replace(PANEL.curves[0], slug="bad", options={"algorithm": "none"})
    outcomes = run_all([Run(PANEL, bad, 0, "smax:3m", tmp_path), run_of(tmp_path, steps=64)], jobs=1)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "exit code 2" in outcomes[0].message
    assert "algorithm" in outcomes[0].message
    assert facts_of(outcomes[0].run)["failed"] == outcomes[0].message
    assert "failed" not in facts_of(outcomes[1].run)


def test_a_run_begun_with_other_demonstrations_is_refused(tmp_path):
    run = run_of(tmp_path, curve=1)
    run.folder.mkdir(parents=True)
    facts = {"options": {key: str(value) for key, value in run.options.items()}, "demonstrations": {"sha256": "another"}}
    (run.folder / "run.json").write_text(json.dumps(facts))
    for seed in (0, 1):  # the other one would be drawn together with it
        (outcome,) = run_all([run_of(tmp_path, curve=1, seed=seed)])
        assert outcome.state == "failed"
        assert "and demonstrations {'sha256': 'another'}, but this run has" in outcome.message


def test_seeds_of_one_curve_have_the_same_options(tmp_path):
    run = run_of(tmp_path)
    run.folder.mkdir(parents=True)
    facts = {"options": {key: str(value) for key, value in run.options.items()}, "demonstrations": None}
    (run.folder / "run.json").write_text(json.dumps(facts))
    (outcome,) = run_all([run_of(tmp_path, seed=1, steps=64)])
    assert outcome.state == "failed"
    assert "'steps': '320'" in outcome.message
    assert "'steps': '64'" in outcome.message


def test_what_another_runner_is_at_comes_last(tmp_path):
    runs_ = [run_of(tmp_path, seed=seed, steps=64) for seed in (0, 1)]
    runs_[0].folder.mkdir(parents=True)
    with (runs_[0].folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert execute(runs_[0], wait=False).state == "busy"
        with ThreadPoolExecutor() as pool:
            both = pool.submit(run_all, runs_, jobs=1)
            for _ in range(6000):
                if is_done(runs_[1]):
                    break
                time.sleep(0.01)
            assert is_done(runs_[1])
            assert not both.done()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert [outcome.state for outcome in both.result()] == ["done", "done"]


def test_missing_demonstrations_are_told_with_what_makes_them(tmp_path):
    curve = replace(PANEL.curves[1], demos="seed9/win50")
    (outcome,) = run_all([Run(PANEL, curve, 0, "smax:3m", tmp_path)])
    assert outcome.state == "failed"
    assert "seed9/smax_3m_win50.npz is missing: run python -m experiments demos 3m" in outcome.message
    (outcome,) = run_all([Run(PANEL, curve, 0, "smac:3m", tmp_path)])
    assert outcome.message.endswith("seed9/smac_3m_win50.npz is missing: run python -m experiments demos 3m --env smac")


def test_a_folder_of_other_options_is_refused(tmp_path):
    run = run_of(tmp_path, steps=64)
    run_all([run])
    other = run_of(tmp_path, steps=128)
    assert is_done(run)
    assert not is_done(other)  # although its folder has a final.json
    outcome = run_all([other])[0]
    assert outcome.state == "failed"
    assert "holds a run with the options" in outcome.message


def test_killed_again_and_again_it_ends_with_the_undisturbed_runs_numbers(tmp_path):
    undisturbed, killed = run_of(tmp_path / "a", curve=1), run_of(tmp_path / "b", curve=1)
    run_all([undisturbed])
    program = (
        "import sys; from pathlib import Path; from tests.helpers.tiny_grid import run_of\n"
        "from experiments.scheduler import run_all\nrun_all([run_of(Path(sys.argv[1]), curve=1)])"
    )
    for wanted in (64, 192):  # kill it, with its runner, once it has gone so far
        runner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "b")], cwd=ROOT, start_new_session=True)
        for _ in range(6000):
            if steps_done(killed) >= wanted:
                break
            time.sleep(0.01)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
        assert not is_done(killed)
    run_all([killed])
    for name in ("evaluations.csv", "final.json"):
        assert (killed.folder / name).read_text() == (undisturbed.folder / name).read_text()
    assert json.loads((killed.folder / "run.json").read_text())["attempts"] == 3


def test_a_stopped_runner_ends_its_run_and_begins_no_other(tmp_path):
    runs_ = [run_of(tmp_path, seed=seed, steps=64 * 40) for seed in (0, 1)]
    program = (
        "import signal, sys; from pathlib import Path; from tests.helpers.tiny_grid import run_of\n"
        "from experiments.scheduler import run_all\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what a background job ignores
        "run_all([run_of(Path(sys.argv[1]), seed=seed, steps=64 * 40) for seed in (0, 1)], jobs=1)"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    for _ in range(6000):
        if steps_done(runs_[0]) >= 64:
            break
        time.sleep(0.01)
    os.kill(runner.pid, signal.SIGINT)  # itself alone: that its run ends is its own doing
    assert runner.wait(30) != 0
    assert not is_done(runs_[0])
    assert "failed" not in facts_of(runs_[0])
    with (runs_[0].folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its process is gone
    assert not runs_[1].folder.exists()


def test_waiting_for_another_runner_can_be_stopped(tmp_path):
    run, stop = run_of(tmp_path, steps=64), Event()
    run.folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool, (run.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(execute, run, stop=stop)
        time.sleep(0.3)
        assert not waiting.done()
        stop.set()
        assert waiting.result(timeout=5).state == "stopped"
    assert execute(run, stop=stop).state == "stopped"  # free now, and not begun all the same
    assert not (run.folder / "run.json").exists()


@pytest.mark.parametrize(("code", "state"), [(-signal.SIGINT, "stopped"), (-signal.SIGKILL, "failed"), (0, "failed")])
def test_a_run_that_ctrl_c_reached_has_not_failed(tmp_path, monkeypatch, code, state):
    monkeypatch.setattr("experiments.run._finish", lambda command, log, *rest: log.write_text("the end") and code)
    run = run_of(tmp_path)
    outcome = execute(run)
    assert outcome.state == state
    assert facts_of(run).get("failed", "") == outcome.message
    assert ("the end" in outcome.message) == (state == "failed")


def test_a_run_is_the_work_of_all_commits_that_did_it(tmp_path, monkeypatch):
    def attempt(name, state):
        monkeypatch.setattr("experiments.run.commit", lambda: name)
        assert execute(run).state == state

    run = run_of(tmp_path, steps=64)
    with monkeypatch.context() as patch:
        patch.setattr("experiments.run._finish", lambda command, log, *rest: log.write_text("the end") and 1)
        attempt("none", "failed")  # before its first checkpoint, so nothing of it is left
    attempt("one", "done")
    (run.folder / "final.json").unlink()
    attempt("two", "done")
    assert "failed" not in facts_of(run)
    (one,) = measured(PANEL, [run])
    assert one.commits == ("one", "two")


def test_a_lost_machine_of_a_cluster_costs_its_run_alone(tmp_path, monkeypatch):
    """Ray itself was tried by hand; what it does when a machine is lost, or on Ctrl-C, is played here."""
    cancelled = []

    def get(seed):
        if seed == 0:
            raise RayError("the worker died")
        return Outcome(runs_[seed], "done")

    class RayError(Exception):
        pass

    ray = SimpleNamespace(
        init=lambda **options: None,
        remote=lambda **options: lambda function: SimpleNamespace(remote=lambda run: run.seed),
        wait=lambda references, **options: (references[:1], references[1:]),
        get=get,
        cancel=cancelled.append,
        exceptions=SimpleNamespace(RayError=RayError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    runs_ = [run_of(tmp_path, seed=seed) for seed in (0, 1, 2)]
    outcomes = run_all(runs_, ray=True)
    assert [(outcome.state, outcome.message) for outcome in outcomes] == [
        ("failed", "the worker died"),
        ("done", ""),
        ("done", ""),
    ]
    assert not cancelled
    outcomes = _on_ray(runs_)
    next(outcomes)
    outcomes.close()
    assert cancelled == [1, 2]
