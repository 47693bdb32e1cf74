"""Each part of a checkpoint, once as it must not be."""

import copy
import json

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO

import dm2_wrappers as dm2
from dm2_wrappers.matching import schedules
from dm2_wrappers.sb3 import IndependentLearners, team_state
from dm2_wrappers.sb3.checkpoint_checks import check_facts, check_state
from tests.helpers.sb3_teams import ON_POLICY, SMALL, demonstrations, matcher, venv


@pytest.fixture(scope="module")
def saved():
    """A team's state: agent_0 learns by PPO, agent_1 by DQN, with a schedule of c."""
    algorithms = {"agent_0": PPO, "agent_1": lambda *args, n_steps, n_epochs, **options: DQN(*args, **options)}
    team = IndependentLearners(
        algorithms,
        venv(),
        matcher=matcher(),
        coefficient=schedules.LinearFall(0.5, 0.1, steps=100),
        mode="online",
        seed=0,
        **SMALL,
        **ON_POLICY[PPO],
    )
    return team_state.collect(team.learn(18))


@pytest.fixture
def facts(saved):
    return json.loads(json.dumps(saved.facts))


@pytest.fixture
def tensors(saved):
    return copy.deepcopy(saved.tensors)


def set_at(tree, path, value):
    """Set ``tree["a"]["b"]`` for the path "a/b"."""
    *parents, last = path.split("/")
    for name in parents:
        tree = tree[int(name) if isinstance(tree, list) else name]
    tree[int(last) if isinstance(tree, list) else last] = value


def test_a_saved_team_passes(facts, tensors):
    check_facts(facts)
    check_state(tensors, facts)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("agents", []),
        ("agents", ["agent_0", "agent_0"]),
        ("agents", ["agent_0", 1]),
        ("agents", "ab"),
        ("sizes", [4]),
        ("sizes", [4, 0]),
        ("sizes", [4, 3.0]),
        ("sizes", [4, True]),
        ("algorithms", ["PPO"]),
        ("algorithms", ["PPO", None]),
        ("masked_agents", ["agent_2"]),
        ("masked_agents", {"agent_0": 1}),
        ("env_id", None),
        ("custom_networks", 0),
        ("num_timesteps", -1),
        ("num_timesteps", 2**63),
        ("num_timesteps", True),
        ("num_timesteps", 1.0),
        ("options", []),
        ("options", {"mode": "exact"}),
        ("options/mode", "auto"),
        ("turn", -1),
        ("turn", 2),
        ("turn", 0.0),
        ("steps_since_update", -1),
        ("steps_since_update", 1.5),
        ("matcher", []),
        ("matcher/device", "cuda"),
        ("matcher/module", None),
        ("schedule", []),
        ("schedule", {"name": "Linear"}),
        ("schedule/name", 3),
        ("schedule/options", 3),
        ("episodes", []),
        ("episodes/agent_2", {"episodes": [], "successes": []}),
        ("episodes/agent_0", {"episodes": []}),
        ("episodes/agent_0/episodes", [1.0]),
        ("episodes/agent_0/episodes", [[1.0, 2]]),
        ("episodes/agent_0/episodes", [[1.0, 2, "3"]]),
        ("episodes/agent_0/successes", 3),
        ("episodes/agent_0/successes", [None]),
        ("counters", []),
        ("counters/agent_2", {}),
        ("counters/agent_0/policy", 3),
        ("counters/agent_0/num_timesteps", -1),
        ("counters/agent_0/num_timesteps", 0.5),
    ],
)
def test_one_wrong_fact_is_named(facts, path, value):
    set_at(facts, path, value)
    names = [part for part in path.split("/") if part not in ("device", "module", "agent_2", "agent_0", "name", "policy")]
    name = {"options": "schedule"}.get(names[-1], names[-1]) if path.startswith("schedule") else names[-1]
    with pytest.raises(ValueError, match=f"^{name} is invalid$"):
        check_facts(facts)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"options/coefficient": None}, "coefficient"),
        ({"matcher": None}, "coefficient"),
        ({"options/order": "turn"}, "convergence"),
        ({"options/convergence": {}}, "convergence"),
        ({"matcher": None, "options/coefficient": None}, "schedule"),
    ],
)
def test_facts_that_contradict_each_other_are_named(facts, changes, name):
    for path, value in changes.items():
        set_at(facts, path, value)
    with pytest.raises(ValueError, match=f"^{name} is invalid$"):
        check_facts(facts)


