"""TorchRL glue: Algorithm 1 on the batches that TorchRL's collectors return."""

from dm2_wrappers._extras import require

require("tensordict", "torchrl")
require("torchrl", "torchrl")

from dm2_wrappers.torchrl.distribution_matching import DistributionMatching  # noqa: E402  after the check for the extra

__all__ = ["DistributionMatching"]
