"""The answer for a file of demonstrations, in a few lines: ``python -m dm2_wrappers.demonstrations compatible FILE``."""

from __future__ import annotations

from dm2_wrappers.compatibility.permutation import concurrency, least_rounds, shared_feature_test
from dm2_wrappers.compatibility.shared import Shared, shared_features
from dm2_wrappers.demonstrations import Demonstrations

_SAYS = {
    "refuted": "The recordings cannot come from one team: two agents' recordings differ in features that both observe.",
    "not refuted": "The recordings may come from one team. This is no proof: the test compares only shared features.",
}
_TOGETHER = "The agents were recorded together, so this test cannot fail. Only a pool of teams would be incompatible."


def report(
    demos: Demonstrations,
    shared: Shared | None = None,
    *,
    permutations: int | None = None,
    seed: int = 0,
    alpha: float = 0.05,
) -> str:
    """Test whether demonstrations can come from one team, and return the result as text.

    Args:
        demos: The demonstrations.
        shared: The features that two agents both observe; by default this library's function for their environment.
        permutations: See :func:`shared_feature_test`; by default 999, or more if there are many pairs of agents.
        seed: See :func:`shared_feature_test`.
        alpha: See :func:`shared_feature_test`.

    Returns:
        A few lines: how concurrent the agents' episodes are, a table of the pairs of agents, the verdict and its meaning.

    Raises:
        ValueError: There are fewer than two agents or episodes, or no function for their environment.
    """
    shared = shared or shared_features(demos)
    together = concurrency(demos, shared)
    pairs = len(demos.agents) * (len(demos.agents) - 1) // 2
    rounds = max(999, 2 * least_rounds(alpha, pairs)) if permutations is None else permutations
    test = shared_feature_test(demos, shared, rounds, seed, alpha=alpha)
    return "\n".join(
        [
            f"concurrency  {together:.4f} (share of steps in which two agents' recordings agree on shared features)",
            str(test),
            f"verdict      {test.verdict} at level {alpha:g}",
            _TOGETHER if together == 1 else _SAYS[test.verdict],
        ]
    )
