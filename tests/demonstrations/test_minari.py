"""Minari data sets: written, read back exactly, and those of others."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from gymnasium import spaces

from dm2_wrappers import Demonstrations
from dm2_wrappers.demonstrations.__main__ import main
from tests.helpers import small_demonstrations
from tests.helpers.tiny_envs import TinyEnv

minari = pytest.importorskip("minari")

ARRAYS = ("padded_observations", "alive", "actions", "rewards", "offsets", "won")


@pytest.fixture(autouse=True)
def datasets_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    warnings.filterwarnings("ignore", message=".*is set to None|env_spec is None")  # Minari asks for an author


def assert_equal(one: Demonstrations, other: Demonstrations) -> None:
    assert (one.agents, one.sizes, one.metadata) == (other.agents, other.sizes, other.metadata)
    for name in ARRAYS:
        assert getattr(one, name).dtype == getattr(other, name).dtype
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def unlike(**changes) -> Demonstrations:
    """Three agents, whose alphabetical order is another one, with unlike sizes, rewards and outcomes."""
    demos = small_demonstrations.make(sizes=(3, 2, 4))
    rng = np.random.default_rng(1)
    arguments = {name: getattr(demos, name) for name in ("agents", "sizes", "metadata", *ARRAYS)}
    arguments["agents"] = ("lead", "agent_2", "agent_10")
    arguments["rewards"] = rng.random(demos.rewards.shape, np.float32)
    arguments["won"] = rng.integers(-1, 2, demos.won.shape)
    arguments["padded_observations"] = demos.padded_observations.copy()
    arguments["padded_observations"][1, 1, 0] = 7  # agent 1 is dead there
    return Demonstrations(**(arguments | changes))


def foreign(observation_space, action_space, *episodes, dataset_id="others/theirs-v0"):
    """A data set as others make it: no infos, no metadata of ours."""
    spaces_ = {"observation_space": observation_space, "action_space": action_space}
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=seen,
            actions=done,
            rewards=rewards,
            terminations=[False] * len(rewards),
            truncations=[False] * len(rewards),
        )
        for seen, done, rewards in episodes
    ]
    return minari.create_dataset_from_buffers(dataset_id, buffers, algorithm_name="PPO", **spaces_)


def test_everything_comes_back_exactly():
    demos = unlike()
    assert_equal(Demonstrations.from_minari(demos.to_minari("team/experts-v0")), demos)
    assert_equal(Demonstrations.from_minari("team/experts-v0"), demos)
    continuous = unlike(actions=np.random.default_rng(2).random((9, 3, 2), np.float32))
    assert_equal(Demonstrations.from_minari(continuous.to_minari("continuous-v3", author="me")), continuous)


def test_what_other_readers_see():
    demos = small_demonstrations.make()  # episodes of 2, 3 and 4 steps; the second agent is dead in the last of each
    dataset = demos.to_minari("experts-v0")
    assert (len(dataset), dataset.total_steps) == (3, 9)
    assert dataset.storage.metadata["dm2_wrappers"]["last_observation"] == "repeated"
    assert dataset.storage.metadata["description"] == "3 episodes of 2 agents on tiny"
    episode = dataset[1]
    np.testing.assert_array_equal(episode.observations["agent_0"], demos.padded_observations[[2, 3, 4, 4], 0])
    assert episode.observations["agent_1"].shape == (4, 2)
    np.testing.assert_array_equal(episode.actions["agent_1"], demos.actions[2:5, 1])
    assert episode.rewards.tolist() == [1, 1, 1]
    assert episode.terminations.tolist() == [False, False, True]
    assert not episode.truncations.any()
    assert episode.infos["dm2_wrappers"]["alive"].tolist() == [[True, True]] * 2 + [[True, False]] * 2
    assert episode.infos["dm2_wrappers"]["won"].tolist() == [[0, 0]] * 4
    for each in dataset:
        for t in range(len(each)):
            actions = {agent: each.actions[agent][t] for agent in demos.agents}
            assert actions in dataset.action_space
            assert {agent: each.observations[agent][t] for agent in demos.agents} in dataset.observation_space
    assert dataset.action_space["agent_0"] == spaces.Discrete(int(demos.actions[:, 0].max()) + 1)


def test_the_environments_action_spaces_are_written():
    env = TinyEnv(sizes=(4, 3), lifetimes=(None, 3), limit=5)
    demos = Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 2, seed=0)
    dataset = demos.to_minari("tiny-v0", env=env)
    assert [dataset.action_space[agent].n for agent in demos.agents] == [env.action_space(a).n for a in demos.agents]
    assert_equal(Demonstrations.from_minari(dataset), demos)
    with pytest.raises(ValueError, match="'agent_0' has 4 observation features in the environment, but 3 in the demonstr"):
        small_demonstrations.make(env_id=None).to_minari("other-v0", env=env)
    continuous = TinyEnv(sizes=(4, 3), actions=(1, 2), continuous=True)
    with pytest.raises(ValueError, match="actions are continuous, but the recorded ones are discrete: leave out env"):
        demos.to_minari("other-v0", env=continuous)
    demos = Demonstrations.record(continuous, lambda seen: {a: continuous.action_space(a).sample() for a in seen}, 1)
    dataset = demos.to_minari("other-v0", env=continuous)
    assert dataset[0].actions["agent_0"].shape == (5, 1)  # an agent's own width
    assert_equal(Demonstrations.from_minari(dataset), demos)


def test_parts_and_combinations_of_data_sets():
    demos = unlike()
    dataset = demos.to_minari("experts-v0")
    last = Demonstrations.from_minari(dataset.filter_episodes(lambda episode: episode.id == 2))
    np.testing.assert_array_equal(last.padded_observations, demos.padded_observations[5:])
    np.testing.assert_array_equal(last.won, demos.won[:, 2:])
    both = Demonstrations.from_minari(minari.combine_datasets([dataset, dataset], "both-v0"), agents=demos.agents)
    np.testing.assert_array_equal(both.alive, np.concatenate([demos.alive] * 2))
    np.testing.assert_array_equal(both.won, np.concatenate([demos.won] * 2, axis=1))
    np.testing.assert_array_equal(both.rewards, np.concatenate([demos.rewards] * 2))


def test_a_single_agent_of_others():
    images = np.arange(3 * 4.0).reshape(3, 2, 2)
    actions = np.array([[1.0, 2.0], [3.0, 4.0]])
    dataset = foreign(spaces.Box(0, 99, (2, 2)), spaces.Box(0, 9, (2,)), (images, actions, [0.5, 1.5]))
    demos = Demonstrations.from_minari(dataset, env_id="theirs")
    assert (demos.agents, demos.sizes, demos.env_id, demos.style) == (("agent_0",), (4,), "theirs", "concurrent")
    assert demos.observations("agent_0").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]  # not the one after the last step
    assert demos.actions.tolist() == [[[1, 2]], [[3, 4]]]
    assert demos.rewards.tolist() == [[0.5], [1.5]]
    assert demos.alive.all()
    assert demos.win_rate is None
    assert demos.metadata["policy"] == {"minari": "others/theirs-v0", "algorithm": "PPO"}
    assert Demonstrations.from_minari(dataset, agents=["me"]).agents == ("me",)
    with pytest.raises(ValueError, match=r"'others/theirs-v0' has one agent, but agents are \['a', 'b'\]"):
        Demonstrations.from_minari(dataset, agents=["a", "b"])


def test_a_team_of_others_with_masks_and_numbered_observations():
    masked = spaces.Dict({"observation": spaces.Box(0, 9, (2,)), "action_mask": spaces.MultiBinary(3)})
    seen = {
        "b": {"observation": np.array([[1.0, 2], [3, 4], [5, 6]]), "action_mask": np.ones((3, 3), np.int8)},
        "a": np.array([4, 5, 6]),
    }
    done = {"b": np.array([0, 2]), "a": np.array([6, 5])}
    dataset = foreign(
        spaces.Dict({"a": spaces.Discrete(3, start=4), "b": masked}),
        spaces.Dict({"a": spaces.Discrete(2, start=5), "b": spaces.Discrete(3)}),
        (seen, done, [1.0, 2.0]),
    )
    demos = Demonstrations.from_minari(dataset, agents=["b", "a"])
    assert (demos.agents, demos.sizes) == (("b", "a"), (2, 3))
    assert demos.observations("b").tolist() == [[1, 2], [3, 4]]
    assert demos.observations("a").tolist() == [[1, 0, 0], [0, 1, 0]]
    assert demos.actions.tolist() == [[0, 1], [2, 0]]  # counted from 0
    assert demos.rewards.tolist() == [[1, 1], [2, 2]]
    assert Demonstrations.from_minari(dataset).agents == ("a", "b")
    with pytest.raises(ValueError, match=r"has the agents \['a', 'b'\], not \['a', 'c'\]"):
        Demonstrations.from_minari(dataset, agents=["a", "c"])


def test_spaces_that_do_not_fit_are_one_sentence():
    box = spaces.Box(0, 1, (1,))
    two = spaces.Dict({"a": box, "b": box})
    with pytest.raises(ValueError, match=r"an action for each of \['a', 'b'\], so its observations must be a dict"):
        Demonstrations.from_minari(foreign(box, two, dataset_id="one-v0"))
    empty = foreign(two, two, dataset_id="empty-v0")
    with pytest.raises(ValueError, match=r"'empty-v0' has no episode"):
        Demonstrations.from_minari(empty)


def test_an_interrupt_leaves_no_half_data_set(tmp_path, monkeypatch):
    demos = small_demonstrations.make()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pytest.importorskip("h5py").Group, "create_dataset", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demos.to_minari("experts-v0")
    assert not (tmp_path / "datasets" / "experts-v0").exists()
    demos.to_minari("experts-v0")
    with pytest.raises(ValueError, match="already exists"):
        demos.to_minari("experts-v0")
    assert_equal(Demonstrations.from_minari("experts-v0"), demos)  # a second attempt leaves it as it is


def test_agents_in_another_order_keep_their_places():
    demos = small_demonstrations.make()
    dataset = demos.to_minari("experts-v0")
    assert Demonstrations.from_minari(dataset, agents=["agent_1", "agent_0"]).positions == (1, 0)
    turned = Demonstrations.mix({"agent_1": demos, "agent_0": demos})
    turned = Demonstrations(
        **{name: getattr(turned, name) for name in ("agents", "sizes", *ARRAYS)},
        metadata={**turned.metadata, "style": "concurrent"},
    )
    dataset = turned.to_minari("turned-v0")
    assert Demonstrations.from_minari(dataset).positions == (1, 0)
    assert Demonstrations.from_minari(dataset, agents=["agent_0", "agent_1"]).positions == (0, 1)
    assert "positions" not in Demonstrations.from_minari(dataset, agents=["agent_0", "agent_1"]).metadata


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    demos = small_demonstrations.make()
    with pytest.raises(ValueError, match="these demonstrations are shuffled; write the concurrent ones"):
        demos.shuffled(0).to_minari("experts-v0")
    with pytest.raises(ValueError, match=r"a name with a version, such as 'team/experts-v0', .* got 'experts'"):
        demos.to_minari("experts")
    with pytest.raises(ValueError, match="before a / must have two or more of them, got 'u/experts-v0'"):
        demos.to_minari("u/experts-v0")
    for name in ("red/0", "red\0", "red\ud800", "."):
        with pytest.raises(ValueError, match=re.escape(f"HDF5, which cannot be {name!r}")):
            unlike(agents=(name, "b", "c")).to_minari("experts-v0")
    assert not (tmp_path / "datasets" / "experts").exists()
    demos.to_minari("experts-v0")
    with pytest.raises(ValueError, match="already exists"):
        demos.to_minari("experts-v0")


def test_what_cannot_be_read_is_one_sentence():
    with pytest.raises(FileNotFoundError, match="there is no Minari data set 'no/such-v1' on this machine"):
        Demonstrations.from_minari("no/such-v1")
    with pytest.raises(TypeError, match="expected a Minari data set or its name, such as 'team/experts-v0', got int"):
        Demonstrations.from_minari(3)
    dataset = small_demonstrations.make().to_minari("experts-v0")
    dataset.storage.update_metadata({"dm2_wrappers": {"format_version": 2}})
    with pytest.raises(ValueError, match="'experts-v0' is of format version 2, but this version of dm2_wrappers reads 1"):
        Demonstrations.from_minari(dataset)


def test_on_the_command_line(tmp_path, capsys):
    demos, file, back = small_demonstrations.make(), tmp_path / "one.npz", tmp_path / "two.npz"
    demos.save(file)
    assert main(["to-minari", str(file), "team/experts-v0"]) == 0
    assert main(["from-minari", "team/experts-v0", str(back), "--env-id", "mine"]) == 0
    assert capsys.readouterr().out == (
        "team/experts-v0: 3 episodes, 9 steps\nnext: minari show team/experts-v0\n"
        f"{back}: 3 episodes of 2 agents\nnext: python -m dm2_wrappers.demonstrations info {back}\n"
    )
    read = Demonstrations.load(back)
    assert read.env_id == "mine"
    np.testing.assert_array_equal(read.padded_observations, demos.padded_observations)
    assert main(["from-minari", "no/such-v1", str(back)]) == 1
    assert "error: there is no Minari data set" in capsys.readouterr().err
