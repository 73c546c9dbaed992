"""Packages of others are used by what they offer, and declared with the versions that muxsim works with."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from test_architecture import MODULES, ROOT, imports, within

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"muxsim", "transports"}

# Private parts that are used all the same, each with its reason; those of a dependency with its upper bound too.
PRIVATE_PARTS: dict[tuple[str, str], str] = {
    # Whoever writes a VectorEnv is to call it: the form of infos is its business, and differs between revisions.
    ("muxsim.adapters.gymnasium_env", "self._add_info"): "gymnasium<2: the base class has it for its subclasses",
}
# Trainers, which those who train with them have: no extra could bring them with all that they need beside.
TRAINERS = {"nemo_gym", "resources_servers", "rllm", "verl"}
# What a named tuple offers, in spite of the underscore.
OFFERED = {"_replace", "_fields", "_asdict", "_make"}


def defined_names():
    """Every name that a module of ours gives to something: what may be used as ours."""
    found = set()
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
                found.add(node.attr)  # somebody else's does not become ours by being set
    return found


def is_self(node):
    return isinstance(node, ast.Name) and node.id == "self"


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_parts(name, ours):
    """The private modules, names and attributes of others' packages that a module uses."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if any(map(is_private, alias.name.split(".")))}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one for one in names if any(map(is_private, one.split("."))) and not within(one, *OURS)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in OFFERED:
            of_a_base = ast.unparse(node.value) == "super()" and not has_base_of_ours(name, node.attr)
            if of_a_base or node.attr not in ours:
                found.add(ast.unparse(node))
    return {one for one in found if one.partition(".")[0] not in sys.stdlib_module_names}


def has_base_of_ours(name, attribute):
    """Whether a class of ours that others may derive from has it: one that is not itself calling its base."""
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == attribute
        and f"super().{attribute}" not in ast.unparse(node)
        for node in ast.walk(MODULES[name])
    )


def test_nobody_uses_private_parts_of_others_packages_but_by_a_named_exception():
    ours = defined_names()
    used = {(name, part) for name in MODULES for part in private_parts(name, ours)}
    assert used == PRIVATE_PARTS.keys(), "a new one needs a public part, or a reason; one that is gone leaves the list"


def test_the_check_sees_every_private_part(monkeypatch):
    source = """
import uvicorn._types, trio
from mcp.shared import _context
from trio._core import Task
from muxsim.spec import _ours
class Mine(trio.abc.Clock):
    def _reset(self):
        self._kept = 1
        super()._reset()
        self.other._hidden = trio._core
        self._kept
        x.__class__
"""
    monkeypatch.setitem(MODULES, "muxsim.example", ast.parse(source))
    assert private_parts("muxsim.example", defined_names()) == {
        *("uvicorn._types", "mcp.shared._context", "trio._core.Task"),
        *("super()._reset", "self.other._hidden", "trio._core"),
    }


def test_an_exception_for_a_private_part_of_a_dependency_has_an_upper_bound():
    bounded = {text.partition(":")[0] for text in PRIVATE_PARTS.values() if "<" in text.partition(":")[0]}
    for bound in bounded:
        package, _, below = bound.partition("<")
        assert any(
            one.startswith(package) and one.endswith(f"<{below}")
            for lines in (PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"].values())
            for one in lines
        )


def requirement_names(lines):
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}


def test_what_is_imported_is_declared():
    """A package that comes with another one only may go with it."""
    project = PYPROJECT["project"]
    declared = requirement_names(
        [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    )
    imported = {one.partition(".")[0] for name in MODULES for one in imports(name)} - OURS - sys.stdlib_module_names
    imported -= TRAINERS
    imported -= {
        name.rpartition(".")[2] for name in MODULES
    }  # in an environment's interpreter, where they are no package
    packages = packages_distributions()
    missing = {one for one in imported if not declared & requirement_names(packages.get(one, [one]))}
    assert missing == set(), "declare it in pyproject.toml; what is declared has to be installed: scripts/setup --dev"


def test_every_dependency_has_a_lower_bound():
    lines = PYPROJECT["project"]["dependencies"]
    assert [line for line in lines if ">=" not in line] == []
