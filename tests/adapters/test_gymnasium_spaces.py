"""Whatever spaces an environment has, what comes through muxsim is what it gave, one by one and in vectors."""

import copy
import operator
from functools import partial

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from adapters.in_process import in_process
from muxsim.adapters.episodes import Exact
from muxsim.adapters.gymnasium_env import make, make_vec
from muxsim.mcpgym import GymServer
from muxsim.mcpgym.jsonable import to_json

# An example takes a server and its client: to make a failing one small would take minutes.
EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
LIMIT = 120
STEPS = 8


@st.composite
def boxes(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_]))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, max_side=3))
    low, high = (0, 1) if dtype in (np.uint8, np.bool_) else draw(st.sampled_from([(-3, 5), (0, 0), (-1, 1)]))
    return spaces.Box(low, high, shape, dtype)


DISCRETE = st.builds(
    lambda n, start, dtype: spaces.Discrete(n, start=start, dtype=dtype),
    st.integers(1, 9),
    st.integers(-5, 5),
    st.sampled_from([np.int64, np.int32, np.int8]),
)
MULTI_DISCRETE = st.builds(
    lambda nvec, start: spaces.MultiDiscrete(nvec, start=np.full(np.shape(nvec), start)),
    st.sampled_from([[2, 3], [[1, 4], [2, 2]], [5]]),
    st.integers(-3, 3),
)
MULTI_BINARY = st.sampled_from([spaces.MultiBinary(3), spaces.MultiBinary([2, 2])])
TEXT = st.sampled_from([spaces.Text(5), spaces.Text(3, min_length=0, charset="é$ \n"), spaces.Text(1, charset="ab")])
SIMPLE = boxes() | DISCRETE | MULTI_DISCRETE | MULTI_BINARY | TEXT
NAMES = st.sampled_from(["a", "b", "$", "position"])
NESTED = st.recursive(
    SIMPLE,
    lambda more: (
        st.dictionaries(NAMES, more, min_size=1, max_size=3).map(spaces.Dict)
        | st.lists(more, min_size=1, max_size=3).map(spaces.Tuple)
        | st.lists(more, min_size=1, max_size=2).map(spaces.OneOf)
        | more.map(spaces.Sequence)
    ),
    max_leaves=4,
)


class Chance(gymnasium.Env):
    """Anything may come of a step, and follows from the seed and the actions alone."""

    def __init__(self, action_space, observation_space):
        self.action_space, self.observation_space = action_space, observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._samples = copy.deepcopy(self.observation_space)
        self._samples.seed(int(self.np_random.integers(2**31)))
        return self._samples.sample(), self._info()

    def step(self, action):
        assert action in self.action_space
        self._action = copy.deepcopy(action)
        terminated, truncated = self.np_random.random() < 0.2, self.np_random.random() < 0.1
        reward = [1, 0.1, np.float32(0.1), np.int64(-3), self.np_random.standard_normal()][self.np_random.integers(5)]
        return self._samples.sample(), reward, bool(terminated), bool(truncated), self._info()

    def _info(self):
        """Not the same keys each time, so that vectors have something to mask."""
        every = {
            "number": float(self.np_random.random()),
            "whole": int(self.np_random.integers(100)),
            "flag": bool(self.np_random.random() < 0.5),
            "array": self.np_random.integers(0, 9, size=3, dtype=np.int16),
            "text": "é" * int(self.np_random.integers(3)),
            "nested": {"deep": float("inf"), "$": np.float32(self.np_random.random())},
        }
        return {key: value for key, value in every.items() if self.np_random.random() < 0.6}


class Told(gymnasium.Wrapper):
    """Says which action has come, which a vector has no array for."""

    def step(self, action):
        *rest, info = self.env.step(action)
        return (*rest, {**info, "action": plain(self.env._action), "tuple": (1, (), np.int8(2))})


def plain(element):
    """An element with arrays for all numbers: what has no sides Gymnasium has as either, by its type."""
    if isinstance(element, dict):
        return {key: plain(part) for key, part in element.items()}
    if isinstance(element, tuple):
        return tuple(plain(part) for part in element)
    return np.asarray(element) if isinstance(element, np.generic) else element


class Reseeded(gymnasium.Wrapper):
    """Begins each episode with a seed of its generator, as a session has to."""

    def reset(self, *, seed=None, options=None):
        if seed is None:
            seed = int(self._own.integers(2**31))
        else:
            self._own = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        return self.env.reset(seed=seed)


def through_muxsim(build, check):
    """Run a check, which is given a pool, where adapters of an open pool are used."""

    async def run():
        with anyio.fail_after(LIMIT):
            async with in_process(lambda: GymServer("kit", lambda seed: build())) as pool:
                await anyio.to_thread.run_sync(check, pool)

    anyio.run(run, backend="trio")


