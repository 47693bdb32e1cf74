"""Checks of a checkpoint's contents: types, ranges and shapes, before anything is built from them.

A ``ValueError`` names the invalid part. `dm2_wrappers.sb3.checkpoint` adds the file's name.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dm2_wrappers.matching import DistributionMatcher
from dm2_wrappers.rng_state import GlobalRNGState
from dm2_wrappers.sb3.learner_state import COUNTERS, check_tensors

_MATCHER_OPTIONS = set(inspect.signature(DistributionMatcher).parameters) - {"demonstrations", "module", "device"}
_MATCHER_OPTIONS |= {"self_imitation"}
_SELF_IMITATION = {"episodes", "above_mean", "max_steps", "agents", "sizes", "env_id"}
_MOST_DRAWS = 50_000_000  # updates * batch_size * agents: an update draws that many indices at once
_OPTIONS = {
    "coefficient",
    "env_coefficient",
    "mode",
    "order",
    "convergence",
    "after_death",
    "update_every",
    "relabel",
    "seed",
}


def check_facts(facts: Mapping[str, Any]) -> None:
    """Check ``team.json``.

    Raises:
        ValueError: Something in it is wrong.
    """
    agents, sizes = facts["agents"], facts["sizes"]
    _expect(_all(agents, str) and 0 < len(agents) == len(set(agents)), "agents")
    _expect(_all(sizes, int) and len(sizes) == len(agents) and min(sizes) > 0, "sizes")
    _expect(_all(facts["algorithms"], str) and len(facts["algorithms"]) == len(agents), "algorithms")
    _expect(_all(facts["masked_agents"], str) and set(facts["masked_agents"]) <= set(agents), "masked_agents")
    _expect(isinstance(facts["env_id"], str), "env_id")
    _expect(isinstance(facts["custom_networks"], bool), "custom_networks")
    for name in ("num_timesteps", "steps_since_update"):
        _expect(_count(facts[name]), name)
    options, matcher, counters = facts["options"], facts["matcher"], facts["counters"]
    _expect(isinstance(options, dict) and set(options) == _OPTIONS, "options")
    _expect((options["coefficient"] is None) == (matcher is None), "coefficient")
    _expect(options["mode"] in ("exact", "online"), "mode")
    _expect((options["order"] == "turn") == (options["convergence"] is not None), "convergence")
    _expect(isinstance(facts["turn"], int) and 0 <= facts["turn"] < len(agents), "turn")
    _expect(matcher is None or (isinstance(matcher, dict) and set(matcher) <= _MATCHER_OPTIONS), "matcher")
    schedule = facts["schedule"]
    _expect(schedule is None or (isinstance(schedule, dict) and set(schedule) == {"name", "options"}), "schedule")
    _expect(schedule is None or (matcher is not None and isinstance(schedule["name"], str)), "schedule")
    _expect(schedule is None or isinstance(schedule["options"], dict | None), "schedule")
    _expect(isinstance(counters, dict) and set(counters) == set(agents), "counters")
    for counted in counters.values():
        _expect(isinstance(counted, dict) and set(counted) <= set(COUNTERS), "counters")
        for name, value in counted.items():
            fraction = name in ("exploration_rate", "_current_progress_remaining")
            _expect(_number(value) if fraction else _count(value), name)
    episodes = facts["episodes"]
    _expect(isinstance(episodes, dict) and set(episodes) <= set(agents), "episodes")
    for newest in episodes.values():
        _expect(isinstance(newest, dict) and set(newest) == {"episodes", "successes"}, "episodes")
        rows = newest["episodes"]
        _expect(_all(rows, list) and all(len(row) == 3 and all(map(_number, row)) for row in rows), "episodes")
        _expect(isinstance(newest["successes"], list) and all(map(_number, newest["successes"])), "successes")


def check_state(tensors: Any, facts: Mapping[str, Any]) -> None:
    """Check ``state.pt`` against ``team.json``, which `check_facts` has passed.

    Raises:
        ValueError: Something in it is wrong.
    """
    agents = facts["agents"]
    check_tensors(tensors)
    _expect(isinstance(tensors["streams"], dict) and set(tensors["streams"]) == set(agents), "streams")
    for stream in (*tensors["streams"].values(), tensors["env_stream"]):
        _check_stream(stream)
    _expect((tensors["matcher"] is None) == (facts["matcher"] is None), "matcher")
    _expect((tensors["schedule"] is None) == (facts["schedule"] is None), "schedule")
    if facts["matcher"] is not None and not facts["custom_networks"]:
        _check_matcher(facts["matcher"], facts["sizes"], tensors["matcher"])
    streams, values, buffers = tensors["action_streams"], tensors["dead_values"], tensors["replay_buffers"]
    _expect(
        isinstance(streams, dict) and set(streams) == set(agents) and _all(list(streams.values()), str), "action_streams"
    )
    for text in streams.values():
        _expect(_is_generator_state(text), "action_streams")
    _expect(isinstance(values, dict) and set(values) <= set(agents) and all(map(_number, values.values())), "dead_values")
    _expect(isinstance(buffers, dict) and set(values) | set(buffers) == set(agents), "replay_buffers")
    _expect(set(values).isdisjoint(buffers), "replay_buffers")
    for buffer in buffers.values():
        arrays = buffer.get("arrays") if isinstance(buffer, dict) else None
        _expect(
            isinstance(arrays, dict) and all(isinstance(array, torch.Tensor) for array in arrays.values()), "replay_buffers"
        )


def _check_stream(stream: Any) -> None:
    """Check the state of Python's, NumPy's and torch's generators by setting new ones to it."""
    position = stream["numpy"][2]
    _expect(isinstance(position, int) and 0 <= position <= 624, "streams")  # NumPy does not check it
    state = GlobalRNGState.from_state_dict(stream)
    random.Random().setstate(state.python)
    np.random.RandomState().set_state(state.numpy)
    torch.Generator().set_state(state.torch)
    _expect(all(isinstance(each, torch.Tensor) and each.dtype == torch.uint8 for each in state.cuda), "streams")


