"""What is shown, logged and locked has no password in it."""

import os

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from muxsim.errors import PackageError
from muxsim.observe.events import InstallStarted
from muxsim.provision import packages
from muxsim.provision.conda import CondaPart
from muxsim.provision.conda_wishes import CondaWishes
from muxsim.provision.installer import telling_lines
from muxsim.provision.npm import NpmPart
from muxsim.provision.provider import Found
from muxsim.provision.secrets import without_secrets
from muxsim.spec import Dependencies, EnvSpec

words = st.text("abcXYZ019._-~%!$&*+,;=", min_size=1)
SECRET = "s3cr3t"
ADDRESS = f"https://bob:{SECRET}@127.0.0.1:9/cow-1-py3-none-any.whl"


@given(words, words, words, st.sampled_from(["https", "http", "git+https", "ssh", "HTTPS"]))
def test_no_password_stays_in_an_address_whatever_is_around_it(before, user, password, scheme):
    assert without_secrets(f"{before} {scheme}://{user}:{password}@host/a b") == f"{before} {scheme}://host/a b"
    assert without_secrets(f"{before} https://{password}@host/a") == f"{before} https://host/a"


@pytest.mark.parametrize(
    "text", ["git+ssh://git@host/a.git", "file:///a/b@1", "me@host", "@acme/lake@2", "a @ b", "x?y"]
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_tokens_in_paths_and_queries_go_too():
    assert without_secrets("https://host/t/abc/channel") == "https://host/channel"
    assert without_secrets("https://host/a.whl?sig=abc#egg=a") == "https://host/a.whl#egg=a"


async def test_a_password_is_no_part_of_what_others_see_of_an_environment_and_names_it_all_the_same(tmp_path):
    async def wanted(line):
        spec = EnvSpec(name="cow", command="python", cwd="/", dependencies=Dependencies(requirements=(line,)))
        return await packages.wanted_of(spec, {**os.environ, "MUXSIM_CACHE": str(tmp_path)})

    one, other = await wanted(f"cow @ {ADDRESS}"), await wanted("cow @ https://127.0.0.1:9/cow-1-py3-none-any.whl")
    ((part, _),) = one.parts
    assert SECRET not in repr((part.asked, part.terms, one.home))
    assert SECRET in repr(part.key)
    assert one.home != other.home


async def test_packages_of_npm_and_conda_show_no_password_either(tmp_path):
    npm = NpmPart(None, (f"git+{ADDRESS}",), "")
    assert SECRET not in repr((npm.asked, npm.terms))
    assert SECRET in repr(npm.key)
    assert await npm.pins(None, Found({})) == ""  # npm writes the address down, so there is nothing to lock
    conda = CondaPart(
        CondaWishes(specs=("cow",), channels=(f"https://bob:{SECRET}@host/c", f"https://host/t/{SECRET}/c")), ()
    )
    assert SECRET not in repr((conda.asked, conda.terms))


@pytest.mark.children
@pytest.mark.parametrize("by", ["a requirement", "an option", "a file"])
async def test_neither_the_log_nor_an_error_nor_an_event_of_an_install_has_the_password(tmp_path, by):
    file = tmp_path / "requirements.txt"
    file.write_text(f"--index-url https://bob:{SECRET}@127.0.0.1:9/simple\ncow\n")
    spec = {
        "a requirement": EnvSpec(
            name="cow", command="python", cwd="/", dependencies=Dependencies(requirements=(f"cow @ {ADDRESS}",))
        ),
        "an option": EnvSpec(
            name="cow", command="uvx", args=("--index-url", f"https://bob:{SECRET}@127.0.0.1:9/simple", "cow"), cwd="/"
        ),
        "a file": EnvSpec(
            name="cow", command="python", cwd="/", dependencies=Dependencies(requirements_file=str(file))
        ),
    }[by]
    told = []
    environ = {**os.environ, "MUXSIM_CACHE": str(tmp_path / "cache"), "UV_HTTP_RETRIES": "0"}
    with trio.fail_after(120), pytest.raises(PackageError) as caught:
        await packages.prepare(spec, environ, tell=told.append)
    assert any(isinstance(event, InstallStarted) for event in told)
    assert SECRET not in repr((str(caught.value), caught.value.output, told))
    (log,) = (tmp_path / "cache").glob("environments/*/build.log")
    assert "pip install" in log.read_text()
    assert SECRET not in log.read_text()
    assert not [path for path in (tmp_path / "cache").rglob("*") if SECRET in path.name]


def test_a_line_without_end_is_cut_in_an_error():
    (line,) = telling_lines(b"x" * 1_000_000)
    assert len(line) < 2000
