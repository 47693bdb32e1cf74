"""The process's global random states as a value, so that each agent's loop can have its own random streams."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int | None, *names: str) -> int:
    """A 32-bit seed for the stream called ``names`` of a run seeded with ``seed`` (None: from the system's entropy).

    Streams with different names differ, and none depends on which others exist.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    entropy = [int(seed) % 2**64, *(byte for name in names for byte in (*name.encode(), 256))]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@dataclass
class GlobalRNGState:
    """Python's, NumPy's and torch's global random states, and torch's gradient mode (which a loop may hold, too)."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]
    grad: bool = True

    @classmethod
    def capture(cls) -> GlobalRNGState:
        """The states as they are now."""
        # Asking CUDA for its state would initialize it, so ask only if it is initialized.
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        numpy_state = np.random.get_state()  # noqa: NPY002  the global stream is exactly what is meant
        return cls(random.getstate(), numpy_state, torch.get_rng_state(), cuda, torch.is_grad_enabled())

    @classmethod
    def seeded(cls, seed: int) -> GlobalRNGState:
        """The states that seeding everything with ``seed`` gives; the process's own are left as they were."""
        outer = cls.capture()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        state = cls.capture()
        outer.restore()
        state.grad = True
        return state

    def restore(self) -> None:
        """Make these the process's states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if torch.cuda.is_initialized():
            if len(self.cuda) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self.cuda)
            else:  # captured before CUDA was used, or on another machine
                torch.cuda.manual_seed_all(zlib.crc32(self.torch.numpy().tobytes()))
        torch.set_grad_enabled(self.grad)

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors only, as ``torch.load(weights_only=True)`` wants them."""
        version, internal, gauss_next = self.python
        name, keys, position, has_gauss, cached = self.numpy
        return {
            "python": [version, list(internal), gauss_next],
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
            "torch": self.torch,
            "cuda": self.cuda,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> GlobalRNGState:
        """The inverse of ``state_dict``."""
        version, internal, gauss_next = state["python"]
        name, keys, position, has_gauss, cached = state["numpy"]
        numpy_state = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
        return cls((version, tuple(internal), gauss_next), numpy_state, state["torch"], list(state["cuda"]))
