"""SMAC's renderer on a Python that it was not written for."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, MutableSequence
from typing import Any


@contextlib.contextmanager
def old_shuffle() -> Iterator[None]:
    """While this lasts ``random.shuffle`` takes its second argument again, which Python 3.11 dropped.

    pysc2 4.0.0 needs it when its colors are imported.
    """
    present = random.shuffle

    def shuffle(x: MutableSequence[Any], uniform: Callable[[], float] | None = None) -> None:
        if uniform is None:
            present(x)
            return
        for i in reversed(range(1, len(x))):
            j = int(uniform() * (i + 1))
            x[i], x[j] = x[j], x[i]

    random.shuffle = shuffle  # type: ignore[assignment]
    try:
        yield
    finally:
        random.shuffle = present
