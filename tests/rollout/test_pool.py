"""A pool in the program's own process, on both loops."""

from __future__ import annotations

import anyio
import pytest

import muxsim

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "muxsim.toml"
    file.write_text('[environments.lake]\ncommand = "cat"\n')
    return file


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_an_exception_of_the_block_comes_out_as_itself(config, loop):
    async def fail():
        with anyio.fail_after(LIMIT):
            async with muxsim.open_pool(config):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(fail, backend=loop)


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_two_exceptions_come_out_together(config, loop):
    async def fail():
        with anyio.fail_after(LIMIT):
            async with muxsim.open_pool(config):
                raise BaseExceptionGroup("both", [ZeroDivisionError(), KeyError()])

    with pytest.raises(BaseExceptionGroup) as caught:
        anyio.run(fail, backend=loop)
    assert caught.group_contains(ZeroDivisionError)
    assert caught.group_contains(KeyError)


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_two_pools_are_open_in_one_loop(config, loop):
    async def main():
        with anyio.fail_after(LIMIT):
            async with muxsim.open_pool(config) as one, muxsim.open_pool(config) as other:
                assert one.environments == other.environments == ("lake",)

    anyio.run(main, backend=loop)
