"""SMAC, the paper's environment: battles in StarCraft II, through the original, unmodified ``smac`` package.

``parallel_env("5m_vs_6m")`` is a PettingZoo ``ParallelEnv``; ``vector_env("5m_vs_6m", 4)`` plays in four StarCrafts at
once, each in its own process. The defaults are those of the paper's runs: difficulty 7, a won episode returns at most
20 (more if shields regenerate), the map's time limit, the last action and the agent's number appended to observations.

docs/smac.md lists the versions that are needed and what depends on StarCraft's version.
"""

from __future__ import annotations

from typing import Any

from dm2_wrappers import _checks
from dm2_wrappers.envs.options import checked_death, checked_invalid_action, checked_max_steps, checked_render_mode
from dm2_wrappers.envs.smac import install, vectorized
from dm2_wrappers.envs.smac.game import Game
from dm2_wrappers.envs.smac.parallel import SMACParallelEnv, seed_of
from dm2_wrappers.envs.smac.vectorized import SMACVectorEnv

NUM_ENVS = 4  # sub-environments by default: each needs the memory and processor of a StarCraft


def parallel_env(
    map_name: str,
    *,
    seed: int | None = None,
    death: str = "absorb",
    invalid_action: str = "error",
    agent_id: bool = True,
    last_action: bool = True,
    max_steps: int | None = None,
    timeout: float = 60.0,
    render_mode: str | None = None,
    simulator: type[Any] | None = None,
    **smac_options: Any,
) -> SMACParallelEnv:
    """One battle of SMAC as a PettingZoo ``ParallelEnv`` with action masks. StarCraft starts at the first ``reset``.

    Args:
        map_name: A map of SMAC's, such as "5m_vs_6m".
        seed: StarCraft's random seed; None is a random one. StarCraft takes a seed only when it starts: from there the
            same actions give the same battles, one after the other, and ``reset(seed=)`` therefore starts it anew.
        death: "absorb": a dead agent stays until the episode ends, with a zero observation and no-op as its only action,
            and still earns the team's reward (as in SMAC). "remove": it is terminated at its death.
        invalid_action: "error": an unavailable action is a ``ValueError``, before anything changes. "noop": the agent
            stops instead (no-op where it is dead).
        agent_id: Append the agent's number to its observation, one-hot [K], as the paper's learners have it.
        last_action: Append the agent's last action, one-hot [A], before its number, as the paper's learners have it.
        max_steps: Time limit of an episode, a truncation; None is the map's own.
        timeout: Seconds that StarCraft may take to start, and for each answer; then it counts as dead and is ended.
        render_mode: None, "rgb_array" or "human".
        simulator: Another class with the interface of SMAC's ``StarCraft2Env``; None is genuine SMAC's.
        **smac_options: SMAC's own options: ``difficulty``, ``game_version``, ``replay_dir``, ``reward_sparse``, ...

    Raises:
        ImportError: SMAC is not installed.
        FileNotFoundError: StarCraft II or its map is not found.
        ValueError: An unknown map (the message has the nearest names) or option value.
        TypeError: An option that SMAC does not have.
    """
    death, invalid_action = checked_death(death), checked_invalid_action(invalid_action)
    render_mode, max_steps = checked_render_mode(render_mode), checked_max_steps(max_steps)
    timeout = _checks.number("timeout", timeout, above=0)
    if smac_options.get("difficulty", "7") not in (*"123456789A",):
        raise ValueError(f"difficulty must be one of '1' to '9' and 'A', got {smac_options['difficulty']!r}")
    if "continuing_episode" in smac_options:
        raise ValueError("continuing_episode cannot be chosen: a time limit is always reported, as a truncation")
    game = Game(
        _genuine(map_name) if simulator is None else simulator,
        timeout=timeout,
        seed=seed_of(seed),
        map_name=map_name,
        **smac_options,
    )
    if max_steps is not None:
        game.smac.episode_limit = max_steps
    return SMACParallelEnv(
        game,
        map_name,
        remove_dead=death == "remove",
        replace_unavailable=invalid_action == "noop",
        agent_id=agent_id,
        last_action=last_action,
        render_mode=render_mode,
    )


def vector_env(
    map_name: str, num_envs: int, *, seed: int | None = None, progress_bar: bool = True, **options: Any
) -> SMACVectorEnv:
    """``num_envs`` battles as arrays [N, K, ...], each in its own StarCraft and process.

    A StarCraft takes about 1 GB of memory and up to one processor core. All start side by side at the first ``reset``.
    Start your program under ``if __name__ == "__main__":``, which new processes need, and ``close()`` the
    environment or use it in a ``with`` block; on an error in any sub-environment, and on Ctrl-C, all StarCrafts end.

    Args:
        map_name: A map of SMAC's.
        num_envs: N, the number of StarCrafts.
        seed: Sub-environment i is seeded with ``seed + i``; None is random. See ``parallel_env`` for what that fixes.
        progress_bar: Show a bar while they start.
        **options: The keyword arguments of ``parallel_env``.

    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: As ``parallel_env``.
    """
    return vectorized.make(parallel_env, map_name, num_envs, seed=seed, progress_bar=progress_bar, **options)


def _genuine(map_name: str) -> type[Any]:
    """Genuine SMAC's class, if everything that it needs for this map is installed."""
    simulator = install.load()
    install.check_map(map_name)
    install.check_starcraft(map_name)
    return simulator
