"""K learners' policies as one function of the joint arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from dm2_wrappers import _checks
from dm2_wrappers.matching.torch_modes import standard_modes
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv
from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.spaces import MASK, action_mask, checked_mask, flatten, shown


class TeamPolicy:
    """A joint policy: ``policy(observations [N, K, D], infos) -> actions [N, K]`` (or [N, K, A], padded with 0).

    It keeps the states of recurrent policies. Call ``start_episode`` when episodes begin, as
    ``Demonstrations.record`` and ``evaluate`` do. An agent that joins, or comes back, begins with a new state.

    Learners that explore with random actions in ``predict`` (DQN) draw them from streams seeded by NumPy's global one, so
    their training's own exploration streams are left alone.

    Args:
        models: The K learners.
        deterministic: Choose the most likely action instead of sampling one.
        masked: Agents for which some actions are not always available, so that they need a mask.
    """

    def __init__(
        self, models: Mapping[str, BaseAlgorithm], *, deterministic: bool = False, masked: Collection[str] = ()
    ) -> None:
        self.models, self.masked = models, frozenset(masked)
        self.deterministic = _checks.flag("deterministic", deterministic)
        self._states: dict[str, Any] = {}
        self._exploration: dict[str, Any] = {}
        self._starts: NDArray[np.bool_] | None = None
        self._present: NDArray[np.bool_] | None = None

    @property
    def recurrent(self) -> bool:
        """Whether some policy has a state that must be carried from step to step."""
        return any(isinstance(model, RecurrentPPO) for model in self.models.values())

    def start_episode(self, started: NDArray[np.bool_]) -> None:
        """Forget the recurrent states of the sub-environments in which an episode begins, [N]."""
        self._starts = np.asarray(started, dtype=bool)

    def check_env(self, env: MultiAgentVectorEnv) -> None:
        """Check that the environment has the learners' agents, in their order, and their spaces.

        Raises:
            ValueError: It does not.
        """
        sizes = [int(np.prod(model.observation_space.shape)) for model in self.models.values()]  # type: ignore[arg-type]
        check_fits(env, list(self.models), sizes, [model.action_space for model in self.models.values()])

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        """Every agent's action for its own slice of the arrays.

        Raises:
            TypeError: Dicts of a ``ParallelEnv``.
        """
        if isinstance(observations, Mapping):
            raise TypeError(
                "a team's policy() takes the arrays of a vector environment: for a ParallelEnv's dicts use team.predict, or "
                "record with vectorize(make_env, 1)"
            )
        present = infos.get("present", np.ones(observations.shape[:2], bool))
        starts = self._episode_starts(present)
        masks = infos.get(MASK)
        actions = [
            self.act(agent, observations[:, k], None if masks is None else masks[:, k], starts[:, k])
            for k, agent in enumerate(self.models)
        ]
        if actions[0].ndim == 1:
            return np.stack(actions, axis=1)
        width = max(each.shape[1] for each in actions)
        return np.stack([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in actions], axis=1)

    def native_actions(
        self, observations: Mapping[str, Any], layout: Layout | None, infos: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Actions for the present agents of one ``ParallelEnv``; see ``IndependentLearners.predict``.

        Args:
            observations: ``{agent: observation}``.
            layout: How the ParallelEnv's spaces map to arrays; None where they are flat already.
            infos: ``{agent: info}``, which may hold action masks.

        Raises:
            TypeError: Something else than dicts.
            ValueError: An unknown agent, an observation of another size or with NaN, or a mask that is missing or wrong.
        """
        agents = list(self.models)
        for name, given in (("observations", observations), ("infos", {} if infos is None else infos)):
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"predict() takes {name} as a dict with the agents' names, got {type(given).__name__}; reset() and "
                    "step() return several dicts: pass the first one"
                )
        unknown = set(observations) - set(agents)
        if unknown:
            raise ValueError(f"observations of unknown agents {sorted(map(str, unknown))}; the agents are {agents}")
        present = np.array([[agent in observations for agent in agents]])
        starts = self._episode_starts(present)
        actions: dict[str, Any] = {}
        for agent, observation in observations.items():
            k = agents.index(agent)
            rows = self._features(agent, observation, layout)
            mask = self._mask(agent, observation, (infos or {}).get(agent) or {})
            action = self.act(agent, rows, None if mask is None else mask[None], starts[:, k])[0]
            if layout is not None:
                actions[agent] = layout.native_action(k, action)
            else:
                actions[agent] = int(action) if np.ndim(action) == 0 else action
        return actions

    @standard_modes
    def act(
        self, agent: str, observations: NDArray[np.float32], masks: NDArray[Any] | None, starts: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """One agent's actions [N] or [N, A].

        Args:
            agent: The agent.
            observations: Its observations [N, >= D].
            masks: Its available actions [N, >= A]; None where all are.
            starts: Where an episode begins for it, bool [N].
        """
        model: Any = self.models[agent]
        size = int(np.prod(model.observation_space.shape))
        options: dict[str, Any] = {"deterministic": self.deterministic}
        if isinstance(model, MaskablePPO):
            if masks is None and agent in self.masked:
                raise ValueError(
                    f"agent {agent!r} was given no action mask, but its environment has masks: pass infos=infos, or its "
                    f"observation as {{'observation': ..., {MASK!r}: ...}}"
                )
            width = int(model.action_space.n)  # type: ignore[attr-defined]
            options["action_masks"] = np.ones((len(observations), width), bool) if masks is None else masks[:, :width]
        if isinstance(model, RecurrentPPO):
            options["state"], options["episode_start"] = self._states.get(agent), starts
        with self._own_exploration(agent, model):
            actions, self._states[agent] = model.predict(observations[:, :size], **options)
        return np.asarray(actions)

    def _features(self, agent: str, observation: Any, layout: Layout | None) -> NDArray[np.float32]:
        """An observation of one ``ParallelEnv`` as one row [1, D]."""
        try:
            if layout is not None:
                space = layout.native_observation_spaces[agent]
                if _is_masked(observation) and MASK not in (getattr(space, "spaces", None) or ()):
                    observation = observation["observation"]  # the environment has its masks in infos
                features = flatten(space, observation)
            else:
                features = np.asarray(observation["observation"] if _is_masked(observation) else observation, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the observation of agent {agent!r} is not in its space: {error}") from None
        size = int(np.prod(self.models[agent].observation_space.shape))  # type: ignore[arg-type]
        if features.size != size:
            raise ValueError(f"agent {agent!r} was trained on {size} features, but its observation has {features.size}")
        if not np.isfinite(features).all():
            raise ValueError(f"the observation of agent {agent!r} must hold finite numbers, got {shown(features)}")
        return features.reshape(1, -1)

    def _mask(self, agent: str, observation: Any, info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        model, mask = self.models[agent], action_mask(observation, info)
        if mask is None or not isinstance(model, MaskablePPO):
            return None
        width = int(model.action_space.n)  # type: ignore[union-attr,attr-defined]
        try:
            return checked_mask(mask, width, agent, bool(info.get("alive", True)), "")
        except ValueError:
            raise ValueError(
                f"the action mask of agent {agent!r} must hold {width} numbers, not all of them 0, got {shown(mask)}; if "
                "the agent is dead, pass infos=infos, which say so"
            ) from None

    def _episode_starts(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where an episode begins for an agent, [N, K]: for all with the joint episode, for one when it joins."""
        starts = np.zeros_like(present)
        if self._present is not None and self._present.shape == present.shape:
            starts = present & ~self._present
        if self._starts is not None:
            starts = starts | self._starts[:, None]
        self._starts, self._present = None, present.copy()
        return starts

    @contextmanager
    def _own_exploration(self, agent: str, model: BaseAlgorithm) -> Iterator[None]:
        """Lend the learner's action space a random stream of this policy's, because DQN samples actions from it."""
        if not isinstance(model, OffPolicyAlgorithm):
            yield
            return
        bits: Any = model.action_space.np_random.bit_generator  # type: ignore[union-attr]
        training = bits.state
        if agent not in self._exploration:
            self._exploration[agent] = type(bits)(np.random.randint(2**32, dtype=np.uint64)).state  # noqa: NPY002
        bits.state = self._exploration[agent]
        try:
            yield
        finally:
            self._exploration[agent] = bits.state
            bits.state = training


def check_fits(env: MultiAgentVectorEnv, agents: Sequence[str], sizes: Sequence[int], actions: Sequence[Any]) -> None:
    """Check that an environment is like the one in which a policy was trained. Its arrays do not say whose they are.

    Args:
        env: The environment.
        agents: The agents of the policy, in its order.
        sizes: Their numbers of features.
        actions: Their action spaces.

    Raises:
        ValueError: Other agents, another order, other sizes or other actions.
    """
    if list(env.possible_agents) != list(agents):
        raise ValueError(
            f"the policy was trained with the agents {list(agents)}, but {env.env_id!r} has {list(env.possible_agents)}: "
            "the names and their order must be the same"
        )
    for agent, size, found, space in zip(agents, sizes, env.observation_sizes, actions, strict=True):
        if size != found:
            raise ValueError(f"agent {agent!r} was trained on {size} features, but {env.env_id!r} has {found}")
        other = env.action_spaces[agent]
        if _actions(space) != _actions(other):
            raise ValueError(f"agent {agent!r} was trained with the actions {space}, but {env.env_id!r} has {other}")


def _actions(space: Any) -> Any:
    """What must be the same of two action spaces: the number of actions, or the bounds up to rounding to float32."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    return space.low.astype(np.float32).tolist(), space.high.astype(np.float32).tolist()


def _is_masked(observation: Any) -> bool:
    return isinstance(observation, Mapping) and set(observation) == {"observation", MASK}
