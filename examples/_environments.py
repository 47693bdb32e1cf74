"""Environments that other packages provide, each with scripted experts, for ``environments.py``.

An expert sees what its agent sees, and acts by a few written rules. Only pistonball's experts look into the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import wrap_any_env
from pettingzoo import ParallelEnv
from torch import nn

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
    steps: int = 15_000
    matcher: dict[str, Any] = field(default_factory=lambda: {"updates": 10, "standardize": True})
    learner: dict[str, Any] = field(default_factory=dict)
    num_envs: int = 8
    demonstrations: int = 50
    evaluation_episodes: int = 24


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


def pursuit() -> Any:
    """Two pursuers must catch three evaders, which walk at random; they see 5 x 5 cells around them."""
    from pettingzoo.sisl import pursuit_v5

    return pursuit_v5.parallel_env(
        n_pursuers=2,
        n_evaders=3,
        x_size=6,
        y_size=6,
        obs_range=5,
        surround=False,
        n_catch=1,
        max_cycles=50,
        catch_reward=1.0,
    )


def pursuit_experts(env: Any) -> Experts:
    """Each walks to the nearest evader that it sees, else on to the right."""

    def policy(observations: Observations) -> dict[str, int]:
        actions = {}
        for agent, seen in observations.items():
            places = np.argwhere(seen[:, :, 2] > 0) - 2
            y, x = places[np.abs(places).sum(1).argmin()] if len(places) else (0, 1)
            across = abs(x) >= abs(y)
            actions[agent] = 4 if x == y == 0 else (1 if x > 0 else 0) if across else (2 if y > 0 else 3)
        return actions

    return policy


def _foraging(task: str) -> Any:
    import gymnasium
    import lbforaging  # noqa: F401  registers the environments

    return dm2.envs.from_gymnasium(gymnasium.make(f"Foraging-{task}-v3", disable_env_checker=True), multi_agent=True)


def foraging() -> Any:
    """Two agents on 6 x 6 cells must stand beside the food and load it, both at once if it is heavy."""
    return _foraging("6x6-2p-1f")


def large_foraging() -> Any:
    """The same for three agents on 10 x 10 cells with three pieces of food."""
    return _foraging("10x10-3p-3f")


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


def pistonball() -> Any:
    """Five pistons must roll a ball to the left. Each sees 457 x 120 colored pixels, here made 46 x 12 gray ones.

    Pistonball draws its images only if it has a render mode. SuperSuit's wrappers shrink them and scale them to [0, 1].
    """
    import supersuit
    from pettingzoo.butterfly import pistonball_v6

    env = pistonball_v6.parallel_env(n_pistons=5, continuous=False, max_cycles=40, render_mode="rgb_array")
    env = supersuit.resize_v1(supersuit.color_reduction_v0(env, "R"), x_size=12, y_size=46)
    return supersuit.normalize_obs_v0(supersuit.dtype_v0(env, np.float32), env_min=0, env_max=1)


def pistonball_experts(env: Any) -> Experts:
    """Pistons behind the ball go up, and those before it go down."""
    game = env.unwrapped
    centers = {agent: 60 + 40 * k for k, agent in enumerate(env.possible_agents)}

    def policy(observations: Observations) -> dict[str, int]:
        return {agent: 2 if centers[agent] > game.ball.position[0] + 10 else 0 for agent in observations}

    return policy


class ImageDiscriminator(nn.Module):
    """A small convolutional network for pistonball's images: [B, 46 * 12] -> [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 8, kernel_size=4, stride=2), nn.Tanh()),
            *(nn.Conv2d(8, 16, kernel_size=3, stride=2), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(16 * 10 * 2, 32), nn.Tanh(), nn.Linear(32, 1)),
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits of flat images."""
        return self.layers(rows.unflatten(1, (1, 46, 12)))


class RandomPrey(ParallelEnv):
    """MAgent2's adversarial pursuit with the predators as agents. The prey walk at random."""

    def __init__(self) -> None:
        from magent2.environments import adversarial_pursuit_v4

        self.env = adversarial_pursuit_v4.parallel_env(map_size=16, max_cycles=50)
        self.metadata = self.env.metadata
        self.possible_agents = [agent for agent in self.env.possible_agents if agent.startswith("predator")]
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.agents: list[str] = []
        self.rng = np.random.default_rng()

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        return self._of_predators(*self.env.reset(seed=seed))

    def step(self, actions: dict[str, Any]) -> tuple[dict, ...]:
        prey = {agent: int(self.rng.integers(9)) for agent in self.env.agents if agent not in self.possible_agents}
        return self._of_predators(*self.env.step({**actions, **prey}))

    def _of_predators(self, *results: dict) -> tuple[dict, ...]:
        self.agents = [agent for agent in self.env.agents if agent in self.possible_agents]
        return tuple({agent: each[agent] for agent in self.possible_agents if agent in each} for each in results)


