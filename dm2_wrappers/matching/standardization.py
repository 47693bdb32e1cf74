"""Observations on one scale, whatever their units: less the experts' mean, divided by the experts' deviation.

The gradient penalty holds the slope of a discriminator's logit near 1 per unit of its input. On features in [0, 1] the
logit can therefore hardly vary, and r_gail is nearly flat; on features of several units it can. After standardization a
unit is one standard deviation of the experts' feature, so the penalty means the same on every scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# A deviation counts as at least this share of the feature's range: a feature that is on in 1 of 10,000 steps would
# otherwise have values of 100 deviations, and the discriminator would see little else.
_SMALLEST_SHARE = 0.05
# A range of at most this share of the feature's size is float32 rounding: the feature is constant. So is one whose range
# is below the other limit, as its factor times an observation could overflow float32.
_ROUNDING, _TINIEST = 1e-6, 1e-18


class Standardization:
    """Each agent's own mean and scale per feature, from its own demonstrations.

    A feature that is constant in an agent's demonstrations gets the factor 0: its deviation is no scale to measure by.
    The absorbing row is at the mean of all features, and the feature that tells it from live steps stays as it is.

    Args:
        experts: All agents' demonstrations, padded, one agent after the other, [sum of n_k, D].
        counts: How many of them belong to each agent, n_k.
        absorbing_row: Each agent's, [K, D]: 1 at the feature that tells it from live steps. All 0 if there is none.

    Attributes:
        mean: [K, 1, D].
        factor: [K, 1, D]; 0 at constant features and at padding.
    """

    def __init__(self, experts: Tensor, counts: Sequence[int], absorbing_row: Tensor) -> None:
        of_agents = [_mean_and_factor(rows) for rows in experts.split(list(counts))]
        mean, factor = (torch.stack(each).unsqueeze(1).float() for each in zip(*of_agents, strict=True))
        self.mean, self.factor = mean, factor
        self._absorbing_row = absorbing_row[:, None] if absorbing_row.any() else None

    def __call__(self, observations: Tensor) -> Tensor:
        """Standardized observations: [K, B, D] -> [K, B, D]."""
        scaled = (observations - self.mean).mul_(self.factor)
        if self._absorbing_row is None:
            return scaled
        absorbed = (observations * self._absorbing_row).sum(-1, keepdim=True) > 0
        return torch.where(absorbed, self._absorbing_row, scaled)

    @property
    def seen(self) -> Tensor:
        """Which features differ between steps of an agent's demonstrations, and so are not left out, bool [K, D]."""
        return self.factor[:, 0] > 0

    def warn_of_constants(self, agents: Sequence[str], *, stacklevel: int) -> None:
        """Warn if all features of an agent are left out, as then its discriminator learns nothing."""
        if blind := [agent for agent, seen in zip(agents, self.seen, strict=True) if not seen.any()]:
            warnings.warn(
                f"every feature is constant, up to float32's rounding, in the demonstrations of {', '.join(blind)}, so "
                "standardize=True leaves their discriminators nothing to see: use standardize=False",
                stacklevel=stacklevel + 1,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the means and factors."""
        return {"mean": self.mean.clone(), "factor": self.factor.clone()}

    def check_state(self, state: Mapping[str, Tensor] | None) -> None:
        """Check what `state_dict` returned.

        Raises:
            ValueError: It is None, of other shapes, or not finite.
        """
        if state is None:
            raise ValueError("the saved discriminators see raw observations, these standardized ones: use standardize=False")
        for name, own in self.state_dict().items():
            if state[name].shape != own.shape or not state[name].isfinite().all():
                raise ValueError(
                    f"expected a finite {name} of the features of shape {tuple(own.shape)}, got {tuple(state[name].shape)}"
                )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, and `check_state` has passed."""
        self.mean = state["mean"].to(self.mean, copy=True)
        self.factor = state["factor"].to(self.factor, copy=True)


def _mean_and_factor(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of one agent's demonstrations [n, D], float64 [D] each."""
    rows = rows.double()
    low, high = rows.amin(0), rows.amax(0)
    varies = high - low > (_ROUNDING * torch.maximum(low.abs(), high.abs())).clamp(min=_TINIEST)
    deviation = rows.std(0, correction=0).maximum(_SMALLEST_SHARE * (high - low))
    return rows.mean(0), torch.where(varies, 1 / deviation, torch.zeros_like(deviation))
