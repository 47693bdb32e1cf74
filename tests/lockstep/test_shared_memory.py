import numpy as np
import pytest

from dm2_wrappers.lockstep.shared_memory import Blackboard, BlackboardReader, SharedMemory


def test_objects_arrive_with_arrays_of_their_own():
    board, reader = Blackboard(), BlackboardReader()
    rng = np.random.default_rng(0)
    shared = rng.random((3, 5, 4), np.float32)
    value = {
        "a": shared,
        "again": shared,
        "flags": np.array([True, False]),
        "strided": rng.random((4, 6))[:, ::2],
        "x": [1, "y"],
    }
    note = board.write(value)
    assert len(note.pickled) < 1500  # the large arrays are not in it
    read = reader.read(note)
    board.write({"a": np.zeros((3, 5, 4), np.float32)})
    for name in ("a", "flags", "strided"):
        np.testing.assert_array_equal(read[name], value[name])
    assert read["a"] is read["again"]
    assert read["x"] == [1, "y"]
    read["a"][:] = 0  # writable, as in the process that made it
    assert shared.any()
    reader.close()
    board.close()


def test_the_memory_grows_with_what_is_written_and_is_removed_in_the_end():
    board, reader = Blackboard(), BlackboardReader()
    names = []
    for size in (0, 10, 1_000_000, 20):
        note = board.write(np.arange(size))
        names.append(note.block)
        np.testing.assert_array_equal(reader.read(note), np.arange(size))
    assert names[1] != names[2] == names[3]
    board.close()
    reader.close()
    for name in set(names):
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
