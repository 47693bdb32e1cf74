"""The lock on a run's folder."""

import subprocess
import sys
import time
from threading import Event, Thread

import pytest

from experiments.locks import LocksMissingError, lock_file, take
from experiments.plan import ROOT
from experiments.programs import run_program
from experiments.run import execute
from tests.helpers.tiny_grid import run_of


def test_one_holder_at_a_time(tmp_path):
    with lock_file(tmp_path / "run") as first, lock_file(tmp_path / "run") as second:
        assert take(first)
        assert not take(second)
        first.close()
        assert take(second)


def test_a_program_keeps_the_lock_when_its_runner_is_gone(tmp_path):
    """The file is closed here while the program runs, as it is when the runner is killed."""
    stop = Event()
    with lock_file(tmp_path) as lock:
        assert take(lock)
        command = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]
        thread = Thread(target=run_program, args=(command, tmp_path / "log.txt", lock, stop))
        thread.start()
        while not (tmp_path / "log.txt").is_file() or "started" not in (tmp_path / "log.txt").read_text():
            time.sleep(0.01)
    with lock_file(tmp_path) as other:
        assert not take(other)
        stop.set()
        thread.join()
        assert take(other)


def test_a_system_without_fcntl_gets_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.locks.fcntl", None)
    with pytest.raises(LocksMissingError, match="use Linux, macOS or WSL"), lock_file(tmp_path):
        pass
    with pytest.raises(LocksMissingError):
        execute(run_of(tmp_path))


def test_without_fcntl_run_says_so_and_status_works(tmp_path):
    hidden = "import sys; sys.modules['fcntl'] = None; from experiments.__main__ import main; sys.exit(main(sys.argv[1:]))"
    for arguments, code in ((["status", "fig5"], 0), (["run", "fig5", "--seeds", "1", "--jobs", "1"], 1)):
        command = [sys.executable, "-c", hidden, *arguments, "--results", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
    assert "runs need file locks (Python's fcntl module), which this system does not have" in done.stderr
    assert "Traceback" not in done.stderr
