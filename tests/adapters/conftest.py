from contextlib import ExitStack

import pytest


@pytest.fixture
def new():
    """Makes environments, which are closed at the end whatever happens; closing one twice is harmless."""
    with ExitStack() as stack:

        def build(maker, *args, **options):
            env = maker(*args, **options)
            stack.callback(env.close)
            return env

        yield build
