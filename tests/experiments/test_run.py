"""One run: when it starts, continues, stops or is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from dm2_wrappers import Demonstrations
from experiments.curves import read_panel
from experiments.locks import lock_file, take
from experiments.plan import ROOT, Run
from experiments.run import execute
from experiments.run_files import is_done, read_run_json, steps_done
from experiments.scheduler import run_all
from tests.helpers.tiny_envs import HalfWonEnv
from tests.helpers.tiny_grid import PANEL, run_of, tiny_run_of, write_finished_run, write_run_json


def test_a_run_begun_with_other_demonstrations_is_refused(tmp_path):
    run = run_of(tmp_path, curve=1)
    write_run_json(run, demonstrations={"sha256": "another"})
    for seed in (0, 1):  # both seeds would be drawn as one curve
        (outcome,) = run_all([run_of(tmp_path, curve=1, seed=seed)])
        assert outcome.state == "failed"
        assert "and {'sha256': 'another'}, while this run has" in outcome.message


def test_seeds_of_one_curve_have_the_same_options(tmp_path):
    write_run_json(run_of(tmp_path))
    (outcome,) = run_all([run_of(tmp_path, seed=1, steps=64)])
    assert outcome.state == "failed"
    assert "'steps': '320'" in outcome.message
    assert "'steps': '64'" in outcome.message


def test_missing_demonstrations_are_reported_with_the_command_that_makes_them(tmp_path):
    curve = replace(PANEL.curves[1], demos="seed9/win50")
    (outcome,) = run_all([Run(PANEL, curve, 0, "smax", tmp_path)])
    assert outcome.state == "failed"
    assert "seed9/smax_3m_win50.npz is missing: run python -m experiments demos 3m" in outcome.message
    (outcome,) = run_all([Run(PANEL, curve, 0, "smac", tmp_path)])
    assert outcome.message.endswith("seed9/smac_3m_win50.npz is missing: run python -m experiments demos 3m --env smac")


def test_a_folder_with_other_options_is_refused(tmp_path):
    run = tiny_run_of(tmp_path, steps=64)
    run_all([run])
    other = tiny_run_of(tmp_path, steps=128)
    assert is_done(run)
    assert not is_done(other)  # although its folder has a final.json
    outcome = run_all([other])[0]
    assert outcome.state == "failed"
    assert "holds a run with the options" in outcome.message


def test_a_run_killed_several_times_has_the_same_results_as_an_undisturbed_one(tmp_path):
    demos = tmp_path / "tiny.npz"
    Demonstrations.record(HalfWonEnv(), lambda observations: dict.fromkeys(observations, 0), 10, seed=0).save(demos)
    undisturbed, killed = (tiny_run_of(tmp_path / name, curve=1, demos=demos) for name in ("a", "b"))
    run_all([undisturbed])
    program = (
        "import sys; from pathlib import Path; from tests.helpers.tiny_grid import tiny_run_of\n"
        "from experiments.scheduler import run_all\nrun_all([tiny_run_of(Path(sys.argv[1]), curve=1, demos=sys.argv[2])])"
    )
    for wanted in (64, 192):  # kill it, with its runner, once it has gone so far
        command = [sys.executable, "-c", program, str(tmp_path / "b"), str(demos)]
        runner = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
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


def test_waiting_for_another_runner_can_be_stopped(tmp_path):
    run, stop = run_of(tmp_path, steps=64), Event()
    with ThreadPoolExecutor() as pool, lock_file(run.folder) as lock:
        assert take(lock)
        waiting = pool.submit(execute, run, stop=stop)
        time.sleep(0.3)
        assert not waiting.done()
        stop.set()
        assert waiting.result(timeout=5).state == "stopped"
    assert execute(run, stop=stop).state == "stopped"  # the lock is free now, but the run is not started
    assert not (run.folder / "run.json").exists()


@pytest.mark.parametrize(
    ("code", "state"), [(-signal.SIGINT, "stopped"), (130, "stopped"), (-signal.SIGKILL, "failed"), (0, "failed")]
)
def test_a_run_that_ctrl_c_stopped_has_not_failed(tmp_path, monkeypatch, code, state):
    monkeypatch.setattr("experiments.run.run_program", lambda command, log, *rest: log.write_text("the end") and code)
    run = run_of(tmp_path)
    outcome = execute(run)
    assert outcome.state == state
    assert read_run_json(run.folder).get("failed", "") == outcome.message
    assert ("the end" in outcome.message) == (state == "failed")


def test_all_commits_that_worked_on_a_run_are_listed(tmp_path, monkeypatch):
    def attempt(name, state):
        monkeypatch.setattr("experiments.run.commit", lambda: name)
        assert execute(run).state == state

    run = tiny_run_of(tmp_path, steps=64)
    with monkeypatch.context() as patch:
        patch.setattr("experiments.run.run_program", lambda command, log, *rest: log.write_text("the end") and 1)
        attempt("none", "failed")  # no checkpoint yet, so it contributes nothing
    attempt("one", "done")
    (run.folder / "final.json").unlink()
    attempt("two", "done")
    assert "failed" not in read_run_json(run.folder)
    (one,) = read_panel(PANEL, [run])
    assert one.commits == ("one", "two")


def test_a_run_that_another_process_finished_meanwhile_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.run.run_program", lambda *_: pytest.fail("the run was repeated"))
    run = run_of(tmp_path)
    with ThreadPoolExecutor() as pool, lock_file(run.folder) as lock:
        assert take(lock)
        waiting = pool.submit(execute, run)
        time.sleep(0.3)
        assert not waiting.done()
        write_finished_run(run, {0: 0.0, 320: 0.5}, attempts=1)
        lock.close()
        assert waiting.result(timeout=10).state == "done"
    assert read_run_json(run.folder)["attempts"] == 1


def test_missing_demonstrations_of_another_packages_environment_name_the_program_that_records_them(tmp_path):
    curve = replace(PANEL.curves[1], demos="seed9/learned")
    panel = replace(PANEL, env="module:make", scenario="spread")
    (outcome,) = run_all([Run(panel, curve, 0, "smax", tmp_path)])
    assert outcome.state == "failed"
    assert "spread_learned.npz is missing: run examples/record_demos.py --env module:make and move" in outcome.message