def test_fractions_are_counted_only_where_they_belong(facts):
    facts["counters"]["agent_1"]["exploration_rate"] = 0.25
    check_facts(facts)
    for value in (float("nan"), "0.25", True):
        facts["counters"]["agent_1"]["exploration_rate"] = value
        with pytest.raises(ValueError, match="exploration_rate is invalid"):
            check_facts(facts)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("streams", [], "streams"),
        ("streams/agent_2", None, "streams"),
        ("matcher", None, "matcher"),
        ("schedule", None, "schedule"),
        ("matcher/discriminators/weights", (), "discriminators"),
        ("matcher/discriminators/weights", [], "discriminators"),
        ("action_streams", [], "action_streams"),
        ("action_streams/agent_2", "{}", "action_streams"),
        ("action_streams/agent_0", 3, "action_streams"),
        ("dead_values", [], "dead_values"),
        ("dead_values/agent_2", 0.0, "dead_values"),
        ("dead_values/agent_0", float("nan"), "dead_values"),
        ("dead_values/agent_0", True, "dead_values"),
        ("dead_values/agent_1", 0.0, "replay_buffers"),
        ("dead_values", {}, "replay_buffers"),
        ("replay_buffers", [], "replay_buffers"),
        ("replay_buffers", {}, "replay_buffers"),
        ("replay_buffers/agent_1", None, "replay_buffers"),
        ("replay_buffers/agent_1/arrays", None, "replay_buffers"),
        ("replay_buffers/agent_1/arrays/rewards", [1.0], "replay_buffers"),
    ],
)
def test_one_wrong_part_of_the_state_is_named(facts, tensors, path, value, name):
    set_at(tensors, path, value)
    with pytest.raises(ValueError, match=f"^{name} is invalid$"):
        check_state(tensors, facts)


@pytest.mark.parametrize("position", [-1, 625, 1.0])
@pytest.mark.parametrize("which", ["agent_1", "environment"])
def test_a_position_that_numpy_would_not_check_is_refused(facts, tensors, position, which):
    stream = tensors["env_stream"] if which == "environment" else tensors["streams"][which]
    numpy_state = list(stream["numpy"])
    numpy_state[2] = position
    stream["numpy"] = type(stream["numpy"])(numpy_state)
    with pytest.raises(ValueError, match="streams is invalid"):
        check_state(tensors, facts)


def test_cuda_states_are_tensors_of_bytes(facts, tensors):
    tensors["streams"]["agent_0"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)]
    check_state(tensors, facts)
    tensors["streams"]["agent_0"]["cuda"] = [torch.zeros(16)]
    with pytest.raises(ValueError, match="streams is invalid"):
        check_state(tensors, facts)


@pytest.mark.parametrize("name", ["Generator", "array", "seed", "BitGenerators"])
def test_an_action_stream_names_one_of_numpys_generators(facts, tensors, name):
    tensors["action_streams"]["agent_0"] = json.dumps({"bit_generator": name})
    before = np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="action_streams is invalid"):
        check_state(tensors, facts)
    assert (np.random.get_state()[1] == before).all()  # np.random.seed was not called


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("hidden", [], "hidden"),
        ("hidden", [64, 0], "hidden"),
        ("hidden", [64.0, 64], "hidden"),
        ("hidden", [64, 63], "hidden"),
        ("updates", -1, "updates and batch_size"),
        ("updates", 25_000_001, "updates and batch_size"),
        ("batch_size", 25_000_001, "updates and batch_size"),
        ("self_imitation", [], "self_imitation"),
        ("self_imitation", {"episodes": 3}, "self_imitation"),
    ],
)
def test_a_matchers_options_must_fit_its_weights(facts, tensors, option, value, name):
    facts["matcher"] = {**facts["matcher"], "updates": 1, "batch_size": 2, option: value}
    with pytest.raises(ValueError, match=f"^{name} is invalid$"):
        check_state(tensors, facts)


def test_the_largest_number_of_draws_passes(facts, tensors):
    facts["matcher"] |= {"updates": 12_500_000, "batch_size": 2}  # for two agents
    check_state(tensors, facts)


@pytest.mark.parametrize("options", [{"inputs": "state-action"}, {"ends": "absorbing", "max_steps": 7, "center": False}])
def test_wider_inputs_have_sizes_of_their_own(options):
    demos = demonstrations()
    made = dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0, **options)
    team = IndependentLearners(PPO, venv(), matcher=made, coefficient=0.5, seed=0, **SMALL, **ON_POLICY[PPO])
    state = team_state.collect(team)
    facts, tensors = json.loads(json.dumps(state.facts)), copy.deepcopy(state.tensors)
    check_facts(facts)
    check_state(tensors, facts)
    for sizes in (None, [5], [5, 0]):
        tensors["matcher"]["discriminators"]["sizes"] = sizes
        with pytest.raises(ValueError, match="discriminators is invalid"):
            check_state(tensors, facts)
    tensors["matcher"]["discriminators"]["sizes"] = [5, np.int64(4)]
    with pytest.raises(ValueError, match="discriminators is invalid"):
        check_state(tensors, facts)


def test_networks_of_the_users_own_are_not_measured(facts, tensors):
    facts["custom_networks"] = True
    facts["matcher"]["hidden"] = [9, 9]
    check_state(tensors, facts)
