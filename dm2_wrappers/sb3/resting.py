"""Learners that leave out one call of ``train()``."""

from __future__ import annotations

from functools import cache
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm


def skip_training(model: BaseAlgorithm) -> None:
    """Let the learner's next ``train()`` do nothing.

    Its class is replaced rather than its attribute ``train``, because SB3 would save the attribute with the model.
    """
    model.__class__ = _resting(type(model))


def learn_again(model: BaseAlgorithm, *_: Any, **__: Any) -> None:
    """Undo `skip_training`, for a loop that did not come to ``train()``."""
    model.__class__ = getattr(type(model), "rested_from", type(model))


@cache
def _resting(algorithm: type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """A subclass under the same name whose ``train()`` only turns the learner back into ``algorithm``."""
    if hasattr(algorithm, "rested_from"):
        return algorithm
    names = {name: getattr(algorithm, name) for name in ("__module__", "__qualname__", "__doc__")}
    members: dict[str, Any] = {**names, "rested_from": algorithm, "train": learn_again}
    return type(algorithm.__name__, (algorithm,), members)
