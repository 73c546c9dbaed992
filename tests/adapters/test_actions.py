"""What an agent may do, and the call that each action stands for."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from muxsim.adapters.actions import ActionError, ByStep, Listed

NUMBERS = st.integers(-20, 20)
WHOLE = st.one_of(
    NUMBERS, st.booleans(), NUMBERS.map(np.int64), NUMBERS.map(np.int8), NUMBERS.map(np.array), st.integers(2**62)
)
OTHER = st.one_of(
    st.none(), st.text(), st.floats(), st.floats().map(np.float64), st.booleans().map(np.bool_),
    NUMBERS.map(lambda number: np.array([number])), NUMBERS.map(lambda number: [number]),
)  # fmt: skip


@given(st.integers(1, 9), st.integers(-5, 5), WHOLE | OTHER)
def test_what_gymnasium_takes_for_an_action_stands_for_its_call_and_nothing_else_does(n, start, action):
    space = spaces.Discrete(n, start=start)
    names = [f"move {place}" for place in range(n)]
    for actions in (ByStep(space, "step", names), Listed(space, [("step", {"action": name}) for name in names])):
        if space.contains(action):
            assert actions.call_for(action) == ("step", {"action": names[int(action) - start]})
        else:
            with pytest.raises(ActionError, match="not in the action space"):
                actions.call_for(action)
