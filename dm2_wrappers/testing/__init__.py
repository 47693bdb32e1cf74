"""Checks for your own code: does a learner follow Algorithm 1, and does an environment keep PettingZoo's contract?

Neither needs pytest or a learner library. Both raise an `AssertionError` with one sentence that says what is wrong.
"""

from dm2_wrappers.testing.learner_check import LearnerReport, check_dm2_learner

__all__ = ["LearnerReport", "check_dm2_learner"]
