"""`conda` and `channels` in an environment's table."""

import pytest

from .test_files import fault, folder, lake  # noqa: F401 - a fixture

LAKE = '[environments.lake]\ncommand = "server.py"\n'


@pytest.fixture
def file(folder):  # noqa: F811
    path = folder / "environment.yml"
    path.write_text("channels: [conda-forge]")
    return path


def test_an_environment_yml_is_found_beside_the_config(folder, file):  # noqa: F811
    spec = lake(folder, 'command = "server.py"\nconda = "environment.yml"\npython = "3.12"\n')
    wanted = spec.dependencies
    assert (wanted.conda_file, wanted.conda, wanted.python) == (str(file), (), "3.12")
    assert (spec.command, spec.args) == ("python", (str(folder / "server.py"),))
    assert wanted.has_python


def test_specs_are_of_their_channels_of_which_folders_go_from_the_config(folder):  # noqa: F811
    table = 'conda = ["python=3.12", "numpy >=2"]\nchannels = ["conda-forge", "./mine", "https://x/y"]\n'
    wanted = lake(folder, f'command = "solve"\n{table}').dependencies
    assert wanted.conda == ("python=3.12", "numpy >=2")
    assert wanted.channels == ("conda-forge", (folder / "mine").as_uri(), "https://x/y")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('conda = "no.yml"', 'conda = "no.yml": names no file, for there is no '),
        ('conda = ["numpy"]', "has no channels to ask: write channels, such as"),
        ('conda = ["numpy", ""]\nchannels = ["x"]', "a spec of a conda package"),
        ("conda = 3", "must be the path of an environment.yml, or a list of specs"),
        ('channels = ["x"]', "are where conda packages come from: name some under conda"),
        ('conda = ["numpy"]\nchannels = "x"', "must be a list of conda channels"),
        (
            'conda = ["numpy"]\nchannels = ["x"]\npython = "/usr/bin/python3"',
            "names an interpreter, and conda brings its own",
        ),
    ],
)
def test_what_makes_no_conda_environment_is_named(folder, table, said):  # noqa: F811
    assert said in fault(folder, f"{LAKE}{table}\n")


def test_npx_and_requirements_go_into_one_environment_of_conda(folder):  # noqa: F811
    table = 'conda = ["nodejs=22"]\nchannels = ["x"]\nrequirements = ["numpy"]\npackages = ["zod@3"]\n'
    wanted = lake(folder, f'command = "npx"\nargs = ["-y", "semver"]\n{table}').dependencies
    assert (wanted.conda, wanted.requirements, wanted.packages) == (("nodejs=22",), ("numpy",), ("zod@3",))
