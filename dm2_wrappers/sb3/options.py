"""Checks of the options of `IndependentLearners`. They become plain numbers and strings, which a checkpoint's JSON holds."""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from dm2_wrappers import _checks
from dm2_wrappers._extras import require
from dm2_wrappers.matching import Coefficient, Convergence, DistributionMatcher, coefficient
from dm2_wrappers.matching.matcher import checked_matcher
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.wrapper import DM2ParallelEnv, DM2VectorEnv

UPDATE_EVERY = 4096


def take_over(
    env: Any,
    matcher: DistributionMatcher | None,
    c: Coefficient | None,
    env_coefficient: float | None,
    update_every: int | None,
) -> tuple[Any, DistributionMatcher | None, Coefficient | None, float, int]:
    """The environment without its DM2 wrapper, and the options, some of which are the wrapper's.

    Raises:
        TypeError: ``env`` is one of SB3's, or ``matcher`` is not a `DistributionMatcher`.
        ValueError: An option that the wrapper has, too, or a DM2 wrapper under another wrapper.
    """
    if isinstance(env, VecEnv):
        raise TypeError(
            f"IndependentLearners takes a PettingZoo ParallelEnv or a MultiAgentVectorEnv, got SB3's {type(env).__name__}, "
            "which has one agent; instead of VecNormalize, scale observations in a MultiAgentVectorWrapper"
        )
    if isinstance(env, DM2ParallelEnv | DM2VectorEnv):
        own: dict[str, Any] = {"matcher": matcher, "coefficient": c, "env_coefficient": env_coefficient}
        if env.update_every is not None:
            own["update_every"] = update_every
        twice = [name for name, value in own.items() if value is not None]
        if twice:
            raise ValueError(
                f"{type(env).__name__} has {', '.join(twice)} already: give them to the wrapper or to "
                "IndependentLearners, not to both"
            )
        matcher, c, env_coefficient = env.matcher, env.coefficient, env.env_coefficient
        update_every = update_every if env.update_every is None else env.update_every
        env = env.env
    if owns_matcher(env):
        raise ValueError(
            f"{type(env).__name__} wraps a DM2 wrapper, so the learners cannot find its matcher: put DM2VectorEnv or "
            "DM2ParallelEnv around all other wrappers"
        )
    if matcher is not None:
        checked_matcher(matcher)
    env_coefficient = 1.0 if env_coefficient is None else env_coefficient
    return env, matcher, c, env_coefficient, UPDATE_EVERY if update_every is None else update_every


def checked_coefficient(value: Coefficient | None, agents: Sequence[str], matcher: Any) -> Coefficient | None:
    """The paper's c, as a float or a dict of floats; None exactly where there is no matcher."""
    if matcher is not None and value is None:
        raise ValueError("a matcher needs a coefficient: the paper's c, e.g. coefficient=0.3")
    if value is None:
        return None
    if matcher is None:
        raise ValueError("a coefficient needs a matcher: pass matcher=DistributionMatcher(demonstrations)")
    return coefficient.checked(value, agents)


def checked_order(
    order: str, convergence: Convergence | None, matcher: DistributionMatcher | None
) -> tuple[str, Convergence | None]:
    """The order in which agents learn, and with turns when a discriminator has converged.

    Raises:
        ValueError: An unknown order, turns without a matcher, or a convergence without turns.
        TypeError: ``convergence`` is not a `Convergence`.
    """
    _checks.choice("order", order, ("simultaneous", "turn"))
    if convergence is not None and not isinstance(convergence, Convergence):
        raise TypeError(f"convergence must be a dm2.Convergence, got {convergence!r}")
    if order == "simultaneous" and convergence is not None:
        raise ValueError(
            "convergence is for order='turn'; without turns discriminators are trained for `updates` minibatches"
        )
    if order == "turn" and matcher is None:
        raise ValueError(
            "order='turn' is Algorithm 2, in which agents learn from their discriminators: pass matcher= and coefficient="
        )
    return order, convergence or Convergence() if order == "turn" else None


