"""The agents' names on SMAC's maps."""

from __future__ import annotations

import pytest

from dm2_wrappers.envs.smac import units as smac_units
from tests.helpers.smac_double import MAPS
from tests.helpers.smac_envs import make


def test_names_count_within_a_type_wherever_its_units_stand():
    assert smac_units.number(["marine", "medivac", "marine", "medivac"]) == (
        "marine_0",
        "medivac_0",
        "marine_1",
        "medivac_1",
    )


@pytest.mark.parametrize(
    ("map_name", "map_type", "n", "expected"),
    [
        ("5m_vs_6m", "marines", 5, "marine marine marine marine marine"),
        ("3s_vs_4z", "stalkers", 3, "stalker stalker stalker"),
        ("2s3z", "stalkers_and_zealots", 5, "stalker stalker zealot zealot zealot"),
        ("1c3s5z", "colossi_stalkers_zealots", 9, "colossus stalker stalker stalker" + " zealot" * 5),
        ("MMM2", "MMM", 10, "marauder marauder" + " marine" * 7 + " medivac"),
        ("bane_vs_bane", "bane", 24, "baneling " * 4 + "zergling " * 20),
        ("2s3z", "stalkers_and_zealots", 6, "agent " * 6),  # another map of that name
        ("my_map", "stalkers_and_zealots", 2, "agent agent"),
        ("my_map", "my_type", 2, "agent agent"),
    ],
)
def test_unit_types_of_maps(map_name, map_type, n, expected):
    assert smac_units.ally_types(map_name, map_type, n) == expected.split()


def test_agents_are_named_before_starcraft_runs():
    env = make("2s3z")
    assert env.possible_agents == ["stalker_0", "stalker_1", "zealot_0", "zealot_1", "zealot_2"]
    assert env.game.starts == 0
    env.reset()
    # The game's units are in another order; SMAC sorts them by type, as the names have them.
    assert [env.game.smac.agents[k].unit_type for k in range(5)] == [2005, 2005, 2006, 2006, 2006]
    assert make("mine").possible_agents == ["agent_0", "agent_1"]
    mine = make("mine")
    mine.reset()


def test_units_of_other_types_than_the_names_say_are_refused(monkeypatch):
    monkeypatch.setitem(MAPS["2s3z"], "allies", [2005, 2006, 2006, 2006, 2006])
    env = make("2s3z")
    with pytest.raises(RuntimeError, match=r"units are stalker_0, zealot_0.*but stalker_0, stalker_1"):
        env.reset()
    assert env.agents == []
