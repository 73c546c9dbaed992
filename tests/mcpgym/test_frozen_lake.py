"""The example without its process: maps, and what the player reads."""

import importlib.util

import pytest

from .children import FROZEN_LAKE


@pytest.fixture
def lake():
    spec = importlib.util.spec_from_file_location("frozen_lake_server", FROZEN_LAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(content):
    return "\n".join(block.text for block in content)


def test_the_player_reads_the_grid_with_the_own_tile_in_brackets(lake):
    lake.server.start(seed=7)
    assert text(lake.server.observe()).splitlines() == [
        "[S] H  F  F",
        " F  H  F  H",
        " F  F  F  F",
        " F  F  F  G",
        "You are at row 0, column 0, on the start.",
    ]
    assert text(lake.lake_move("DOWN")).splitlines()[1:2] == ["[F] H  F  H"]


def test_the_edge_holds_the_player_back(lake):
    lake.server.start(seed=7)
    before = text(lake.server.observe())
    assert text(lake.lake_move("LEFT")) == text(lake.lake_move("UP")) == before


def test_falling_into_a_hole_ends_the_episode_without_a_reward(lake):
    lake.server.start(seed=7)
    assert text(lake.lake_move("RIGHT")).endswith("You are at row 0, column 1, on a hole.")
    assert (lake.server.control.terminated, lake.server.control.total_reward) == (True, 0.0)


def test_reaching_the_goal_earns_one_and_the_player_does_not_read_it(lake):
    lake.server.start(seed=7)
    for move in ("DOWN", "DOWN", "RIGHT", "RIGHT", "RIGHT"):
        lake.lake_move(move)
    last = text(lake.lake_move("DOWN"))
    assert last.endswith("You are at row 3, column 3, on the goal.")
    assert (lake.server.control.terminated, lake.server.control.reward) == (True, 1.0)
    assert "reward" not in last
    assert "1" not in last


def test_walking_in_circles_ends_as_truncated(lake):
    lake.server.start(seed=7)
    while not lake.server.control.ended:
        lake.lake_move("LEFT")
    assert (lake.server.control.truncated, lake.server.control.step) == (True, 100)


def test_the_seed_makes_the_map(lake):
    def drawn(seed):
        lake.server.start(seed)
        return text(lake.server.observe())

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(20)}) > 10


def test_the_size_is_an_option(lake):
    lake.server.parser.set_defaults(size=6)
    lake.server.start(seed=1)
    assert len(text(lake.server.observe()).splitlines()) == 7
