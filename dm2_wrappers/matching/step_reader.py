"""From what a caller says of steps to the discriminators' inputs, and which of them are trained on and paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dm2_wrappers.matching.absorbing import AbsorbingEnds
from dm2_wrappers.matching.action_coding import ActionCoding
from dm2_wrappers.matching.after_step import AfterStep
from dm2_wrappers.matching.input_rows import InputRows
from dm2_wrappers.matching.inputs import AgentInputs


@dataclass(frozen=True)
class ReadSteps:
    """Joint steps as the discriminators see them.

    Attributes:
        rows: Their inputs, float32 [..., K, W].
        alive: Which agents were alive, bool [..., K].
        trained: Which inputs train a discriminator.
        paid: Which inputs a discriminator pays for.
        remaining: How many absorbing steps come with each step, [..., K]; None without absorbing ends.
        factor: What each step is paid in units of the absorbing reward, [..., K]; None without absorbing ends.
    """

    rows: Tensor
    alive: Tensor
    trained: Tensor
    paid: Tensor
    remaining: Tensor | None
    factor: Tensor | None


class StepReader:
    """Reads joint steps for one kind of input.

    Args:
        observations: Checks observations.
        rows: Joins the parts of an input.
        coding: Of the actions; None if the input has none.
        absorbing: The arithmetic of ``ends="absorbing"``; None with ``ends="live"``.
    """

    def __init__(
        self, observations: AgentInputs, rows: InputRows, coding: ActionCoding | None, absorbing: AbsorbingEnds | None
    ) -> None:
        self._observations, self._rows, self._coding, self._absorbing = observations, rows, coding, absorbing
        self.needs_actions = coding is not None
        self._needs_next = "next_observation" in rows.parts
        self.needs_after = self._needs_next or absorbing is not None

    def check_given(self, actions: Any, after: Any) -> None:
        """Check that a caller gave what the discriminators need besides observations.

        Raises:
            ValueError: Actions or what followed is missing.
        """
        self._check_inputs_given(actions, after)
        if self.needs_after and after is None:
            raise ValueError(f'ends="absorbing" needs what followed each step: {_GIVE_AFTER}')

    def check_actions(self, actions: Any, shape: tuple[int, ...]) -> None:
        """Check the form of actions of agents [..., K], if the discriminators see them.

        Raises:
            ValueError: Another shape, or numbers of another kind.
        """
        if self._coding is not None:
            self._coding.checked(actions, shape)

    def read(self, observations: Any, alive: Any, broken: Any, actions: Any, after: AfterStep | None) -> ReadSteps:
        """Joint steps as inputs.

        Args:
            observations: Float32 [..., K, D].
            alive: Bool [..., K]; None: all.
            broken: Bool [...], steps of which none counts; None: none.
            actions: Integers [..., K] or floats [..., K, A].
            after: What followed; without it, absorbing ends are left out.

        Raises:
            ValueError: Something is missing, or does not fit.
        """
        seen, live = self._observations.joint(observations, alive, broken)
        self._check_inputs_given(actions, after)
        parts = {"observation": seen}
        trained = paid = live
        if self._coding is not None:
            parts["action"] = torch.from_numpy(self._coding.features(actions, live.cpu().numpy())).to(seen)
        if self._needs_next and after is not None:
            parts["next_observation"], _ = self._observations.joint(after.observations, after.alive)
            ended = after.ended[..., None]
            trained = live & torch.from_numpy(after.goes_on).to(live.device)
            paid = live & torch.from_numpy(after.alive | ended).to(live.device)
        remaining = factor = None
        if self._absorbing is not None and after is not None:
            lived = live.cpu().numpy()
            remaining = torch.from_numpy(self._absorbing.remaining(lived, after)).to(seen)
            factor = torch.from_numpy(self._absorbing.factor(lived, after)).to(seen)
            if self._needs_next:
                paid = paid & ~torch.from_numpy(self._absorbing.entered(lived, after)).to(live.device)
        return ReadSteps(
            self._rows.joined([parts[name] for name in self._rows.parts]), live, trained, paid, remaining, factor
        )

    def by_name(
        self, observations: Mapping[str, Any], actions: Any, after: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Any, Any]:
        """Observations, who has one, actions and what followed, from dicts with some agents' names."""
        joint, given = self._observations.by_name(observations)
        if self._coding is not None and isinstance(actions, Mapping):
            actions = self._coding.by_name(actions)
        if isinstance(after, Mapping):
            following, known = self._observations.by_name(after)
            after = AfterStep(following, known, np.zeros((), bool), np.zeros(len(known), bool))
        return joint, given, actions, after

    def from_chunks(
        self, chunks: Sequence[tuple[Any, ...]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[tuple[slice, int]], dict[str, Any]]:
        """Ragged chunks of single agents as joint steps; see `AgentInputs.from_chunks`.

        Returns:
            Observations, which of them are given, where each chunk lies, and "actions" or "after" for `read`.

        Raises:
            ValueError: An unknown agent, or a chunk that lacks something or does not fit.
        """
        if self._absorbing is not None:
            raise ValueError(
                'chunks do not say when episodes end, which ends="absorbing" needs: use JointRollout or a wrapper'
            )
        if not self.needs_actions and not self._needs_next:
            return *self._observations.from_chunks(chunks), {}
        third = "actions" if self.needs_actions else "next observations"
        for number, chunk in enumerate(chunks):
            if not isinstance(chunk, tuple | list) or len(chunk) != 3:
                raise ValueError(f"chunk {number} must be a triple (agent, observations, {third})")
            if len(chunk[1]) != len(chunk[2]):
                raise ValueError(f"chunk {number} has {len(chunk[1])} observations, but {len(chunk[2])} {third}")
        observations, given, places = self._observations.from_chunks([chunk[:2] for chunk in chunks])
        if self._coding is not None:
            actions = self._coding.nothing(given.shape)
            for (agent, _, done), (steps, k) in zip(chunks, places, strict=True):
                actions[steps, 0, k] = self._coding.chunk(agent, done)
            return observations, given, places, {"actions": actions}
        following, _, _ = self._observations.from_chunks([(agent, after) for agent, _, after in chunks])
        after = AfterStep(following, given, np.zeros(given.shape[:2], bool), np.zeros_like(given))
        return observations, given, places, {"after": after}

    def _check_inputs_given(self, actions: Any, after: Any) -> None:
        if self.needs_actions and actions is None:
            raise ValueError('inputs="state-action" needs the agents\' actions: pass actions=')
        if self._needs_next and after is None:
            raise ValueError(f'inputs="transition" needs what followed each step: {_GIVE_AFTER}')


_GIVE_AFTER = "pass after=AfterStep.of(terminations, truncations, infos)"
