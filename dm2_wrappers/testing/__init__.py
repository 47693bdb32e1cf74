"""Checks for your own code: does a learner follow Algorithm 1, and does an environment keep PettingZoo's contract?

Neither needs pytest or a learner library. Both raise an `AssertionError` with one sentence that says what is wrong.
``python -m dm2_wrappers.testing`` runs them on the command line.
"""

from dm2_wrappers.testing.env_check import check_dm2_env
from dm2_wrappers.testing.learner_check import LearnerReport, check_dm2_learner

__all__ = ["LearnerReport", "check_dm2_env", "check_dm2_learner"]
