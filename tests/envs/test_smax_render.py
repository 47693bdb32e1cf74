"""Pictures of SMAX battles, as arrays and in a window."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dm2_wrappers.envs import smax
from dm2_wrappers.envs.smax import render
from tests.helpers.smax_battles import stop_all


def test_render_to_an_array():
    env = smax.parallel_env("3m", render_mode="rgb_array")
    with pytest.raises(RuntimeError, match=r"reset\(\) first"):
        env.render()
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (640, 640, 3)
    assert frame.dtype == np.uint8
    colours = {tuple(map(int, colour)) for colour in frame.reshape(-1, 3)}
    assert {(86, 180, 233), (230, 159, 0)} <= colours  # both teams are to be seen
    env.step(dict.fromkeys(env.agents, 1))
    assert not np.array_equal(env.render(), frame)
    env.close()


def test_a_frame_shows_health_shots_and_the_dead():
    pytest.importorskip("pygame", reason="the extra smax is not installed")
    units = {
        "positions": np.array([[4.0, 16.0], [4.0, 8.0], [20.0, 16.0], [20.0, 8.0]]),
        "health": np.array([0.75, 0.0, 0.25, 1.0]),
        "radius": np.full(4, 0.5),
        "team": np.array([0, 0, 1, 1]),
        "alive": np.array([True, False, True, True]),
        "target": np.array([2, -1, -1, 1]),
    }
    frame = render.draw(units, 32, 32)
    assert frame.shape == (640, 640, 3)
    at = lambda x, y: tuple(frame[640 - round(20 * y), round(20 * x)])  # noqa: E731  20 pixels per unit of length
    assert at(4, 16) == render.TEAMS[0]
    assert at(20, 16) == render.TEAMS[1]
    assert at(4, 8) == render.DEAD  # a cross, without a bar
    assert at(12, 16) == render.TEAMS[0]  # the shot of the first ally
    assert at(12, 8) == render.TEAMS[1]  # the shot that killed the second one
    assert at(12, 12) == render.BACKGROUND or at(12, 12) == render.GRID

    def bar(x, y):
        row = frame[640 - round(20 * y) - 10 - 5, round(20 * x) - 10 : round(20 * x) + 10]
        colors = [tuple(pixel) for pixel in row]
        return [colors.count(color) for color in (render.HEALTHY, render.HURT, render.LOST)]

    assert bar(4, 16) == [15, 0, 5]
    assert bar(20, 16) == [0, 5, 15]
    assert bar(20, 8) == [20, 0, 0]
    assert bar(4, 8) == [0, 0, 0]


def test_render_needs_a_mode():
    env = smax.parallel_env("3m")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="render_mode='rgb_array'"):
        env.render()


def test_a_window_without_a_display_is_refused(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(RuntimeError, match="needs a display"):
        smax.parallel_env("3m", render_mode="human").reset(seed=0)


def test_a_window_opens_and_closes(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = smax.parallel_env("3m", render_mode="human")
    env.reset(seed=0)
    env.step(stop_all(env))
    assert env.render() is None
    env.close()
    env.close()