def check_relabel(relabel: bool, models: Mapping[str, Any], matcher: DistributionMatcher | None, mode: str) -> None:
    """Check that stored steps can be paid anew when they are sampled, if that is wanted.

    Raises:
        ValueError: There is no matcher, or no off-policy learner, or the discriminators see more than observations.
    """
    if not relabel:
        return
    if matcher is None:
        raise ValueError("relabel=True pays the present r_gail, so it needs a matcher: pass matcher= and coefficient=")
    if mode == "exact" or all(isinstance(model, OnPolicyAlgorithm) for model in models.values()):
        raise ValueError("relabel=True is for off-policy algorithms with a replay buffer, such as DQN or SAC: leave it out")
    more = {name: value for name, value in matcher.options.items() if name in ("inputs", "ends")}
    if not set(more.values()) <= {"state", "live"}:
        raise ValueError(f"relabel=True needs discriminators that see observations alone, but the matcher has {more}")


def default_algorithm(algorithm: Any, order: str) -> Any:
    """The given algorithm, or Algorithm 2's TRPO.

    Raises:
        ValueError: None is given without turns.
    """
    if algorithm is None and order != "turn":
        raise ValueError("name an algorithm, such as stable_baselines3.PPO; only order='turn' has a default, TRPO")
    return TRPO if algorithm is None else algorithm


