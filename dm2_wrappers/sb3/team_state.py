"""A team as a `TeamState`, and back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import Coefficient, DistributionMatcher, SelfImitation, schedules
from dm2_wrappers.matching.mixing import load_both
from dm2_wrappers.rng_state import GlobalRNGState
from dm2_wrappers.sb3 import learner_state
from dm2_wrappers.sb3.checkpoint import TeamState
from dm2_wrappers.sb3.replay_buffer import LiveReplayBuffer
from dm2_wrappers.vector import MultiAgentVectorEnv

if TYPE_CHECKING:
    from dm2_wrappers.sb3.learners import IndependentLearners

OPTIONS = ("coefficient", "env_coefficient", "mode", "order", "after_death", "update_every", "relabel", "seed")


def collect(team: IndependentLearners) -> TeamState:
    """Everything that a team needs to go on."""
    models, matcher, lockstep, mixing = team.models, team.matcher, team._lockstep, team._matching.mixing
    schedule = None if mixing is None else mixing.schedule
    options = {name: getattr(team, name) for name in OPTIONS}
    if schedule is not None:
        options["coefficient"] = team.current_coefficient
    return TeamState(
        facts={
            "env_id": team.env.env_id,
            "agents": list(team.agents),
            "sizes": list(team.env.observation_sizes),
            "algorithms": [learner_state.class_name(model) for model in models.values()],
            "options": {**options, "convergence": None if team.convergence is None else asdict(team.convergence)},
            "turn": team._matching.turn,
            "steps_since_update": team._matching.steps_since_update,
            "masked_agents": sorted(team._masked_agents()),
            "matcher": None if matcher is None else matcher.options,
            "custom_networks": matcher is not None and matcher.custom_networks,
            "schedule": None
            if schedule is None
            else {"name": type(schedule).__name__, "options": getattr(schedule, "options", None)},
            "num_timesteps": team.num_timesteps,
            "counters": {agent: learner_state.counters(model) for agent, model in models.items()},
            "episodes": {agent: learner_state.newest_episodes(model) for agent, model in models.items()},
        },
        tensors={
            "streams": {agent: stream.state_dict() for agent, stream in lockstep.current_streams().items()},
            "env_stream": lockstep.env_stream.state_dict(),
            "matcher": None if matcher is None else matcher.state_dict(),
            "schedule": None if mixing is None else mixing.state_dict(),
            "action_streams": {agent: learner_state.action_stream(model) for agent, model in models.items()},
            "dead_values": {
                agent: float(model.rollout_buffer.dead_value)
                for agent, model in models.items()
                if hasattr(model, "rollout_buffer")
            },
            "replay_buffers": {agent: buffer.state_dict() for agent, buffer in _replay_buffers(team).items()},
        },
        models=[learner_state.saved(model) for model in models.values()],
        # Self-imitation alone has none: its episodes are in the matcher's state.
        demonstrations=matcher.demonstrations if matcher and isinstance(matcher.demonstrations, Demonstrations) else None,
    )


def check_agents(state: TeamState, env: MultiAgentVectorEnv) -> None:
    """Check that a state is of this environment's agents and observation sizes.

    Raises:
        ValueError: It is not.
    """
    expected = dict(zip(state.facts["agents"], state.facts["sizes"], strict=True))
    found = dict(zip(env.possible_agents, env.observation_sizes, strict=True))
    if list(found.items()) != list(expected.items()):
        raise ValueError(f"the checkpoint has the agents and observation sizes {expected}, but the environment has {found}")


def matcher_of(state: TeamState, matcher: DistributionMatcher | None, device: str) -> DistributionMatcher | None:
    """The saved matcher, still without its weights; or ``matcher``, which takes over the saved weights.

    Raises:
        ValueError: A matcher for a team that has none, or none for discriminators that are the user's own networks.
    """
    if state.facts["matcher"] is None:
        if matcher is not None:
            raise ValueError(
                "it was saved without a matcher, so matcher= would be ignored: load it without matcher=, or build "
                "a new team with the matcher and copy the weights of the checkpoint's models"
            )
        return None
    if matcher is not None:
        return matcher
    if state.facts["custom_networks"]:
        raise ValueError(
            "its discriminators were made with module=, whose code is not in the checkpoint: pass matcher=, made with the "
            "same options as for the saved team"
        )
    options = dict(state.facts["matcher"])
    source: Any = state.demonstrations
    if (own := options.pop("self_imitation", None)) is not None:
        source = SelfImitation.from_options(own, source)
    return DistributionMatcher(source, device="cpu" if device == "auto" else device, **options)


def coefficient_of(state: TeamState, coefficient: Coefficient | None) -> Coefficient | None:
    """``coefficient``, or the saved one: numbers, or a schedule, still without its state.

    Raises:
        ValueError: The saved one is a schedule of the user's own.
    """
    saved: Coefficient | None = state.facts["options"]["coefficient"]
    schedule = state.facts["schedule"]
    if coefficient is not None or schedule is None:
        return saved if coefficient is None else coefficient
    if schedule["name"] not in schedules.BUILT_IN or schedule["options"] is None:
        raise ValueError(
            f"its coefficient is the schedule {schedule['name']!r} of your own, whose code is not in it: pass coefficient=, "
            "made as it was made for the saved team"
        )
    made: schedules.Schedule = schedules.BUILT_IN[schedule["name"]](**schedule["options"])
    return made


def apply(state: TeamState, team: IndependentLearners) -> None:
    """Give a team everything in a state but the learners' own files."""
    tensors, lockstep = state.tensors, team._lockstep
    if team.matcher is not None:
        team.matcher.load_state_dict(tensors["matcher"])
    if team._matching.mixing is not None:
        team._matching.mixing.load_state_dict(tensors["schedule"])
    for agent, buffer in _replay_buffers(team).items():
        buffer.load_state_dict(tensors["replay_buffers"][agent])
    for agent, model in team.models.items():
        learner_state.set_action_stream(model, tensors["action_streams"][agent])
        if hasattr(model, "rollout_buffer"):
            model.rollout_buffer.dead_value = tensors["dead_values"][agent]
    team._matching.turn = state.facts["turn"]
    team._matching.steps_since_update = state.facts["steps_since_update"]
    team._known_masks = set(state.facts["masked_agents"])
    lockstep.streams = {agent: GlobalRNGState.from_state_dict(tensors["streams"][agent]) for agent in team.agents}
    team.restart_episodes()
    lockstep.env_stream = GlobalRNGState.from_state_dict(tensors["env_stream"])


