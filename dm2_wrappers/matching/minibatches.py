"""The minibatches of one update (line 8 of Algorithm 1): expert and policy transitions, and interpolation weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dm2_wrappers.matching.absorbing import AbsorbingRow
from dm2_wrappers.matching.experts import Experts
from dm2_wrappers.matching.transition_buffer import TransitionBuffer
from dm2_wrappers.rng_state import derive_seed


class Minibatches:
    """Draws with replacement; an agent's draws depend on the seed and its name only, not on the other agents.

    Args:
        experts: The experts' side, as it is at each draw.
        agents: Names.
        seed: Of the draws.
    """

    def __init__(self, experts: Experts, agents: Sequence[str], seed: int | None) -> None:
        self._experts = experts
        self._streams = [np.random.default_rng(derive_seed(seed, "minibatches", agent)) for agent in agents]

    def draw(
        self,
        buffer: TransitionBuffer,
        updates: int,
        batch_size: int,
        active: Sequence[bool],
        absorbing: AbsorbingRow | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Minibatches of expert observations [K, B, D], policy observations [K, B, D] and alpha [K, B].

        Agents that are not active draw nothing. Ignore their rows.

        Args:
            buffer: The policy's side.
            updates: How many minibatches.
            batch_size: B, transitions of each agent per side.
            active: Whether each agent draws; only agents with transitions in the buffer can, bool [K].
            absorbing: How often the absorbing row stands in for a row of each side; None: never.
        """
        shape = (updates, batch_size)
        experts, policies = np.zeros((2, len(self._streams), *shape), dtype=np.int64)
        alphas = np.zeros((len(self._streams), *shape), dtype=np.float32)
        replaced = np.ones((2, len(self._streams), *shape), dtype=np.float32)
        demonstrated, first = self._experts.rows, 0
        recorded = buffer.counts.tolist()
        for k, (stream, own) in enumerate(zip(self._streams, self._experts.counts, strict=True)):
            if active[k]:
                experts[k] = first + stream.integers(own, size=shape)
                policies[k] = stream.integers(recorded[k], size=shape)
                alphas[k] = stream.random(shape, dtype=np.float32)
                if absorbing is not None:
                    replaced[:, k] = stream.random((2, *shape), dtype=np.float32)
            first += own
        drawn = [torch.from_numpy(each).to(demonstrated.device).unbind(1) for each in (experts, policies, alphas, *replaced)]
        for expert_rows, policy_rows, alpha, *draws in zip(*drawn, strict=True):
            expert = demonstrated.index_select(0, expert_rows.flatten()).unflatten(0, expert_rows.shape)
            policy = buffer.gather(policy_rows)
            if absorbing is not None:
                expert, policy = absorbing.put_in(expert, policy, *draws)
            yield expert, policy, alpha

    def state(self) -> list[str]:
        """Each agent's random state, as JSON."""
        return [json.dumps(stream.bit_generator.state) for stream in self._streams]

    def load_state(self, state: Sequence[str]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: It is not the state of as many agents. Nothing has changed then.
        """
        before = [stream.bit_generator.state for stream in self._streams]
        try:
            for stream, saved in zip(self._streams, state, strict=True):
                stream.bit_generator.state = json.loads(saved)
        except (ValueError, TypeError, KeyError) as error:
            for stream, own in zip(self._streams, before, strict=True):
                stream.bit_generator.state = own
            raise ValueError(f"the saved random states of the minibatches are damaged: {error}") from None
