"""Are demonstrations compatible: can one team of independent agents have made them (Definition 1 of the paper)?

On a tabular game :func:`check` decides it exactly. For recordings there are three tests, from cheap to thorough:
:func:`concurrency` (were the agents recorded together?), :func:`shared_feature_test` (do two agents' recordings agree on the
features that both observe?) and :func:`playback_test` (do clones of the agents, playing together, see and do the same?).
"""

from dm2_wrappers.compatibility.definition import Compatibility, check, lower_bound
from dm2_wrappers.compatibility.permutation import PairTest, SharedFeatureTest, concurrency, shared_feature_test
from dm2_wrappers.compatibility.playback import PlaybackTest, count_actions, playback_test
from dm2_wrappers.compatibility.report import report
from dm2_wrappers.compatibility.shared import Shared, everything, shared_features, simple_spread, smac, smax

__all__ = [
    "Compatibility",
    "PairTest",
    "PlaybackTest",
    "Shared",
    "SharedFeatureTest",
    "check",
    "concurrency",
    "count_actions",
    "everything",
    "lower_bound",
    "playback_test",
    "report",
    "shared_feature_test",
    "shared_features",
    "simple_spread",
    "smac",
    "smax",
]
