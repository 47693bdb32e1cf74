"""One policy for all agents: PettingZoo's usual tutorial with SuperSuit and Stable-Baselines3, and DM2.

    python examples/shared_policy_supersuit.py
    python examples/shared_policy_supersuit.py --coefficient 0

The tutorial makes rows of agents with SuperSuit's ``pettingzoo_env_to_vec_env_v1`` and ``concat_vec_envs_v1``. These never
tell SB3 where a time limit ended an episode, and drop ``infos``. `dm2.sb3.SharedPolicyVecEnv` takes their place; SuperSuit's
other wrappers go around the environment as before. DM2 itself shares nothing between agents: this is for users of the
tutorial. Needs the extras sb3 and supersuit.
"""

from __future__ import annotations

from typing import Any

import _learners
import numpy as np
import supersuit
from gymnasium import spaces
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2


def preprocess(env: Any) -> Any:
    """SuperSuit's wrappers, as in the tutorial.

    Wrappers that change what agents see (frame_stack_v1, normalize_obs_v0, ...) must be around the environment in which the
    experts are recorded, too. SuperSuit does not take observations with action masks, as SMAX has them.
    """
    if all(isinstance(env.observation_space(agent), spaces.Box) for agent in env.possible_agents):
        env = supersuit.dtype_v0(env, np.float32)
    return env


def train(
    make_env: Any,
    make_matcher: Any,
    *,
    coefficient: float,
    env_coefficient: float = 1.0,
    steps: int,
    seed: int,
    num_envs: int = 16,
    num_steps: int = 32,
) -> _learners.Policy:
    # One row for each sub-environment and agent, with the agent's number after its observation.
    env = dm2.sb3.SharedPolicyVecEnv(dm2.vectorize(lambda: preprocess(make_env()), num_envs))
    model = MaskablePPO(
        "MlpPolicy",
        env,
        n_steps=num_steps,
        batch_size=num_envs * num_steps * len(env.agents) // 4,
        n_epochs=8,
        learning_rate=2.5e-3,
        gamma=0.95,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    matching = dm2.sb3.SharedPolicyDM2(make_matcher(), coefficient=coefficient, env_coefficient=env_coefficient)
    rollouts = max(1, steps // (num_envs * num_steps))
    model.learn(rollouts * num_steps * env.num_envs, callback=matching)  # SB3 counts rows
    return dm2.sb3.SharedPolicy(model, env).act


if __name__ == "__main__":
    _learners.main(train, __doc__)
