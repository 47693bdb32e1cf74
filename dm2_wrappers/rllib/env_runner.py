"""RLlib's env runner for multi-agent environments, without a detour that takes most of its time."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode


class TeamEnvRunner(MultiAgentEnvRunner):
    """Converts episodes to arrays once, when a rollout is complete.

    RLlib 2.60 converts all finished episodes of a rollout again after each further step, so its time grows with the square
    of their number. The episodes are the same.
    """

    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._as_arrays = bool(self.config.episodes_to_numpy)
        self.episodes_to_numpy = False

    def _sample(self, **kwargs: Any) -> list[MultiAgentEpisode]:
        episodes = super()._sample(**kwargs)
        return [episode.to_numpy() for episode in episodes] if self._as_arrays else episodes