def _check_matcher(options: Mapping[str, Any], sizes: Sequence[int], state: Any) -> None:
    """Check the options that decide how much memory a matcher takes against the weights that are there."""
    hidden = options.get("hidden", [64, 64])
    _expect(_all(hidden, int) and len(hidden) > 0 and min(hidden) > 0, "hidden")
    weights = state["discriminators"]["weights"]
    _expect(isinstance(weights, list) and len(weights) == len(sizes), "discriminators")
    found = sum(tensor.numel() for network in weights for tensor in network.values())
    if options.get("inputs", "state") != "state" or options.get("ends", "live") != "live":
        sizes = state["discriminators"]["sizes"]  # these inputs are wider than the observations
        _expect(_all(sizes, int) and len(sizes) == len(weights) and min(sizes) > 0, "discriminators")
    own = options.get("self_imitation")
    _expect(own is None or (isinstance(own, dict) and set(own) - {"prefer_newest"} == _SELF_IMITATION), "self_imitation")
    widths = [[size, *hidden, 1] for size in sizes]
    expected = sum((i + 1) * o for each in widths for i, o in itertools.pairwise(each))
    # Stacked networks are padded to the widest agent.
    padded = len(sizes) * sum((i + 1) * o for i, o in zip([max(sizes), *hidden], [*hidden, 1], strict=True))
    _expect(found in (expected, padded), "hidden")
    draws = [options.get(name, 1) for name in ("updates", "batch_size")]
    _expect(all(map(_count, draws)) and math.prod(draws) * len(sizes) <= _MOST_DRAWS, "updates and batch_size")


def _is_generator_state(text: str) -> bool:
    state = json.loads(text)
    kind = getattr(np.random, state["bit_generator"], None)
    if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):  # do not call what a file names
        return False
    kind().state = state
    return True


def _all(values: Any, kind: type) -> bool:
    """Whether this is a list of ``kind``; a bool is not an int here."""
    return isinstance(values, list) and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _expect(right: bool, name: str) -> None:
    if not right:
        raise ValueError(f"{name} is invalid")
