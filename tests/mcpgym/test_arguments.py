"""The quick way for plain annotations against pydantic's own, which it stands in for."""

import inspect
import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, PydanticUserError, ValidationError

from muxsim.mcpgym import InvalidArguments
from muxsim.mcpgym.arguments import any_arguments, arguments, plain_arguments

WORDS = st.sampled_from(["LEFT", "RIGHT", "", "1", "true", "é", '"', "a_b"])
# In one order: to the cache of typing.Required, which pydantic's way goes through, Literals of the same words are one.
ANNOTATIONS = st.sampled_from([bool, int, float, str]) | st.sets(WORDS, min_size=1, max_size=4).map(
    lambda words: Literal[tuple(sorted(words))]
)
NAMES = st.sampled_from(
    [
        "action",
        "_hidden",
        "schema",
        "copy",
        "model_config",
        "a_b__c",
        "x1",
        "camelCase",
        "HTTP_url",
        "größe",
        "__",
        "self",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just(2**70) | st.just("12")
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(WORDS, SCALARS, max_size=2)
DEFAULTS = st.just(inspect.Parameter.empty) | st.none() | st.integers() | WORDS

PARAMETERS = st.lists(
    st.builds(
        lambda name, annotation, default: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
        ),
        NAMES,
        ANNOTATIONS,
        DEFAULTS,
    ),
    max_size=4,
    unique_by=lambda parameter: parameter.name,
)


def parameter(annotation, **options):
    return inspect.Parameter("action", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, **options)


def outcome(validate, given_arguments):
    try:
        read = validate(given_arguments)
    except ValidationError as error:
        return [(item["type"], item["loc"], item["msg"]) for item in error.errors()]
    return repr(read)  # with its types, and nan like nan


@given(PARAMETERS, st.dictionaries(NAMES, VALUES, max_size=4), st.data())
@example([parameter(float)], {"action": float("nan")}, None)
@example([parameter(int)], {"action": 1.0}, None)
@example([], {}, None)
@example([], {"more": 1}, None)
def test_plain_arguments_are_described_and_read_as_pydantic_would(parameters, more, data):
    (quick, read_quickly), (schema, read) = plain_arguments(parameters), any_arguments(parameters)
    assert json.dumps(quick) == json.dumps(schema)
    values = {one.name: data.draw(VALUES) for one in parameters} if data else {}
    for given_arguments in (values, {**values, **more}, more):
        assert outcome(read_quickly, given_arguments) == outcome(read, given_arguments)


def test_words_are_listed_in_the_order_of_the_annotation():
    for words in (["B", "A"], ["A", "B"]):
        schema, _ = arguments([parameter(Literal[tuple(words)])])
        assert schema["properties"]["action"]["enum"] == words


@pytest.mark.parametrize(
    "annotation",
    [
        *(Any, inspect.Parameter.empty, object, bytes, list, list[str], dict[str, int], int | None, type(None)),
        *(Literal["A", 1], Literal[True], Literal[None], Annotated[int, Field(ge=1)], Annotated[str, "anything"]),
        *("int", type("Sub", (int,), {})),
    ],
)
def test_any_other_annotation_is_left_to_pydantic(annotation):
    assert plain_arguments([parameter(int), parameter(annotation)]) is None


def test_an_annotation_without_a_schema_is_an_error_when_the_tool_is_defined():
    with pytest.raises(PydanticUserError):
        arguments([parameter(type("Unknown", (), {}))])


@pytest.mark.parametrize("annotation", [str, list[str]])
def test_a_default_without_a_json_form_is_an_error_when_the_tool_is_defined(annotation):
    with pytest.raises(TypeError, match="no JSON form"):
        arguments([parameter(annotation, default=object())])


@pytest.mark.parametrize("annotation", [int, list[int]])
def test_what_does_not_fit_is_told_in_one_line(annotation):
    _, read = arguments([parameter(annotation)])
    with pytest.raises(InvalidArguments, match=r"^action: Input should be a valid [a-z]+$"):
        read({"action": {}})
