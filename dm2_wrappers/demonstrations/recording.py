"""Recording: play whole episodes and keep what each agent observed before each action."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks, _memory
from dm2_wrappers._extras import require
from dm2_wrappers.demonstrations.validation import agent_names, plain_metadata, plain_provenance
from dm2_wrappers.episodes import Episode, check_signature, play
from dm2_wrappers.rng_state import GlobalRNGState, derive_seed
from dm2_wrappers.unwrap import without_matcher
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, SyncVectorEnv
from dm2_wrappers.vector.layout import check_parallel_env


def record(
    env: Any,
    policy: Callable[..., Any],
    episodes: int,
    *,
    seed: int | None,
    provenance: Mapping[str, Any] | None,
    progress_bar: bool,
) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` for newly played episodes; see :meth:`Demonstrations.record`."""
    episodes = _checks.integer("episodes", episodes, least=1)
    seed = _checks.integer("seed", seed, none=True)
    _checks.policy(policy)
    env = without_matcher(env)
    batched = isinstance(env, MultiAgentVectorEnv)
    if not batched:
        check_parallel_env(env, "record() plays")
        expected = "a policy of a ParallelEnv must be a function {agent: observation} -> {agent: action}"
        check_signature(policy, expected, "observations", **({"infos": "infos"} if _takes_infos(policy) else {}))
        single = SyncVectorEnv(lambda: env, 1, flatten_actions=True)
        env, policy = single, _DictPolicy(single, policy)
    # Fail now rather than after a thousand episodes.
    metadata = plain_metadata(
        {"env_id": env.env_id, "style": "concurrent", "policy": plain_provenance(provenance), "seed": seed}
    )
    agent_names(env.possible_agents)

    stream: Iterable[Episode] = play(env, policy, episodes, seed, keep_steps=True)
    if progress_bar:
        stream = require("tqdm", "sb3").tqdm(stream, total=episodes, desc="recording", unit="episode")
    outer = GlobalRNGState.capture()
    if seed is not None:  # policies sample from the global streams: seed them, and restore them afterwards
        GlobalRNGState.seeded(derive_seed(seed, "recording")).restore()
    try:
        kept: list[Episode] = []
        for episode in stream:
            if not kept:
                size = max(env.observation_sizes)
                count = episodes * episode.length
                _memory.warn_if_large(
                    f"recording {episodes:,} episodes", count, env.num_agents, size, "record fewer", stacklevel=3
                )
            kept.append(episode)
    finally:
        if seed is not None:
            outer.restore()
    if batched:
        # Sub-environments finish short episodes first. In random order, the first n are no more likely to be short.
        order = np.random.default_rng(None if seed is None else seed % 2**64)  # NumPy takes no negative seeds
        kept = [kept[i] for i in order.permutation(len(kept))]
    return _arguments(env, kept, metadata)


def _arguments(env: MultiAgentVectorEnv, kept: list[Episode], metadata: dict[str, Any]) -> dict[str, Any]:
    num_agents = len(env.possible_agents)
    observations, alive, actions, reward = zip(*(step for episode in kept for step in episode.steps), strict=True)
    offsets = np.cumsum([0] + [episode.length for episode in kept], dtype=np.int64)
    won = np.array([-1 if episode.won is None else episode.won for episode in kept], dtype=np.int8)
    return {
        "agents": tuple(env.possible_agents),
        "sizes": tuple(env.observation_sizes),
        "padded_observations": np.stack(observations),
        "alive": np.stack(alive),
        "actions": np.stack(actions),
        "rewards": np.repeat(np.array(reward, dtype=np.float32)[:, None], num_agents, axis=1),
        "offsets": np.repeat(offsets[None], num_agents, axis=0),
        "won": np.repeat(won[None], num_agents, axis=0),
        "metadata": metadata,
    }


class _DictPolicy:
    """A policy ``{agent: observation} -> {agent: action}`` as a `JointPolicy` on one ParallelEnv, seen as arrays.

    Args:
        env: The ParallelEnv as a vector environment with one sub-environment.
        policy: The user's function. If it requires ``infos``, or has it as a keyword-only parameter, it also gets the
            agents' infos, which may hold masks.
    """

    def __init__(self, env: SyncVectorEnv, policy: Callable[..., Any]) -> None:
        self._env, self._policy = env, policy
        self._takes_infos = _takes_infos(policy)
        if callable(hook := getattr(policy, "start_episode", None)):
            self.start_episode = hook

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        layout, present = self._env.layout, infos["present"][0]
        native, native_infos = self._env.raw_observations[0], self._env.raw_infos[0] or {}
        agents = [layout.agents[k] for k in np.flatnonzero(present)]
        options = {"infos": {agent: native_infos.get(agent) or {} for agent in agents}} if self._takes_infos else {}
        actions = self._policy({agent: native[agent] for agent in agents}, **options)
        if not isinstance(actions, Mapping):
            raise ValueError(
                f"the policy of a ParallelEnv must return a dict {{agent: action}}, got {type(actions).__name__}"
            )
        return layout.joint_action(actions, present, "the policy gave")


def _takes_infos(policy: Callable[..., Any]) -> bool:
    try:
        parameter = inspect.signature(policy).parameters.get("infos")
    except (TypeError, ValueError):  # built-in functions may have no signature
        return False
    return parameter is not None and (parameter.kind is parameter.KEYWORD_ONLY or parameter.default is parameter.empty)
