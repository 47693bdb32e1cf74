"""Many runs at a time."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

from experiments.locks import lock_file, take
from experiments.plan import ROOT, Run
from experiments.run import Outcome, execute
from experiments.run_files import is_done, read_run_json, steps_done
from experiments.scheduler import _on_ray, run_all
from tests.helpers.tiny_grid import PANEL, run_of, tiny_run_of, write_evaluations, write_finished_run


def test_a_failed_run_is_reported_and_does_not_stop_the_others(tmp_path):
    bad = replace(PANEL.curves[0], slug="bad", options={"algorithm": "none"})
    outcomes = run_all([Run(PANEL, bad, 0, "smax", tmp_path), tiny_run_of(tmp_path, steps=64)], jobs=1)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "exit code 2" in outcomes[0].message
    assert "algorithm" in outcomes[0].message
    assert read_run_json(outcomes[0].run.folder)["failed"] == outcomes[0].message
    assert "failed" not in read_run_json(outcomes[1].run.folder)


def test_runs_of_another_runner_come_last(tmp_path):
    runs_ = [tiny_run_of(tmp_path, seed=seed, steps=64) for seed in (0, 1)]
    with lock_file(runs_[0].folder) as lock:
        assert take(lock)
        assert execute(runs_[0], wait=False).state == "busy"
        with ThreadPoolExecutor() as pool:
            both = pool.submit(run_all, runs_, jobs=1)
            for _ in range(6000):
                if is_done(runs_[1]):
                    break
                time.sleep(0.01)
            assert is_done(runs_[1])
            assert not both.done()
            lock.close()
            assert [outcome.state for outcome in both.result()] == ["done", "done"]


def test_a_stopped_runner_ends_its_run_and_starts_no_other(tmp_path):
    runs_ = [tiny_run_of(tmp_path, seed=seed, steps=64 * 40) for seed in (0, 1)]
    program = (
        "import signal, sys; from pathlib import Path; from tests.helpers.tiny_grid import tiny_run_of\n"
        "from experiments.scheduler import run_all\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "run_all([tiny_run_of(Path(sys.argv[1]), seed=seed, steps=64 * 40) for seed in (0, 1)], jobs=1)"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    for _ in range(6000):
        if steps_done(runs_[0]) >= 64:
            break
        time.sleep(0.01)
    os.kill(runner.pid, signal.SIGINT)  # only the runner, which must end its run
    assert runner.wait(30) != 0
    assert not is_done(runs_[0])
    assert "failed" not in read_run_json(runs_[0].folder)
    with lock_file(runs_[0].folder) as lock:
        assert take(lock)  # its process is gone
    assert not runs_[1].folder.exists()


def test_a_lost_machine_of_a_cluster_fails_its_run_only(tmp_path, monkeypatch):
    """Ray is replaced here: a test cannot lose a machine of a real cluster."""
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


def test_a_damaged_run_is_reported_and_the_others_continue(tmp_path, monkeypatch):
    runs_ = [run_of(tmp_path, seed=seed) for seed in (0, 1, 2)]
    write_finished_run(runs_[0], {0: 0.0, 320: 0.5})
    (runs_[0].folder / "run.json").write_text('{"options": ')
    write_evaluations(runs_[1].folder, {0: 0.0})
    (runs_[1].folder / "evaluations.csv").write_text("step,win")  # the progress bar reads it

    def train(command, log, lock, stop):
        log.touch()
        write_finished_run(runs_[int(command[command.index("--seed") + 1])], {0: 0.0, 320: 0.5})
        return 0

    monkeypatch.setattr("experiments.run.run_program", train)
    # Another seed of a curve with a damaged run.json cannot be checked against it.
    assert [outcome.state for outcome in run_all(runs_, jobs=1)] == ["failed"] * 3
    (runs_[0].folder / "run.json").unlink()
    assert [outcome.state for outcome in run_all(runs_, jobs=1)] == ["done"] * 3


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    (outcome,) = run_all([run_of(tmp_path)])
    folder = run_of(tmp_path).folder
    assert outcome.state == "failed"
    assert (
        outcome.message
        == f"the disk is full (writing to {folder / 'run.json'}): free some space and give the same command again"
    )
    assert not list(folder.glob("*.tmp"))
