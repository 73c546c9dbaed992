import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from mcp_types import ImageContent, TextContent
from PIL import Image

from muxsim.mcpgym.observation import Observer, png, to_content

from .envs import Counter


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_without_words_of_the_author_the_agent_reads_json():
    [block] = Observer().content(np.array([1.0, 0.1], dtype=np.float32), Counter())
    assert block.text == "[1.0, 0.1]"


def test_the_author_may_describe_the_observation_in_words():
    observer = Observer(describe=lambda observation, env: f"{observation} of {type(env).__name__}")
    [block] = observer.content(3, Counter())
    assert block.text == "3 of Counter"
    assert observer.plain(3, Counter()) == "3 of Counter"


def test_an_image_is_the_rendered_frame_as_png():
    env = Counter(render_mode="rgb_array")
    env.count = 200
    [block] = Observer("image").content(None, env)
    assert (block.type, block.mime_type) == ("image", "image/png")
    np.testing.assert_array_equal(pixels(block.data), np.full((2, 3, 3), 200))


def test_an_image_is_scaled_to_the_size_that_is_asked_for():
    env = Counter(render_mode="rgb_array")
    env.count = 200
    [block] = Observer("image", frame_size=(6, 8)).content(None, env)
    np.testing.assert_array_equal(pixels(block.data), np.full((8, 6, 3), 200))
    [block] = Observer("image", frame_size=(6, 8)).resized((1, 1)).content(None, env)
    np.testing.assert_array_equal(pixels(block.data), np.full((1, 1, 3), 200))


def test_a_pixel_of_a_smaller_image_is_the_average_of_those_it_stands_for():
    frame = np.zeros((2, 4, 3), dtype=np.uint8)
    frame[:, 1::2] = 200
    scaled = np.asarray(Image.open(io.BytesIO(png(frame, (2, 1)))))
    np.testing.assert_array_equal(scaled, np.full((1, 2, 3), 100))


def test_text_and_image_come_together():
    observer = Observer("text+image", describe=lambda *_: "words")
    text, image = observer.content(0, Counter(render_mode="rgb_array"))
    assert (text.text, image.type) == ("words", "image")


def test_with_images_the_plain_form_is_the_content_itself():
    observer, env = Observer("image"), Counter(render_mode="rgb_array")
    [block] = observer.content(0, env)
    assert observer.plain(0, env) == [{"type": "image", "mimeType": "image/png", "data": block.data}]


def test_an_environment_that_renders_no_frames_is_refused_for_images():
    with pytest.raises(ValueError, match=r"render_mode='rgb_array', but its render_mode is None"):
        Observer("image").require_fit(Counter())
    Observer("image").require_fit(Counter(render_mode="rgb_array"))
    Observer("text").require_fit(Counter())


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"text, image, text\+image, not 'video'"):
        Observer("video")


@pytest.mark.parametrize(
    "frame",
    [None, np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)],
    ids=str,
)
def test_what_is_no_frame_is_an_error_that_says_so(frame):
    with pytest.raises(TypeError, match="a frame is uint8 of shape"):
        png(frame)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        ([], []),
        ("words", ["words"]),
        (TextContent(type="text", text="block"), ["block"]),
        (["a", TextContent(type="text", text="b")], ["a", "b"]),
        ({"x": np.int8(1)}, ['{"x": 1}']),
        ([1, 2], ["[1, 2]"]),
        (np.float64("nan"), ['"NaN"']),
        ("\ud800", ["?"]),
    ],
    ids=repr,
)
def test_what_a_tool_returns_becomes_content(value, texts):
    assert [block.text for block in to_content(value)] == texts


def test_an_image_block_passes_as_it_is():
    block = ImageContent(type="image", data="", mime_type="image/png")
    assert to_content(block) == [block]


@pytest.mark.children
@pytest.mark.parametrize("missing", ["gymnasium", "PIL"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(missing):
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from muxsim.mcpgym.observation import png\n"
        "import numpy; png(numpy.zeros((1, 1, 3), numpy.uint8))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "pip install 'mcp-muxsim[gym]'" in ended.stderr.splitlines()[-1]
