"""Warnings before observations are kept that may not fit into memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2
from dm2_wrappers import _memory

PIXELS = 457 * 120 * 3  # of an agent in pistonball


class Screen(ParallelEnv):
    """One agent sees uint8 images for two steps."""

    metadata = {"name": "screen"}
    possible_agents = ["eye"]

    def observation_space(self, agent):
        return spaces.Box(0, 255, (457, 120, 3), np.uint8)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.time = ["eye"], 0
        return self.seen(), {"eye": {}}

    def seen(self):
        return {"eye": np.full((457, 120, 3), 200 + self.time, np.uint8)}

    def step(self, actions):
        self.time += 1
        over = self.time == 2
        self.agents = [] if over else ["eye"]
        return self.seen(), {"eye": 0.0}, {"eye": False}, {"eye": over}, {"eye": {}}


def record(episodes):
    return dm2.Demonstrations.record(Screen(), lambda observations: {"eye": 0}, episodes)


def test_full_buffer_of_images_is_announced():
    demos = record(1)
    assert demos.sizes == (PIXELS,)
    assert demos.observations("eye")[:, 0].tolist() == [200, 201]
    gib = 32_768 * PIXELS * 4 / 2**30
    with pytest.warns(
        UserWarning, match=rf"keeps will take up to {gib:,.0f} GiB of memory .*164,520 features.* lower buffer_size"
    ):
        dm2.DistributionMatcher(demos, hidden=(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matcher = dm2.DistributionMatcher(demos, hidden=(2, 2), buffer_size=8)
    matcher.record(np.zeros((12, 1, 1, PIXELS), np.float32), np.ones((12, 1, 1), bool))
    assert matcher.state_dict()["buffer"]["rows"].shape == (1, 8, PIXELS)


def test_long_recording_is_announced_after_its_first_episode(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE", 6 * 2 * PIXELS * 4)  # six episodes of two steps fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(6)
    played = []

    def policy(observations):
        played.append(len(played))
        return {"eye": 0}

    def recording():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dm2.Demonstrations.record(Screen(), policy, 7)

    with pytest.raises(UserWarning, match="recording 7 episodes will take up to"):
        recording()
    assert len(played) == 2


def test_warnings_name_the_callers_line():
    with pytest.warns(UserWarning, match="lower buffer_size") as caught:
        dm2.DistributionMatcher(record(1), hidden=(2, 2))
    assert caught[0].filename == __file__
