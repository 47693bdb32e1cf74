"""Worker processes: they may have children, never hang their program, and never outlive it."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from dm2_wrappers import vectorize
from dm2_wrappers.vector import workers
from tests.helpers.processes import children, gone
from tests.helpers.tiny_envs import TinyEnv

ROOT = str(Path(__file__).parents[2])


class HangingEnv(TinyEnv):
    """Hangs for a minute in its second step, or when it is closed; and first writes its process's number to a file."""

    def __init__(self, where: str, note: str | None = None) -> None:
        super().__init__()
        self.where, self.note = where, note

    def step(self, actions):
        if self.where == "step" and self.t == 1:
            self.hang()
        return super().step(actions)

    def close(self):
        if self.where == "close":
            self.hang()

    def hang(self):
        if self.note:
            Path(self.note).write_text(str(os.getpid()))
        time.sleep(60)


def zeros(venv):
    return np.zeros((venv.num_envs, 2), int)


def wait_for(path):
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def which_hangs(counter, where):
    """The second of the sub-environments hangs."""
    counter.append(None)
    return HangingEnv(where if len(counter) == 2 else "nowhere")


def test_a_hung_worker_is_named_and_all_end():
    venv = vectorize(functools.partial(which_hangs, [], "step"), 3, workers=1, timeout=1.0)
    pids = children(venv)
    venv.reset(seed=0)
    venv.step(zeros(venv))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker 0 \(sub-environments 0 to 2\) did not answer step\(\) within timeout=1"):
        venv.step(zeros(venv))
    assert 1.0 <= time.monotonic() - start < 5.0  # the worker is told to stop: nobody waits for the minute to pass
    assert all(gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        venv.step(zeros(venv))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "long"])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(ValueError, match="timeout must be a finite number above 0"):
        vectorize(TinyEnv, 1, workers=1, timeout=timeout)
    with pytest.raises(ValueError, match="needs workers=1 or more"):
        vectorize(TinyEnv, 1, timeout=1.0)


def test_close_while_another_thread_steps(tmp_path):
    note = tmp_path / "hangs"
    venv = vectorize(functools.partial(HangingEnv, "step", str(note)), 1, workers=1)
    pids, caught = children(venv), []
    venv.reset(seed=0)
    venv.step(zeros(venv))

    def step():
        try:
            venv.step(zeros(venv))
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=step)
    thread.start()
    wait_for(note)
    start = time.monotonic()
    venv.close()
    thread.join(10)
    assert caught == ["this vector environment was closed while step() waited for its workers"]
    assert time.monotonic() - start < 5.0
    assert all(gone(pid) for pid in pids)
    venv.close()


def test_all_workers_share_one_deadline(monkeypatch):
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(workers, "TERM_SECONDS", 0.5)
    venv = vectorize(functools.partial(HangingEnv, "close"), 3, workers=3)
    pids = children(venv)
    start = time.monotonic()
    venv.close()
    assert 1.0 <= time.monotonic() - start < 2.5  # not three times as long
    assert all(gone(pid) for pid in pids)


def test_workers_end_with_the_object_that_nobody_uses_any_more():
    venv = vectorize(TinyEnv, 1, workers=1)
    pids = children(venv)
    del venv
    gc.collect()
    assert all(gone(pid) for pid in pids)


def answer(pipe):
    pipe.send(3.0)
    time.sleep(60)


class ParentEnv(TinyEnv):
    """Has a process of its own, which inherits everything that a worker has opened."""

    def reset(self, seed=None, options=None):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=answer, args=(theirs,))
        process.start()
        observations, infos = super().reset(seed)
        observations["agent_0"][0] = ours.recv()
        observations["agent_1"][0] = process.pid
        return observations, infos


def test_a_worker_may_have_children_and_does_not_leave_them_behind():
    venv = vectorize(functools.partial(ParentEnv), 1, workers=1)
    (worker,) = children(venv)
    observations, _ = venv.reset(seed=0)
    assert observations[0, 0, 0] == 3.0
    child = int(venv.reset()[0][0, 1, 0])
    os.kill(worker, signal.SIGKILL)
    # The child holds the worker's end of the pipe open, so that nobody hears of the worker's end there.
    with pytest.raises(RuntimeError, match=r"ended without an answer, exit code -9"):
        venv.step(zeros(venv))
    assert gone(worker)
    assert gone(child)


class LockedEnv(TinyEnv):
    def render(self):
        return threading.Lock()


def test_what_does_not_pickle_is_one_sentence():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"make_env must pickle to reach a worker process, but does not: .*lock"):
        vectorize(lambda: (lock, TinyEnv())[1], 1, workers=1)
    venv = vectorize(LockedEnv, 1, workers=1)
    with pytest.raises(RuntimeError, match=r"could not send its answer to 'render', because it does not pickle: .*lock"):
        venv.render()


