"""SMAC's pictures and replays."""

from __future__ import annotations

import random

import pytest

from dm2_wrappers.envs.smac.render import old_shuffle
from tests.helpers.smac_envs import make, play


def test_render_is_smacs(monkeypatch):
    env = make(render_mode="rgb_array")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.render()
    env.reset()
    play(env, 2)
    assert env.render().shape == (20, 30, 3)
    assert (env.render() == 2).all()
    silent = make()
    silent.reset()
    with pytest.raises(RuntimeError, match="needs render_mode"):
        silent.render()


def test_a_window_is_drawn_at_each_step():
    drawn = []
    env = make(attributes={"render": lambda self, mode: drawn.append(mode), "crash_after": (3,)}, render_mode="human")
    env.reset()
    play(env, 2)
    assert env.render() is None
    assert drawn == ["human"] * 4
    play(env, 1)  # broken: there is nothing to draw any more
    assert len(drawn) == 4


def test_save_replay(tmp_path):
    env = make(replay_dir=str(tmp_path), replay_prefix="mine")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.save_replay()
    env.reset()
    play(env, 3)
    env.save_replay()
    assert [path.name for path in tmp_path.iterdir()] == ["mine_3.SC2Replay"]


def test_the_shuffle_that_pysc2_wants():
    original, numbers = random.shuffle, list(range(6))
    with old_shuffle():
        random.shuffle(numbers, lambda: 0.5)
        random.shuffle([1, 2, 3])
    # From the end, each changes places with the one in the middle of those up to it.
    assert numbers == [0, 5, 1, 4, 2, 3]
    assert random.shuffle is original
