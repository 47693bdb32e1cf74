"""What one joint step means to one agent, or to all of them, and what Stable-Baselines3 looks for at an episode's end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.lockstep import JointStep
from dm2_wrappers.vector.base import joint_ends, outcomes, own_rewards


@dataclass(frozen=True)
class AgentStep:
    """What one step meant for one agent, beyond what SB3's ``step`` returns; arrays over sub-environments [N].

    Of all agents at once, the arrays are [N, K].

    Attributes:
        present: The agent acted; it was not absent.
        alive: It was alive at the observation before its action.
        alive_next: It is alive at the observation after it.
        next_present: It acts next.
        done: Its episode ended with this step. An absent agent is done in the step in which it left, and not again.
        joint_end: The joint episode ended with this step.
        time_limit: A time limit ended the agent's episode.
        dead_at_time_limit: A time limit ended the episode of the agent while it was dead, or it died in that very step.
            SB3 must not bootstrap with its critic's value of a dead observation; the rollout buffers have a better one.
        steps_to_discard: How many of the newest steps belong to an episode that the simulator broke with this step.
        env_rewards: The environment's own rewards.
        shaped_rewards: In online mode, what the DM2 wrapper adds r_gail to. It differs from ``env_rewards`` if a wrapper
            inside shapes rewards.
        won: Of the joint episodes that ended with this step, whether the team won: 1 or 0. It is -1 where the environment
            does not report it, the simulator broke the episode, or no episode ended.
    """

    present: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    alive_next: NDArray[np.bool_]
    next_present: NDArray[np.bool_]
    done: NDArray[np.bool_]
    joint_end: NDArray[np.bool_]
    time_limit: NDArray[np.bool_]
    dead_at_time_limit: NDArray[np.bool_]
    steps_to_discard: NDArray[np.int64]
    env_rewards: NDArray[np.float32]
    shaped_rewards: NDArray[np.float32]
    won: NDArray[np.int8]

    @property
    def starts_next(self) -> NDArray[np.bool_]:
        """Where the next observation begins an episode for the agent: the joint episode is new, or it has just joined."""
        return self.next_present & (self.joint_end | ~self.present)

    def flat(self) -> AgentStep:
        """The same with [N * K] rows, of a step of all agents."""
        arrays: dict[str, Any] = {name: array.reshape(-1) for name, array in vars(self).items()}
        return AgentStep(**arrays)


def read_step(joint: JointStep, agents: int | slice, joint_lengths: NDArray[np.int64]) -> AgentStep:
    """What a joint step meant for one agent, or for all.

    Args:
        joint: The step.
        agents: One agent's place on the agent axis, or ``slice(None)`` for all.
        joint_lengths: How many steps the joint episodes have now, with this one, [N].
    """
    each = np.s_[:, agents]
    terminations, truncations = joint.terminations[each], joint.truncations[each]

    def of_agents(values: NDArray[Any]) -> NDArray[Any]:
        """What is true of sub-environments [N], for each agent."""
        return values if values.shape == terminations.shape else np.repeat(values[:, None], terminations.shape[1], axis=1)

    present = joint.present[each]
    alive = joint.alive[each] & present
    ends = of_agents(joint_ends(joint.terminations, joint.truncations))
    broken = ends & of_agents(joint.infos.get("broken", np.zeros(len(ends), bool)))
    time_limit = present & truncations & ~terminations & ~broken
    live_at_end = alive & joint.infos.get("final_alive", joint.alive)[each]
    return AgentStep(
        present=present.copy(),
        alive=alive,
        alive_next=joint.infos["alive"][each] & joint.next_present[each],
        next_present=joint.next_present[each].copy(),
        # The columns of an absent agent stay terminated.
        done=present & (terminations | truncations),
        joint_end=ends,
        time_limit=time_limit,
        dead_at_time_limit=time_limit & ~live_at_end,
        steps_to_discard=np.where(broken, of_agents(joint_lengths), 0),
        env_rewards=own_rewards(joint.infos, joint.rewards)[each].copy(),
        shaped_rewards=joint.infos.get("env_reward", joint.rewards)[each].copy(),
        won=np.where(ends & ~broken, of_agents(outcomes(joint.infos)), np.int8(-1)),
    )


class EpisodeInfos:
    """SB3's ``infos`` of each row: empty but where the row's episode ended, with the environment's own return.

    Args:
        rows: How many rows SB3 sees.
    """

    def __init__(self, rows: int) -> None:
        self._returns, self._lengths = np.zeros(rows), np.zeros(rows, int)
        self._began = time.time()

    def of(
        self, step: AgentStep, bootstrap: NDArray[np.bool_], final: NDArray[np.float32], won: NDArray[np.int8]
    ) -> list[dict[str, Any]]:
        """The infos of this step.

        Args:
            step: What it meant for each row.
            bootstrap: Whether SB3 adds the value of the final observation.
            final: Each row's observation after the step, before any reset, [rows, D].
            won: Each row's "battle_won" as the environment has it, 1 or 0; -1 where it does not report it.
        """
        self._returns += step.env_rewards
        self._lengths += step.present
        infos: list[dict[str, Any]] = [{} for _ in range(len(self._lengths))]
        for i in np.flatnonzero(step.done):
            infos[i] = {"terminal_observation": final[i].copy(), "TimeLimit.truncated": bool(bootstrap[i])}
            if step.steps_to_discard[i]:
                continue
            seconds = round(time.time() - self._began, 6)
            infos[i]["episode"] = {"r": float(self._returns[i]), "l": int(self._lengths[i]), "t": seconds}
            if won[i] >= 0:
                infos[i]["battle_won"] = bool(won[i])
                if step.joint_end[i]:  # an agent that leaves before does not know yet
                    infos[i]["is_success"] = infos[i]["battle_won"]
        ended = step.done | step.joint_end
        self._returns[ended], self._lengths[ended] = 0.0, 0
        return infos