class ShapedEnv(TinyEnv):
    """A wrapper in it shapes the rewards of agent_1."""

    metadata = {"render_fps": 7}

    def __init__(self, shaped):
        super().__init__()
        self.metadata["render_fps"], self.shaped = 7, shaped

    def _info(self, agent):
        return {"env_reward": -5.0} if self.shaped and agent == "agent_1" else {}


def test_the_joined_infos_are_those_of_one_process():
    def make(count=[]):  # noqa: B006  the first sub-environment of each process is not shaped
        count.append(None)
        return ShapedEnv(len(count) == 2)

    with vectorize(lambda: ShapedEnv(True), 1) as one:
        assert one.metadata["render_fps"] == 7
        metadata, mode = one.metadata, one.render_mode
    with vectorize(make, 3, workers=2) as venv:  # sub-environment 1 is shaped
        assert (venv.metadata, venv.render_mode) == (metadata, mode)
        venv.reset(seed=0)
        _, rewards, *_, infos = venv.step(np.ones((3, 2), int))
        assert rewards.tolist() == [[2, 2]] * 3
        assert infos["env_reward"].tolist() == [[2, 2], [2, -5], [2, 2]]


def run(tmp_path, text):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)


def test_spaces_of_ones_own_travel_and_a_program_that_never_closes_ends(tmp_path):
    program = run(
        tmp_path,
        """
        import numpy as np
        from gymnasium import spaces
        from dm2_wrappers import vectorize
        from tests.helpers.tiny_envs import TinyEnv

        class Angles(spaces.Box):
            pass

        class Env(TinyEnv):
            def observation_space(self, agent):
                return Angles(0, 9, (self.sizes[agent],), np.float32)

        if __name__ == "__main__":
            venv = vectorize(Env, 2, workers=2)
            venv.reset(seed=0)
            print(type(venv.layout.native_observation_spaces["agent_0"]) is Angles)
        """,
    )
    assert program.communicate(timeout=60)[0] == "True\n"
    assert program.returncode == 0


def test_workers_do_not_outlive_a_killed_program_even_while_they_hang(tmp_path):
    note = tmp_path / "hangs"
    program = run(
        tmp_path,
        f"""
        import functools, numpy as np
        from dm2_wrappers import vectorize
        from tests.vector.test_workers import HangingEnv

        if __name__ == "__main__":
            venv = vectorize(functools.partial(HangingEnv, "step", {str(note)!r}), 1, workers=1)
            venv.reset(seed=0)
            print(*[process.pid for process in venv.workers.processes], flush=True)
            venv.step(np.zeros((1, 2), int))
            venv.step(np.zeros((1, 2), int))
        """,
    )
    (pid,) = map(int, program.stdout.readline().split())
    wait_for(note)
    program.kill()
    program.wait()
    assert gone(pid, seconds=5.0)
    program.stdout.close()


class Sleeper:
    """What a worker serves: it never answers."""

    def hang(self):
        time.sleep(60)

    def pid(self):
        return os.getpid()

    def close(self):
        pass


def test_workers_that_are_forked_from_a_prepared_process_end_with_a_killed_program(tmp_path):
    program = run(
        tmp_path,
        """
        import time
        from dm2_wrappers.vector.workers import Workers
        from tests.vector.test_workers import Sleeper

        if __name__ == "__main__":
            workers = Workers([Sleeper, Sleeper], ["one", "two"], preload=["tests.vector.test_workers"])
            print(*workers.ask("pid", [{}, {}]), flush=True)
            workers.send(1, "hang", {})
            time.sleep(60)
        """,
    )
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 2
    program.kill()
    program.wait()
    assert all(gone(pid, seconds=5.0) for pid in pids)
    program.stdout.close()


def test_a_wrong_space_is_told_once_for_all_processes():
    class Unlike(TinyEnv):
        def action_space(self, agent):
            return spaces.Discrete(3 + int(os.getpid() % 100000))

    with pytest.raises(ValueError, match=r"sub-environment 1 differs from sub-environment 0: agent 'agent_0' has Discrete"):
        vectorize(Unlike, 2, workers=2)


def test_when_a_worker_does_not_start_those_before_it_end(monkeypatch):
    started, start = [], multiprocessing.context.SpawnProcess.start

    def start_two(process):
        if len(started) == 2:
            raise OSError("no more processes")
        start(process)
        started.append(process)

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start_two)
    with pytest.raises(OSError, match="no more processes"):
        workers.Workers([Sleeper] * 3, ["one", "two", "three"])
    assert len(started) == 2
    for process in started:
        with pytest.raises(ValueError, match="process object is closed"):
            process.is_alive()