def predators(env: Any) -> Experts:
    """Each tags prey beside its 2 x 2 body, or walks to the nearest prey that it sees."""
    beside = [(-1, 0), (-1, 1), (0, -1), (0, 2), (1, -1), (1, 2), (2, 0), (2, 1)]  # actions 5 to 12, as (y, x)

    def policy(observations: Observations) -> dict[str, int]:
        actions = {}
        for agent, seen in observations.items():
            prey = [tuple(place) for place in np.argwhere(seen[:, :, 3] > 0) - 4]
            tagged = [5 + number for number, place in enumerate(beside) if place in prey]
            if tagged or not prey:
                actions[agent] = tagged[0] if tagged else 2
                continue
            y, x = min(prey, key=lambda place: abs(place[0] - 0.5) + abs(place[1] - 0.5))
            down, right = (4 if y > 0 else 0), (3 if x > 0 else 1)
            actions[agent] = down if abs(y - 0.5) > abs(x - 0.5) else right
        return actions

    return policy


def navigation() -> Any:
    """VMAS's navigation: two agents must each reach their goal, with a force of [-1, 1] in x and y."""
    import vmas

    options = {"n_agents": 2, "collisions": False, "max_steps": 50, "terminated_truncated": True}
    env = vmas.make_env("navigation", num_envs=1, wrapper="gymnasium", **options)
    return dm2.envs.from_gymnasium(env, multi_agent=True)


def navigation_experts(env: Any) -> Experts:
    """Each accelerates to its goal and brakes before it."""

    def policy(observations: Observations) -> dict[str, np.ndarray]:
        return {agent: np.clip(-2 * seen[4:6] - seen[2:4], -1, 1).astype(np.float32) for agent, seen in observations.items()}

    return policy


_ACTIONS = {
    "inputs": "state-action",
    "updates": 10,
    "standardize": True,
}  # for actions that the agent's own observations do not show
_IMAGES = {"module": lambda agent, size: ImageDiscriminator(), "updates": 10, "batch_size": 64, "buffer_size": 4096}

ENVIRONMENTS = {
    "spread": Environment(("mpe2",), simple_spread, spread_experts),
    "spread-continuous": Environment(("mpe2",), lambda: simple_spread(True), continuous_spread_experts),
    "speaker-listener": Environment(("mpe2",), speaker_listener, speaker_listener_experts, matcher=_ACTIONS),
    "cartpole": Environment(
        ("gymnasium",),
        cart_pole,
        cart_pole_experts,
        matcher={"ends": "absorbing"},
        learner={"n_steps": 64, "n_epochs": 4, "gamma": 0.99},
        demonstrations=20,
        steps=10_000,
    ),
    "pursuit": Environment(("pettingzoo[sisl]",), pursuit, pursuit_experts, matcher=_ACTIONS, steps=90_000),
    "pistonball": Environment(
        ("pettingzoo[butterfly]", "supersuit"),
        pistonball,
        pistonball_experts,
        matcher=_IMAGES,
        demonstrations=20,
        evaluation_episodes=20,
        steps=7680,
        learner={"n_steps": 16, "batch_size": 64},
    ),
    "foraging": Environment(("lbforaging",), foraging, foraging_experts, matcher=_ACTIONS),
    "predators": Environment(("magent2",), RandomPrey, predators, matcher=_ACTIONS, steps=40_000),
    "navigation": Environment(("vmas", "shimmy"), navigation, navigation_experts, evaluation_episodes=24),
}