def assert_equal(theirs, ours):
    assert data_equivalence(theirs, ours, exact=True), (theirs, ours)


@EXAMPLES
@example(spaces.Discrete(2), spaces.Box(0, 1, (), np.uint8), 3)  # one of numpy's numbers, and no array without sides
@given(NESTED, NESTED, st.integers(0, 2**31))
def test_one_is_the_wrapped_environment_bit_for_bit(action_space, observation_space, seed):
    def build():
        return Told(Chance(copy.deepcopy(action_space), copy.deepcopy(observation_space)))

    def check(pool):
        theirs, ours = build(), make(pool, "kit")
        assert ours.action_space == action_space
        assert ours.observation_space == observation_space
        assert_equal(theirs.reset(seed=seed), ours.reset(seed=seed))
        actions = copy.deepcopy(action_space)
        actions.seed(seed)
        ended = False
        for _ in range(STEPS):
            if ended:
                seed_again = int(actions.np_random.integers(100))
                assert_equal(theirs.reset(seed=seed_again), ours.reset(seed=seed_again))
            action = actions.sample()
            expected, found = theirs.step(action), ours.step(action)
            assert_equal(expected, found)
            ended = expected[2] or expected[3]
        ours.close()

    through_muxsim(build, check)


@EXAMPLES
@given(NESTED, NESTED, st.integers(0, 2**31), st.sampled_from(AutoresetMode), st.integers(1, 3))
def test_a_vector_is_gymnasiums_own_of_the_wrapped_environments(action_space, observation_space, seed, mode, number):
    def build():
        return Chance(copy.deepcopy(action_space), copy.deepcopy(observation_space))

    def check(pool):
        theirs = SyncVectorEnv([lambda: Reseeded(build())] * number, autoreset_mode=mode)
        ours = make_vec(pool, "kit", num_envs=number, autoreset_mode=mode)
        assert (ours.action_space, ours.observation_space) == (theirs.action_space, theirs.observation_space)
        theirs.action_space.seed(seed)
        assert_go_alike(theirs, ours, seed, theirs.action_space.sample, STEPS)

    through_muxsim(build, check)


def assert_go_alike(theirs, ours, seed, drawn, steps):
    """Two vectors of one mode, from a reset with this seed on, with actions as they are drawn; both are closed then."""
    assert_same(theirs.reset(seed=seed), ours.reset(seed=seed))
    for _ in range(steps):
        actions = drawn()
        expected, found = theirs.step(actions), ours.step(actions)
        assert_same(expected, found)
        ended = operator.or_(*expected[2:4])
        if ours.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            again = [{"options": {"reset_mask": ended.copy()}} for _ in range(2)]
            assert_same(theirs.reset(**again[0]), ours.reset(**again[1]))
    ours.close()
    theirs.close()


def assert_same(theirs, ours):
    """Types, dtypes and values, the `_key` masks of infos and what they hide included."""
    assert type(theirs) is type(ours), (theirs, ours)
    if isinstance(theirs, dict):
        assert theirs.keys() == ours.keys()
        for key, value in theirs.items():
            assert_same(value, ours[key])
    elif isinstance(theirs, tuple | list) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        assert len(theirs) == len(ours)
        for one, other in zip(theirs, ours, strict=True):
            assert_same(one, other)
    else:
        assert getattr(theirs, "dtype", None) == getattr(ours, "dtype", None)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_of_gymnasiums_own_environment_is_what_make_vec_gives(mode):
    build = partial(gymnasium.make, "Blackjack-v1")

    def check(pool):
        theirs = gymnasium.make_vec(
            "Blackjack-v1",
            num_envs=3,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": mode},
            wrappers=[Reseeded],
        )
        ours = make_vec(pool, "kit", num_envs=3, autoreset_mode=mode)
        generator = np.random.default_rng(3)
        assert_go_alike(theirs, ours, 4, lambda: generator.integers(0, 2, size=3), 40)

    through_muxsim(build, check)


def test_what_kits_tell_that_know_no_types_are_elements_in_every_part():
    place = spaces.Box(-1, 1, (2,), np.float32)
    space = spaces.Dict({"place": place, "seen": spaces.Tuple([spaces.MultiBinary(2), spaces.Dict({"far": place})])})
    told = {"place": [0, 0.5], "seen": [[1, 0], {"far": [1, -1]}]}
    element = Exact(space).read([], {"observation": told})
    assert element in space
    assert to_json(element) == told


def test_an_element_of_other_parts_than_its_space_is_left_as_it_was_told():
    space = spaces.Dict({"two": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)])})
    told = {"two": [1], "more": [1, 2]}
    assert Exact(space).read([], {"observation": told}) == told
