"""Objects with large arrays on their way to other processes: the arrays go through shared memory."""

from __future__ import annotations

import contextlib
import pickle
import weakref
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Note:
    """Where an object on a `Blackboard` is; small, for a pipe.

    Attributes:
        block: The name of the shared memory.
        pickled: The object without its arrays' contents.
        spans: Where each array's bytes begin and end.
    """

    block: str
    pickled: bytes
    spans: tuple[tuple[int, int], ...]


class Blackboard:
    """One process writes objects here, one after the other, and others read them.

    Each object replaces the one before, so write only when everybody has read that.
    """

    def __init__(self) -> None:
        self._blocks: list[SharedMemory] = []
        self.close = weakref.finalize(self, _release, self._blocks)

    def write(self, value: Any) -> Note:
        """Write an object. Its NumPy arrays are copied to shared memory; anything else is pickled into the note."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        contents, spans, end = [buffer.raw() for buffer in buffers], [], 0
        for content in contents:
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = begin + content.nbytes
            spans.append((begin, end))
        if not self._blocks or end > self._blocks[0].size:
            _release(self._blocks)
            self._blocks.append(SharedMemory(create=True, size=max(1, 2 * end)))
        block = self._blocks[0]
        memory: Any = block.buf
        for (begin, end), content in zip(spans, contents, strict=True):
            memory[begin:end] = content
        return Note(block.name, pickled, tuple(spans))


class BlackboardReader:
    """Reads what another process has written on its `Blackboard`."""

    def __init__(self) -> None:
        self._blocks: list[SharedMemory] = []

    def read(self, note: Note) -> Any:
        """The object, with arrays of its own."""
        if not self._blocks or self._blocks[0].name != note.block:
            self.close()
            self._blocks.append(SharedMemory(note.block))
        size = max((end for _, end in note.spans), default=0)
        memory: Any = self._blocks[0].buf
        copied = np.frombuffer(memory, np.uint8, size).copy()
        return pickle.loads(note.pickled, buffers=[copied[begin:end] for begin, end in note.spans])

    def close(self) -> None:
        """Forget the shared memory; its writer removes it."""
        while self._blocks:
            self._blocks.pop().close()


def _release(blocks: list[SharedMemory]) -> None:
    while blocks:
        block = blocks.pop()
        block.close()
        with contextlib.suppress(FileNotFoundError):
            block.unlink()
