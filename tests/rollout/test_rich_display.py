"""An episode in a notebook: its frames and steps, as text whatever they are, and not without end."""

from html.parser import HTMLParser

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason

from .samples import config, failure, image_block, png, step, text_block, trajectory

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Which elements and attributes there are, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.handlers, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "href"]

    def handle_data(self, data):
        self.text += data


def flight(frames):
    steps = [step(n, text_block(f"height {n}"), image_block(png(n, 0, 0)), reward=1.0) for n in range(frames)]
    return trajectory("flight", steps, initial_state={"observation": [image_block(png(9, 9, 9))]})


def test_an_episode_shows_what_it_came_to_its_frames_and_its_steps():
    page = Page(flight(3)._repr_html_())
    for shown in (
        "flight",
        "reward 3",
        "seed 0: 3 steps, terminated",
        "start",
        "step 2 · Σ 3",
        "height 1",
        "lake_move(",
    ):
        assert shown in page.text
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_of_many_frames_the_first_the_last_and_some_between_are_shown():
    page = Page(flight(200)._repr_html_())
    assert len(page.sources) == 12
    assert "start" in page.text
    assert "step 199 · Σ 200" in page.text
    assert "and 150 more" in page.text


def test_what_an_episode_says_is_text():
    steps = [step(0, text_block(NASTY), {"type": "image", "mimeType": "image/png", "data": NASTY}, action=NASTY)]
    steps.append(step(1, {"type": "image", "mimeType": NASTY, "data": "aaaa"}, {"type": NASTY}))
    page = Page(trajectory(NASTY, steps, env=NASTY, error=NASTY)._repr_html_())
    assert not {"script", "a", "iframe"} & set(page.tags)
    assert (page.sources, page.handlers) == ([], [])
    assert NASTY in page.text


def test_a_page_of_the_largest_frames_and_texts_has_an_end():
    large = [
        step(n, text_block("x" * 100_000), {"type": "image", "mimeType": "image/png", "data": "A" * 2**20})
        for n in range(80)
    ]
    html = trajectory("large", large)._repr_html_()
    assert len(html) < 3 * 2**20
    assert "larger ones are left out" in html


def test_an_episode_that_failed_says_so():
    text = Page(failure("f", end_reason=EndReason.ENV_CRASHED)._repr_html_()).text
    assert "no reward" in text
    assert "env crashed, not valid" in text
    assert "the backend ended with exit status 1" in text


def test_an_episode_of_a_run_folder_has_its_images_again(tmp_path):
    with RunFolder.create(tmp_path / "run", config()) as writer:
        writer.append(flight(2))
    run = RunFolder(tmp_path / "run")
    [stored] = run.trajectories()
    assert len(Page(stored._repr_html_()).sources) == 1  # the first state stands in the row
    assert Page(run.whole(stored)._repr_html_()).sources == Page(flight(2)._repr_html_()).sources
