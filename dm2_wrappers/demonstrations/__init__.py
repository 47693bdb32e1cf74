"""Demonstrations of expert teams: the data set, recording, the file format and foreign formats."""

from dm2_wrappers.demonstrations.dataset import Demonstrations

__all__ = ["Demonstrations"]