def restore(state: TeamState, team: IndependentLearners) -> None:
    """Give a team everything in a state, without unpickling anything.

    Raises:
        ValueError: The state is damaged, or of other algorithms, networks or options. Nothing has changed then.
    """
    _check_options(state, team)
    _warn_of_other_demonstrations(state, team)
    models = dict(zip(team.agents, state.models, strict=True))
    parameters = {agent: learner_state.parameters_of(data, team.models[agent]) for agent, data in models.items()}
    for agent, buffer in _replay_buffers(team).items():
        buffer.check_state(state.tensors["replay_buffers"][agent])
    for agent, model in team.models.items():
        learner_state.check_action_stream(model, state.tensors["action_streams"][agent])
    if team.matcher is not None:
        load_both(team.matcher, team._matching.mixing, state.tensors["matcher"], state.tensors["schedule"])
    for agent, model in team.models.items():
        learner_state.restore(model, parameters[agent], state.facts["counters"][agent])
        learner_state.set_newest_episodes(model, state.facts["episodes"].get(agent))
    team.seed = state.facts["options"]["seed"]
    team._matching.flush()  # before the matcher's state is replaced: these steps must not reach the restored matcher
    apply(state, team)


def _check_options(state: TeamState, team: IndependentLearners) -> None:
    facts = state.facts
    algorithms = [learner_state.class_name(model) for model in team.models.values()]
    if algorithms != facts["algorithms"]:
        raise ValueError(f"it has the algorithms {facts['algorithms']}, but this team has {algorithms}")
    if (team.matcher is None) != (facts["matcher"] is None):
        has, lacks = ("it", "this team") if team.matcher is None else ("this team", "it")
        raise ValueError(f"{has} has a matcher and {lacks} has none; build the team with the same options as the saved one")
    names = ("mode", "order", "env_coefficient", "update_every", "relabel")
    own: dict[str, Any] = {name: getattr(team, name) for name in names}
    own["convergence"] = None if team.convergence is None else asdict(team.convergence)
    saved: Mapping[str, Any] = facts["options"]
    if team.matcher is not None:
        own = {**own, **team.matcher.options, "custom_networks": team.matcher.custom_networks}
        saved = {
            **saved,
            **DistributionMatcher.LATER_OPTIONS,
            **facts["matcher"],
            "custom_networks": facts["custom_networks"],
        }
    differing = [name for name, value in own.items() if name != "seed" and saved.get(name) != value]
    if differing:
        values = ", ".join(f"{name}={saved.get(name)!r} and not {own[name]!r}" for name in differing)
        raise ValueError(f"it was saved with {values}; build the team with the saved options")


def _warn_of_other_demonstrations(state: TeamState, team: IndependentLearners) -> None:
    own = team.matcher.demonstrations if team.matcher is not None else None
    saved = state.demonstrations
    if saved is None or not isinstance(own, Demonstrations):
        return
    names = ("padded_observations", "alive", "actions", "offsets")
    if not all(np.array_equal(getattr(saved, name), getattr(own, name)) for name in names):
        warnings.warn(
            "the team in the checkpoint learned from other demonstrations than this one has; its discriminators go on with "
            "this one's from now on",
            stacklevel=4,
        )


def _replay_buffers(team: IndependentLearners) -> dict[str, LiveReplayBuffer]:
    buffers = {agent: getattr(model, "replay_buffer", None) for agent, model in team.models.items()}
    return {agent: buffer for agent, buffer in buffers.items() if isinstance(buffer, LiveReplayBuffer)}
