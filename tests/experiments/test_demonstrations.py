"""The trainings of experts."""

import json
import threading
import time
from threading import Event

import pytest

from experiments.demonstrations import _missing_levels, _train, make
from experiments.experts import RECORDING_LEVELS


def test_trainings_name_the_levels_without_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    folder = tmp_path / "demos_data" / "full" / "smax_3m" / "seed0"
    folder.mkdir(parents=True)
    levels, most, _ = RECORDING_LEVELS["3m"]
    (folder / "finished.json").write_text(json.dumps([list(levels), most]))
    (folder / "smax_3m_win30.npz").touch()
    assert _train("smax:3m", "seed0", 10, Event()) == f"{folder}: done before, without files at 50%"
    (folder / "smax_3m_win50.npz").touch()
    assert _missing_levels(folder, levels) == ""
    (folder / "finished.json").write_text("[[0.3, 0.5], 10000")
    with pytest.raises(RuntimeError, match=r"finished.json is damaged: remove it, and the training continues"):
        _train("smax:3m", "seed0", 10, Event())


def test_some_scenarios_have_their_own_training_seeds_and_options(tmp_path, monkeypatch):
    commands = []

    def note(command, *_):
        commands.append([str(word) for word in command])
        return 1

    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    monkeypatch.setattr("experiments.demonstrations.run_program", note)
    failed = make("5m_vs_6m", jobs=1)
    assert len(failed) == 6
    assert "qmix0: failed with exit code 1" in failed[-1]
    make("3s_vs_4z", jobs=1, seeds=2)
    make("3s_vs_5z", jobs=1, seeds=1)
    options = [dict(zip(words[3::2], words[4::2], strict=False)) for words in commands]
    seeds = [(each["--env"], each["--seed"]) for each in options]
    assert seeds[:6] == [("smax:5m_vs_6m", seed) for seed in ("1", "3", "12", "20", "21", "0")]
    assert seeds[6:8] == [("smax:3s_vs_4z", seed) for seed in "01"]
    assert seeds[8:] == [("smax:3s_vs_5z", "0")] * 2  # independent PPO and QMIX
    assert [each.get("--mean-first") for each in options] == [None] * 3 + ["400000"] * 2 + [None] * 5
    assert [each.get("--n-steps") for each in options] == [None] * 5 + ["1", None, None, None, "3"]


def test_after_an_error_no_other_training_starts(tmp_path, monkeypatch):
    started = []

    def train(env, training, episodes, stop):
        started.append(training)
        time.sleep(0.1)
        raise OSError("the disk is full")

    monkeypatch.setattr("experiments.demonstrations._train", train)
    with pytest.raises(OSError, match="the disk is full"):
        make("3s_vs_4z", jobs=1)
    assert len(started) <= 2  # of five: at most one more started before the error was noticed


def test_ctrl_c_stops_the_running_trainings(monkeypatch):
    started, stopped = threading.Event(), []

    def train(env, training, episodes, stop):
        if training == "seed0":
            assert started.wait(10)
            raise KeyboardInterrupt  # what the main thread would see
        started.set()
        stopped.append(stop.wait(10))
        raise RuntimeError("stopped")

    monkeypatch.setattr("experiments.demonstrations._train", train)
    with pytest.raises(KeyboardInterrupt):
        make("3s_vs_4z", jobs=2, seeds=2)
    assert stopped == [True]
