"""A matcher belongs to one process: the discriminators of a copy in another process would never be trained."""

from __future__ import annotations

import os
from typing import NoReturn


class OneProcess:
    """Refuses copies, pickles and use in a forked process."""

    def _remember_process(self) -> None:
        self._process = os.getpid()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this DistributionMatcher was made in process {self._process} but is used in process {os.getpid()}, where "
                "training would not reach it: keep it in the process that made it, wrap after vectorizing (DM2VectorEnv), "
                "or make a matcher in this process"
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DistributionMatcher cannot be copied or pickled, because each copy would train on a part of the "
            "data only: share the one matcher (wrap after vectorizing, with DM2VectorEnv) or save its state_dict()"
        )
