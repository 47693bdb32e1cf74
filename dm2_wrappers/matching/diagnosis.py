"""Whether discriminators see anything, and whether a single feature gives the experts away.

Two numbers for each agent, from the newest minibatch of an update:

* separation: the experts' mean logit less the policy's, divided by the standard deviation of both. Near 0 the
  discriminator cannot tell them apart: the agents play like the experts, or it is blind. The gradient penalty gives a
  blind discriminator slopes, too, so its r_gail varies, but it says nothing.
* single_feature: how often one feature alone, compared with one threshold, tells an expert from the policy, 0.5 to 1.
  Near 1 the discriminator needs nothing else. If that feature is a clock or a constant of the recording, r_gail says
  nothing about behavior.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.standardization import Standardization

UPDATES = 20  # before a warning
BLIND = 0.25  # a discriminator whose mean separation in the second half of its first updates is below this is blind
GIVEAWAY = 0.99  # a single feature that is right this often in as many consecutive updates gives the experts away
_CANDIDATES = 8  # features whose threshold is searched: those whose means differ most


class Diagnosis:
    """Measures after each update, and warns once of each of the two troubles.

    Args:
        agents: Names, in the order of the agent axis.
        names: Each agent's features. One that is called None is no single feature of the agents' behavior.
        standardization: What the discriminators see observations through; decides the advice. None: they see raw ones.
    """

    def __init__(
        self, agents: Sequence[str], names: Sequence[Sequence[str | None]], standardization: Standardization | None = None
    ) -> None:
        self._agents, self._names, self._standardization = agents, names, standardization
        width = max(map(len, names))
        unnamed = [[column >= len(each) or each[column] is None for column in range(width)] for each in names]
        self._unnamed = torch.tensor(unnamed)  # [K, D]; padding is among them
        self._separations: list[list[float]] = [[] for _ in agents]  # in the first updates
        self._given_away = [0] * len(agents)  # for how many updates in a row
        self._warned: set[str] = set()

    @torch.no_grad()
    def metrics(
        self, discriminators: Discriminators, expert: Tensor, policy: Tensor, active: Sequence[bool]
    ) -> dict[str, float]:
        """The two numbers of each active agent, and which feature it is.

        Args:
            discriminators: After the update.
            expert: Observations of the experts, [K, B, D].
            policy: Those of the agents now, [K, B, D].
            active: The agents that were trained.

        Returns:
            "separation/<agent>", "single_feature/<agent>" and "single_feature_index/<agent>". Features that standardization
            leaves out are not among the single ones.
        """
        logits = (discriminators.logits(rows.transpose(0, 1)).T for rows in (expert, policy))
        separations = _separation(*logits).tolist()
        ignored = self._unnamed.to(expert.device)
        if self._standardization is not None:
            ignored = ignored | ~self._standardization.seen
        shares, features = (each.tolist() for each in _best_feature(expert, policy, ignored))
        metrics: dict[str, float] = {}
        for k in (k for k, trained in enumerate(active) if trained):
            agent = self._agents[k]
            metrics[f"separation/{agent}"] = separations[k]
            metrics[f"single_feature/{agent}"], metrics[f"single_feature_index/{agent}"] = shares[k], float(features[k])
            if len(self._separations[k]) < UPDATES:
                self._separations[k].append(separations[k])
            self._given_away[k] = self._given_away[k] + 1 if shares[k] >= GIVEAWAY else 0
        self._warn(features)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What the next warning depends on, in types that JSON can store."""
        separations = {agent: list(each) for agent, each in zip(self._agents, self._separations, strict=True)}
        given_away = dict(zip(self._agents, self._given_away, strict=True))
        return {"separations": separations, "given_away": given_away, "warned": sorted(self._warned)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            KeyError: It is damaged or of other agents. Nothing has changed then.
        """
        separations = [[float(each) for each in state["separations"][agent]] for agent in self._agents]
        given_away = [int(state["given_away"][agent]) for agent in self._agents]
        self._warned = set(state["warned"])
        self._separations, self._given_away = separations, given_away

    def _warn(self, features: Sequence[int]) -> None:
        first = dict(zip(self._agents, self._separations, strict=True))
        blind = [a for a, each in first.items() if len(each) == UPDATES and sum(each[UPDATES // 2 :]) < BLIND * UPDATES / 2]
        if blind:
            raw = self._standardization is None
            advice = "use DistributionMatcher(standardize=True)" if raw else "lower gradient_penalty"
            self._once(
                "blind",
                f"after {UPDATES} updates the discriminators of {', '.join(blind)} still cannot tell the experts from the "
                "agents, so r_gail says nothing about behavior. If these agents do not play like the experts already, "
                f"{advice}",
            )
        given = {a: features[k] for k, a in enumerate(self._agents) if self._given_away[k] >= UPDATES}
        if given:
            names = dict(zip(self._agents, self._names, strict=True))
            named = ", ".join(f"{names[agent][feature]} of {agent}" for agent, feature in given.items())
            self._once(
                "given away",
                f"in {UPDATES} consecutive updates a single feature told the experts from the agents in {GIVEAWAY:.0%} of "
                f"their steps ({named}), so the discriminators need to see nothing else. If it is a clock, a name or a unit "
                "of the recording, leave it out of what the discriminators see",
            )

    def _once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, stacklevel=9)


def _separation(expert: Tensor, policy: Tensor) -> Tensor:
    """Difference of the means over the standard deviation within the two sides, [K]; 0 where nothing varies."""
    deviation = ((expert.var(1, correction=0) + policy.var(1, correction=0)) / 2).sqrt()
    gap = expert.mean(1) - policy.mean(1)
    return torch.where(deviation > 0, gap / deviation, torch.zeros_like(gap))


def _best_feature(expert: Tensor, policy: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """The largest balanced accuracy of one feature against one threshold, and which feature, [K] each.

    The accuracy is (1 + the largest distance of the two distribution functions) / 2. It is searched among the features
    whose means differ most, in units of the standard deviation, except for the ignored ones, bool [K, D].
    """
    gap = (expert.mean(1) - policy.mean(1)).abs()
    deviation = ((expert.var(1, correction=0) + policy.var(1, correction=0)) / 2).sqrt()
    differs = torch.where(
        (gap > 0) & ~ignored, gap / deviation, torch.zeros_like(gap)
    )  # infinite where one constant meets another
    candidates = differs.topk(min(_CANDIDATES, differs.shape[1]), dim=1).indices  # [K, C]
    experts, policies = (side.gather(2, candidates[:, None].expand(-1, side.shape[1], -1)) for side in (expert, policy))
    values, order = torch.cat((experts, policies), 1).sort(1)
    values.masked_fill_(ignored.gather(1, candidates)[:, None], 0.0)
    steps = torch.where(order < expert.shape[1], 1 / expert.shape[1], -1 / policy.shape[1]).cumsum(1)
    last = torch.ones_like(values, dtype=torch.bool)  # of equal values only the last is a threshold
    last[:, :-1] = values[:, 1:] > values[:, :-1]
    distance, which = (steps.abs() * last).amax(1).max(1)
    return (1 + distance) / 2, candidates.gather(1, which[:, None]).squeeze(1)
