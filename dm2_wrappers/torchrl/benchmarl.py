"""Distribution matching in BenchMARL, as a callback of its experiments.

BenchMARL needs an older TorchRL than the extra ``torchrl`` has: install it in an environment of its own, with
``constraints-benchmarl.txt`` (``make check-benchmarl``).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from tensordict import TensorDictBase

from dm2_wrappers import _checks
from dm2_wrappers._extras import require
from dm2_wrappers.matching import Coefficient, DistributionMatcher
from dm2_wrappers.torchrl.distribution_matching import DistributionMatching

require("benchmarl", "torchrl")

from benchmarl.experiment.callback import Callback  # noqa: E402  after the check that it is installed

_STATE = "dm2"  # the key in the experiment's state


class DistributionMatchingCallback(Callback):
    """Lines 6 to 11 of Algorithm 1 on each batch that BenchMARL collects, before it computes advantages.

    For on-policy algorithms (IPPO, MAPPO): others learn from older batches again, which stay paid as they were.

    BenchMARL pickles callbacks with its experiments. The matcher does not travel: it is made anew by ``make_matcher``, and
    its state comes back with the experiment's state.

    Args:
        make_matcher: Makes the discriminators; called once, when the experiment is set up. It must be picklable (a function
            of a module) if the experiment writes checkpoints.
        coefficient: The paper's c, for all agents or ``{agent: c}``.
        env_coefficient: Factor on r_env; 0 is GAIL alone.

    Attributes:
        matching: What pays, once the experiment is set up.

    Raises:
        TypeError: ``make_matcher`` is no function.
        ValueError: An option out of range; in the experiment's set-up, an off-policy algorithm or other agents.

    Example:
        >>> callback = DistributionMatchingCallback(make_matcher, coefficient=0.3)
        >>> Experiment(task=task, algorithm_config=IppoConfig.get_from_yaml(), ..., callbacks=[callback]).run()
    """

    def __init__(
        self, make_matcher: Callable[[], DistributionMatcher], *, coefficient: Coefficient, env_coefficient: float = 1.0
    ) -> None:
        super().__init__()
        if not callable(make_matcher):
            raise TypeError(f"make_matcher must be a function that makes a DistributionMatcher, got {make_matcher!r}")
        self.matching: DistributionMatching | None = None
        self.make_matcher, self.coefficient = make_matcher, coefficient
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)

    @property
    def coefficient(self) -> Coefficient:
        """The paper's c, for all agents or ``{agent: c}``. You can assign it between two batches."""
        return self._coefficient if self.matching is None else self.matching.coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient) -> None:
        self._coefficient = value
        if self.matching is not None:
            self.matching.coefficient = value

    def on_setup(self) -> None:
        """Make the discriminators."""
        if not self.experiment.on_policy:
            raise ValueError(
                "distribution matching pays a batch once, so the algorithm must be on-policy: use IPPO or MAPPO, not "
                f"{type(self.experiment.algorithm_config).__name__.removesuffix('Config')}"
            )
        self.matching = DistributionMatching(
            self.make_matcher(),
            coefficient=self.coefficient,
            env_coefficient=self.env_coefficient,
            group_map=self.experiment.group_map,
        )

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Record the batch, update the discriminators, add their rewards, and log."""
        assert self.matching is not None
        self.matching(batch)
        metrics = {f"dm2/{name}": value for name, value in self.matching.metrics.items()}
        self.experiment.logger.log(metrics, step=self.experiment.n_iters_performed)

    def on_state_dict(self, state_dict: MutableMapping[str, Any]) -> None:
        """Add the discriminators to the experiment's state."""
        if self.matching is not None:
            state_dict[_STATE] = self.matching.state_dict()

    def on_load_state_dict(self, state_dict: MutableMapping[str, Any]) -> None:
        """Restore the discriminators."""
        if self.matching is not None and _STATE in state_dict:
            self.matching.load_state_dict(state_dict[_STATE])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "matching": None, "experiment": None}
