"""`check_dm2_env`: does an environment keep PettingZoo's contract, and what DM2 needs beyond it?"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test

from dm2_wrappers import _checks
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.testing.faults import names, require
from dm2_wrappers.vector.layout import Layout, check_parallel_env
from dm2_wrappers.vector.outcome import NEWS, Outcome, Seen
from dm2_wrappers.vector.reader import ParallelReader
from dm2_wrappers.vector.spaces import as_array

_PARTS = ("observations", "rewards", "terminations", "truncations", "infos")


def check_dm2_env(env: ParallelEnv, *, seed: int = 0, steps: int = 300) -> None:
    """Check a `ParallelEnv` with random available actions; the environment is reset and played, not closed.

    Besides PettingZoo's own ``parallel_api_test``: spaces, rewards and action masks (shape, an available action), one set
    of info keys at reset and step (but ``battle_won`` and ``broken`` may come in the last step alone), ``alive`` (for all
    agents or none, and no return from death), agents that end (they leave ``agents``, after a final observation), and that
    an equal seed gives an equal episode.

    Args:
        env: The environment, with or without a DM2 wrapper.
        seed: Of resets and actions.
        steps: At most so many joint steps in each of four parts of the check.

    Raises:
        AssertionError: The environment does something else; one sentence says what.
    """
    seed, steps = _checks.integer("seed", seed, least=0), _checks.integer("steps", steps, least=1)
    try:
        check_parallel_env(env, "check_dm2_env checks")
        layout = Layout(env, flatten_actions=True)
        episodes = [_Player(env, layout, seed).play(steps) for _ in range(2)]
        _check_equal(layout, *episodes)
        _Player(env, layout, seed + 1).play(steps)
    except (TypeError, ValueError) as error:  # the reader's sentences
        raise AssertionError(str(error)) from error
    _check_with_pettingzoo(env, steps)


class _Player:
    """Plays one episode and checks each answer."""

    def __init__(self, env: ParallelEnv, layout: Layout, seed: int) -> None:
        self._env, self._seed = env, seed
        self._reader = ParallelReader(env, layout)
        self._agents = layout.agents
        self._name = f"the environment {layout.env_id!r}"
        # Copies, so that the environment's own spaces keep their random streams.
        self._spaces = copy.deepcopy(layout.native_action_spaces)
        self._observation_spaces = layout.native_observation_spaces
        for agent, space in self._spaces.items():
            space.seed(derive_seed(seed, "check_dm2_env", agent) % 2**31)

    def play(self, steps: int) -> list[Seen | Outcome]:
        """An episode of at most so many steps."""
        observations, infos = self._reader.reset(self._seed)
        listed = list(self._env.possible_agents)
        require(
            listed == list(self._agents),
            f"{self._name} had possible_agents {list(self._agents)}, and after reset() {listed}: keep them in one order",
        )
        seen = self._reader.read_reset(observations, infos)
        acting = self._acting(seen)
        self._keys: dict[str, set[str]] = {}
        self._check_infos("reset", infos, acting)
        self._check_observations(observations, acting)
        self._dead: set[str] = set()
        self._check_alive(seen, infos)
        history: list[Seen | Outcome] = [copy.deepcopy(seen)]
        for _ in range(steps):
            if not acting:
                break
            answers = self._reader.step({agent: self._action(agent, seen) for agent in acting})
            outcome = self._reader.read_step(*answers)
            self._check_step(acting, dict(zip(_PARTS, answers, strict=True)), outcome)
            history.append(copy.deepcopy(outcome))
            seen = outcome.seen
            acting = self._acting(seen)
        return history

    def _acting(self, seen: Seen) -> list[str]:
        return [self._agents[k] for k in np.flatnonzero(seen.present)]

    def _action(self, agent: str, seen: Seen) -> Any:
        space: Any = self._spaces[agent]
        if seen.action_mask is None or not hasattr(space, "n"):
            return space.sample()
        return space.sample(seen.action_mask[self._agents.index(agent), : int(space.n)].astype(np.int8))

    def _check_step(self, acting: list[str], answers: Mapping[str, Any], outcome: Outcome) -> None:
        for what, answer in answers.items():
            missing = [agent for agent in acting if agent not in (answer or {})]
            require(
                not missing,
                f"{self._name} returned no {what} of {names(missing)}, which acted in this step: return all five "
                "for each agent that acted, also in its last step, where the observation is the final one",
            )
        for agent in acting:
            ended = bool(answers["terminations"][agent]) or bool(answers["truncations"][agent])
            require(
                not ended or agent not in self._env.agents,
                f"{self._name} keeps {agent!r} in agents after it was terminated or truncated: take it out",
            )
            require(
                ended or agent in self._env.agents,
                f"{self._name} took {agent!r} out of agents without terminating or truncating it: say how its episode ended",
            )
        self._check_infos("step", answers["infos"], acting)
        self._check_observations(answers["observations"], acting)
        self._check_alive(outcome.seen, answers["infos"])

    def _check_infos(self, method: str, infos: Mapping[str, Any] | None, agents: list[str]) -> None:
        for agent in agents:
            keys = set((infos or {}).get(agent) or {}) - NEWS
            expected = self._keys.setdefault(agent, keys)
            require(
                keys == expected,
                f"{self._name} returned the info keys {sorted(map(str, keys))} of {agent!r} from {method}(), but "
                f"{sorted(map(str, expected))} before: return the same keys at reset and at each step, because some "
                "learners fix them at the first reset",
            )

    def _check_observations(self, observations: Mapping[str, Any], agents: list[str]) -> None:
        for agent in agents:
            space, observation = self._observation_spaces[agent], observations[agent]
            if not space.contains(observation):
                raise AssertionError(
                    f"{self._name} returned an observation of {agent!r} that is not in its observation space {space}: "
                    f"compare dtype, shape and bounds, got {_shown(observation)}"
                )

    def _check_alive(self, seen: Seen, infos: Mapping[str, Any] | None) -> None:
        acting = self._acting(seen)
        silent = [agent for agent in acting if "alive" not in ((infos or {}).get(agent) or {})]
        require(
            not silent or len(silent) == len(acting),
            f"{self._name} reports infos[agent]['alive'] for some agents but not for {names(silent)}: report it for "
            "all or for none",
        )
        for agent in acting:
            alive = bool(seen.alive[self._agents.index(agent)])
            require(
                not alive or agent not in self._dead,
                f"{self._name} reports {agent!r} as alive after it was dead: the dead stay dead until the episode ends",
            )
            if not alive:
                self._dead.add(agent)


def _check_equal(layout: Layout, first: list[Any], second: list[Any]) -> None:
    """The two episodes are equal number for number."""
    what = "reset" if not _equal(first[0], second[0]) else ""
    for t, (one, other) in enumerate(zip(first[1:], second[1:], strict=False), start=1):
        what = what or ("" if _equal(one, other) else f"step {t}")
    if not what and len(first) != len(second):
        what = "its length"
    require(
        not what,
        f"the environment {layout.env_id!r} played different episodes from the same seed and actions, from {what} on: take "
        "every random number from a generator that reset(seed=) seeds",
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Seen | Outcome):
        return all(_equal(value, getattr(other, name)) for name, value in vars(one).items())
    return np.array_equal(one, other)


def _check_with_pettingzoo(env: ParallelEnv, steps: int) -> None:
    """PettingZoo's own test, without its print and its warnings."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parallel_api_test(env, num_cycles=steps)
    except Exception as error:  # it asserts, and also trips over what it does not expect
        reason = " ".join(str(error).split()) or f"{type(error).__name__} without a message"
        raise AssertionError(f"PettingZoo's parallel_api_test refuses {type(env).__name__}: {reason}") from error


def _shown(observation: Any) -> str:
    if isinstance(observation, Mapping):
        return ", ".join(f"{key}: {_shown(value)}" for key, value in observation.items())
    if isinstance(observation, tuple):
        return f"({', '.join(map(_shown, observation))})"
    array = as_array(observation)
    if array.dtype.kind not in "biuf":
        return _checks.shown(observation)
    return f"{array.dtype} of shape {array.shape}" + (f" from {array.min():g} to {array.max():g}" if array.size else "")
