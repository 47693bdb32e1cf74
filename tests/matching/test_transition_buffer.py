"""The ring buffer against lists."""

from __future__ import annotations

import pytest
import torch

from dm2_wrappers.matching.transition_buffer import TransitionBuffer


class Lists:
    """The same with one Python list an agent."""

    def __init__(self, capacity, agents):
        self.capacity, self.kept = capacity, [[] for _ in range(agents)]

    def add(self, observations, alive):
        for at_time, flags in zip(observations, alive, strict=True):
            for of_copy, copy_flags in zip(at_time, flags, strict=True):
                for k, live in enumerate(copy_flags):
                    if live:
                        self.kept[k].append(of_copy[k])
        self.kept = [rows[-self.capacity :] for rows in self.kept]


def contents(buffer):
    """Each agent's transitions, oldest first."""
    counts = buffer.counts.tolist()
    if not max(counts):
        return [torch.zeros(0)] * len(counts)
    rows = buffer.gather(torch.arange(max(counts)).expand(len(counts), -1))
    return [rows[k, :count] for k, count in enumerate(counts)]


def check(buffer, lists):
    assert buffer.counts.tolist() == [len(rows) for rows in lists.kept]
    for rows, expected in zip(contents(buffer), lists.kept, strict=True):
        if expected:
            assert torch.equal(rows, torch.stack(expected))


@pytest.mark.parametrize("capacity", [1, 5, 13, 1000])
def test_it_keeps_what_lists_keep(capacity):
    generator = torch.Generator().manual_seed(0)
    buffer, lists = TransitionBuffer(capacity, 3, 2), Lists(capacity, 3)
    for steps in (1, 4, 0, 7, 2, 9):  # with capacity 5, more than fits comes at once
        observations = torch.randn(steps, 2, 3, 2, generator=generator)
        alive = torch.rand(steps, 2, 3, generator=generator) > torch.tensor([0.1, 0.5, 0.9])
        buffer.add(observations, alive)
        lists.add(observations, alive)
        check(buffer, lists)


def test_order_is_time_then_copies():
    buffer = TransitionBuffer(10, 1, 1)
    buffer.add(torch.tensor([[1.0, 2], [3, 4]]).view(2, 2, 1, 1), torch.ones(2, 2, 1, dtype=torch.bool))
    assert contents(buffer)[0].flatten().tolist() == [1, 2, 3, 4]


def test_an_agent_without_transitions_reads_as_zeros():
    buffer = TransitionBuffer(4, 2, 1)
    buffer.add(torch.ones(1, 1, 2, 1), torch.tensor([[[True, False]]]))
    assert buffer.gather(torch.zeros(2, 3, dtype=torch.int64))[1].tolist() == [[0], [0], [0]]


def test_memory_grows_with_use_up_to_the_capacity():
    buffer = TransitionBuffer(100, 1, 1)
    assert buffer._rows.shape[1] == 0
    alive = torch.ones(1, 10, 1, dtype=torch.bool)
    sizes = []
    for _ in range(15):
        buffer.add(torch.zeros(1, 10, 1, 1), alive)
        sizes.append(buffer._rows.shape[1])
    assert sizes[:5] == [10, 20, 40, 40, 80]
    assert sizes[-1] == 100


def test_clear_forgets():
    buffer, lists = TransitionBuffer(3, 1, 1), Lists(3, 1)
    alive = torch.ones(5, 1, 1, dtype=torch.bool)
    buffer.add(torch.randn(5, 1, 1, 1), alive)
    buffer.clear()
    assert buffer.counts.tolist() == [0]
    again = torch.randn(2, 1, 1, 1)
    buffer.add(again, alive[:2])
    lists.add(again, alive[:2])
    check(buffer, lists)


@pytest.mark.parametrize("steps", [0, 2, 9])
def test_state_round_trip_goes_on_alike(steps):
    one, other = TransitionBuffer(5, 2, 3), TransitionBuffer(5, 2, 3)
    alive = torch.ones(steps, 1, 2, dtype=torch.bool)
    one.add(torch.randn(steps, 1, 2, 3), alive)
    state = one.state_dict()
    other.load_state_dict(state)
    saved, added = state["rows"].clone(), state["added"].clone()
    more = torch.randn(4, 1, 2, 3)
    for buffer in (one, other):
        buffer.add(more, torch.ones(4, 1, 2, dtype=torch.bool))
    for mine, theirs in zip(contents(one), contents(other), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(state["rows"], saved)  # the state is a copy, and loading copies
    assert torch.equal(state["added"], added)


@pytest.mark.parametrize("shape", [(4, 2, 3), (5, 1, 3), (5, 3, 3), (5, 2, 4)])
def test_a_state_of_another_buffer_is_refused(shape):
    _, agents, size = shape
    other = TransitionBuffer(*shape)
    other.add(torch.randn(9, 1, agents, size), torch.ones(9, 1, agents, dtype=torch.bool))
    buffer = TransitionBuffer(5, 2, 3)
    with pytest.raises(ValueError, match="5 transitions of 2 agents with 3 features"):
        buffer.load_state_dict(other.state_dict())
    assert buffer.counts.tolist() == [0, 0]


def test_a_state_whose_counts_are_of_another_number_of_agents_is_refused():
    buffer = TransitionBuffer(5, 2, 3)
    with pytest.raises(ValueError, match="of 2 agents"):
        buffer.load_state_dict({"rows": torch.zeros(2, 1, 3), "added": torch.ones(3, dtype=torch.int64)})


def test_everything_is_on_the_buffers_device_whatever_the_default_is():
    with torch.device("meta"):
        buffer = TransitionBuffer(5, 2, 3, device="cpu")
        buffer.add(torch.ones(4, 1, 2, 3, device="cpu"), torch.ones(4, 1, 2, dtype=torch.bool, device="cpu"))
        rows = buffer.gather(torch.zeros(2, 1, dtype=torch.int64, device="cpu"))
    assert rows.device.type == buffer.counts.device.type == "cpu"
    other = TransitionBuffer(5, 2, 3, device="meta")
    other.load_state_dict(buffer.state_dict())
    assert other._rows.device.type == other.counts.device.type == "meta"