def per_agent(value: Any, agents: tuple[str, ...], what: str) -> dict[str, Any]:
    """``value`` for every agent, or the mapping that it is.

    Raises:
        ValueError: A mapping that does not have exactly the agents.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(agents, value)
    if set(value) != set(agents):
        raise ValueError(f"expected one {what} for each of {list(agents)}, got {sorted(map(str, value))}")
    return dict(value)


def checked_algorithm(agent: str, algorithm: Any) -> Any:
    """An SB3 algorithm class, or a ``functools.partial`` or function that makes its instance.

    A partial's arguments are copied: two agents must not share an action noise object.

    Raises:
        ValueError: It is something else.
    """
    wrong = not callable(algorithm) or (inspect.isclass(algorithm) and not issubclass(algorithm, BaseAlgorithm))
    if wrong:
        name = algorithm.__name__ if inspect.isclass(algorithm) else repr(algorithm)
        raise ValueError(
            f"the algorithm of agent {agent!r} must be a Stable-Baselines3 algorithm class, such as "
            f"stable_baselines3.PPO, got {name}"
        )
    if isinstance(algorithm, partial):
        return partial(algorithm.func, *copy.deepcopy(algorithm.args), **copy.deepcopy(algorithm.keywords))
    return algorithm


def checked_policy(agent: str, algorithm: Any, policy: Any) -> Any:
    """The policy's name or class. "MlpPolicy", the default, becomes "MlpLstmPolicy" for RecurrentPPO.

    Raises:
        ValueError: Not a policy, one that the algorithm does not have, or one for observations that are not flat.
    """
    made_by = getattr(algorithm, "func", algorithm)
    recurrent = made_by is RecurrentPPO
    if policy == "MlpPolicy":
        return "MlpLstmPolicy" if recurrent else policy
    known = [name for name in getattr(made_by, "policy_aliases", ()) if name.startswith("Mlp")]
    if policy in ("MultiInputPolicy", "MultiInputLstmPolicy", "CnnPolicy", "CnnLstmPolicy"):
        raise ValueError(
            f"the policy of agent {agent!r} is {policy!r}, but its observations are flattened into one vector: use "
            f"{'MlpLstmPolicy' if recurrent else 'MlpPolicy'!r}"
        )
    is_class = inspect.isclass(policy) and issubclass(policy, BasePolicy)
    if not is_class and not (isinstance(policy, str) and (policy in known or not known)):
        names = " or ".join(map(repr, known)) or "a name that its algorithm has"
        raise ValueError(f"the policy of agent {agent!r} must be {names}, or a class of SB3's BasePolicy, got {policy!r}")
    return policy


def made(agent: str, make: Any, policy: Any, env: VecEnv, **kwargs: Any) -> BaseAlgorithm:
    """The learner of one agent.

    Raises:
        ValueError: The algorithm does not work with the agent's actions or with these options. SB3 asserts this.
    """
    try:
        model: BaseAlgorithm = make(policy, env, **kwargs)
    except AssertionError as error:
        name = getattr(getattr(make, "func", make), "__name__", make)
        raise ValueError(
            f"{name} cannot learn for agent {agent!r}, whose actions are {env.action_space}, with these options: {error}"
        ) from error
    return model


def checked_timesteps(value: Any) -> int:
    """How many steps to learn, as an ``int``; SB3's users write ``1e6``.

    Raises:
        ValueError: Not a number of steps.
    """
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"total_timesteps must be a number of environment steps, got {value!r}") from None


def checked_log_dir(log_dir: Any) -> str | os.PathLike[str] | None:
    """The path of a folder, or None.

    Raises:
        TypeError: No path.
        ValueError: A file of this name exists.
        ImportError: The package tensorboard is not installed.
    """
    if log_dir is not None:
        if not isinstance(log_dir, str | os.PathLike):
            raise TypeError(f"log_dir must be the path of a folder, got {log_dir!r}")
        if Path(os.fsdecode(log_dir)).is_file():
            raise ValueError(f"log_dir must be the path of a folder, but {str(log_dir)!r} is a file")
        require("tensorboard", "sb3")
    return log_dir


def check_workers(
    workers: int, models: Mapping[str, Any], matcher: DistributionMatcher | None, mode: str, order: str
) -> None:
    """Check that these learners can be spread over processes, if that is wanted.

    Raises:
        ValueError: They are off-policy, take turns, are paid online, explore with gSDE, or are not on the CPU.
    """
    if workers == 0:
        return
    off_policy = sorted({type(m).__name__ for m in models.values() if not isinstance(m, OnPolicyAlgorithm)})
    if off_policy:
        raise ValueError(
            f"workers={workers} needs on-policy algorithms, such as PPO, and {off_policy} are not: use workers=0"
        )
    if order == "turn":
        raise ValueError(f"with order='turn' one agent learns at a time, so workers={workers} gains nothing: use workers=0")
    if matcher is not None and mode == "online":
        raise ValueError(f"workers={workers} needs mode='exact', got mode='online': use workers=0")
    for agent, model in models.items():
        if model.device.type != "cpu":
            raise ValueError(
                f"workers={workers} needs learners on the CPU, but that of agent {agent!r} is on {model.device}: pass "
                "device='cpu', or use workers=0"
            )
        if model.use_sde:
            raise ValueError(f"workers={workers} does not support use_sde=True (agent {agent!r}): use workers=0")


def check_train_freq(agent: str, model: Any) -> None:
    """Check that a learner which trains after episodes has one sub-environment.

    Raises:
        ValueError: It has several.
    """
    frequency = getattr(model, "train_freq", None)
    if getattr(frequency, "unit", None) == TrainFrequencyUnit.EPISODE and model.n_envs > 1:
        raise ValueError(
            f"train_freq of agent {agent!r} is in episodes, which SB3 allows only with one sub-environment, but there "
            f"are {model.n_envs}; give it in steps, or use num_envs=1"
        )


def warn_of_idle_learners(models: Mapping[str, Any], total_timesteps: int) -> None:
    """Warn if an agent's first rollout would still be unfinished when another agent's loop ends: it would not train."""
    rollouts = {agent: _rollout_steps(model) for agent, model in models.items()}
    end = min(-(-total_timesteps // steps) * steps for steps in rollouts.values())
    idle = {agent: steps for agent, steps in rollouts.items() if steps > end}
    if idle:
        warnings.warn(
            f"total_timesteps={total_timesteps} ends after {end} steps, before the first rollout of {', '.join(idle)} "
            f"({max(idle.values())} steps), so these agents do not train; learn for more steps at once, or give them a "
            "smaller n_steps",
            UserWarning,
            stacklevel=3,
        )


def _rollout_steps(model: Any) -> int:
    """Environment steps, summed over sub-environments, that a learner collects before it trains."""
    if isinstance(model, OnPolicyAlgorithm):
        return int(model.n_steps * model.n_envs)
    # An episode may be as short as one step.
    frequency = model.train_freq.frequency if model.train_freq.unit == TrainFrequencyUnit.STEP else 1
    return int(frequency * model.n_envs)
