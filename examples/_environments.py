"""Environments that other packages provide, each with scripted experts, for ``environments.py``.

An expert sees what its agent sees, and acts by a few written rules. Only pistonball's experts look into the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import wrap_any_env

import dm2_wrappers as dm2

Observations = Mapping[str, Any]
Experts = Callable[[Observations], dict[str, Any]]


@dataclass(frozen=True)
class Environment:
    """How to make an environment, its experts, and how to train on it.

    Args:
        packages: What pip installs for it.
        make: Makes it.
        experts: Their joint policy in a given environment.
        steps: Joint environment steps of training, summed over sub-environments.
        matcher: Options of the `DistributionMatcher`.
        learner: Options of SB3's PPO.
        num_envs: How many sub-environments.
        demonstrations: Episodes of the experts.
        evaluation_episodes: Episodes behind each mean return.
    """

    packages: tuple[str, ...]
    make: Callable[[], Any]
    experts: Callable[[Any], Experts]
    steps: int = 30_000
    matcher: dict[str, Any] = field(default_factory=dict)
    learner: dict[str, Any] = field(default_factory=dict)
    num_envs: int = 8
    demonstrations: int = 50
    evaluation_episodes: int = 50


def toward(offset: np.ndarray) -> int:
    """MPE's action that moves along the longer part of an offset (x, y): 0 stays, then left, right, down, up."""
    x, y = offset
    if max(abs(x), abs(y)) < 0.05:
        return 0
    if abs(x) > abs(y):
        return 2 if x > 0 else 1
    return 4 if y > 0 else 3


def simple_spread(continuous: bool = False) -> Any:
    """Three agents must cover three landmarks."""
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env(N=3, max_cycles=25, continuous_actions=continuous)


def spread_experts(env: Any) -> Experts:
    """Agent k walks to landmark k."""
    return wrap_any_env.expert


def continuous_spread_experts(env: Any) -> Experts:
    """The same with five forces of [0, 1] as the action."""

    def policy(observations: Observations) -> dict[str, Any]:
        forces = np.eye(5, dtype=np.float32)
        return {agent: forces[action] for agent, action in wrap_any_env.expert(observations).items()}

    return policy


def speaker_listener() -> Any:
    """A speaker sees which landmark is the goal; a listener must walk there and sees only what the speaker says."""
    from mpe2 import simple_speaker_listener_v4

    return simple_speaker_listener_v4.parallel_env(max_cycles=25)


def speaker_listener_experts(env: Any) -> Experts:
    """The speaker says the goal's number, and the listener walks to the landmark whose number it hears."""

    def policy(observations: Observations) -> dict[str, int]:
        actions = {}
        for agent, observation in observations.items():
            if agent.startswith("speaker"):
                actions[agent] = int(np.argmax(observation))  # the goal's color
            else:
                velocity, landmarks, heard = np.split(observation, [2, 8])
                goal = landmarks.reshape(3, 2)[np.argmax(heard)]
                actions[agent] = toward(goal - velocity) if heard.any() else 0
        return actions

    return policy


def cart_pole() -> Any:
    """One agent must balance a pole on a cart for 200 steps."""
    import gymnasium

    return dm2.envs.from_gymnasium(gymnasium.make("CartPole-v1", max_episode_steps=200))


def cart_pole_experts(env: Any) -> Experts:
    """Push to the side to which the pole falls."""
    weights = np.array([0.05, 0.3, 1.0, 1.0])
    return lambda observations: {agent: int(seen @ weights > 0) for agent, seen in observations.items()}


def pendulum() -> Any:
    """One agent must swing up a pendulum and hold it, with a torque of [-2, 2]."""
    import gymnasium

    return dm2.envs.from_gymnasium(gymnasium.make("Pendulum-v1"))


def pendulum_experts(env: Any) -> Experts:
    """Pump energy into the pendulum, then balance it."""

    def policy(observations: Observations) -> dict[str, np.ndarray]:
        actions = {}
        for agent, (cosine, sine, speed) in observations.items():
            if cosine > 0.8:
                torque = -10 * np.arctan2(sine, cosine) - 2 * speed
            else:
                missing = 15 * (1 - cosine) - speed**2 / 2
                torque = np.sign(speed or 1.0) * 2 * np.sign(missing)
            actions[agent] = np.clip([torque], -2, 2).astype(np.float32)
        return actions

    return policy


def pursuit() -> Any:
    """Two pursuers must catch four evaders, which walk at random; they see 7 x 7 cells around them."""
    from pettingzoo.sisl import pursuit_v5

    return pursuit_v5.parallel_env(
        n_pursuers=2, n_evaders=4, x_size=8, y_size=8, surround=False, n_catch=1, max_cycles=50, catch_reward=1.0
    )


def pursuit_experts(env: Any) -> Experts:
    """Each walks to the nearest evader that it sees, else on to the right."""

    def policy(observations: Observations) -> dict[str, int]:
        actions = {}
        for agent, seen in observations.items():
            places = np.argwhere(seen[:, :, 2] > 0) - 3
            y, x = places[np.abs(places).sum(1).argmin()] if len(places) else (0, 1)
            across = abs(x) >= abs(y)
            actions[agent] = 4 if x == y == 0 else (1 if x > 0 else 0) if across else (2 if y > 0 else 3)
        return actions

    return policy


def foraging() -> Any:
    """Two agents on 6 x 6 cells must stand beside the food and load it, both at once if it is heavy."""
    import gymnasium
    import lbforaging  # noqa: F401  registers the environments

    return dm2.envs.from_gymnasium(gymnasium.make("Foraging-6x6-2p-1f-v3", disable_env_checker=True), multi_agent=True)


def foraging_experts(env: Any) -> Experts:
    """Each walks beside the food, on the side of the other axis if that is where its way ends, and loads."""

    def policy(observations: Observations) -> dict[str, int]:
        actions = {}
        for agent, seen in observations.items():
            y, x = seen[:2] - seen[3:5]  # the food, from the agent
            if abs(x) + abs(y) <= 1:
                actions[agent] = 5
            elif abs(y) > abs(x) or (abs(y) == abs(x) and agent == "agent_0"):
                actions[agent] = 1 if y < 0 else 2
            else:
                actions[agent] = 3 if x < 0 else 4
        return actions

    return policy


ENVIRONMENTS = {
    "spread": Environment(("mpe2",), simple_spread, spread_experts, steps=50_000),
    "spread-continuous": Environment(("mpe2",), lambda: simple_spread(True), continuous_spread_experts, steps=50_000),
    "speaker-listener": Environment(
        ("mpe2",), speaker_listener, speaker_listener_experts, matcher={"inputs": "state-action"}, steps=50_000
    ),
    "cartpole": Environment(("gymnasium",), cart_pole, cart_pole_experts, matcher={"ends": "absorbing"}, demonstrations=20),
    "pendulum": Environment(("gymnasium",), pendulum, pendulum_experts, steps=50_000, demonstrations=20),
    "pursuit": Environment(("pettingzoo[sisl]",), pursuit, pursuit_experts),
    "foraging": Environment(("lbforaging",), foraging, foraging_experts),
}
