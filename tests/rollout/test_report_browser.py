"""The report in a real browser: what a person sees, and that nothing an episode says can act there."""

import json
from contextlib import asynccontextmanager

import pytest
import trio
from e2e.chromium import chromium

from muxsim.rollouts.data.comparison import compare
from muxsim.rollouts.data.kept_files import KeptFile
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason, StageTimes
from muxsim.rollouts.view.report import write_comparison, write_report

from .samples import config, failure, image_block, image_part, png, step, text_block, trajectory

pytestmark = [pytest.mark.children, pytest.mark.browser]

# Seconds.
DEADLINE = 60

# Resolves when an expression has become true.
UNTIL = """new Promise((resolve) => {
  const look = () => ((%s) ? resolve(true) : setTimeout(look, 10));
  look();
})"""
EPISODES_SHOWN = "[...document.querySelectorAll('tbody tr .name')].map((cell) => cell.textContent)"
CURRENT = "document.querySelector('.cell[aria-current] .tick').textContent"


def text_of(selector):
    return f"document.querySelector({json.dumps(selector)}).innerText"


@asynccontextmanager
async def report(tmp_path, *trajectories, **changes):
    """A tab with the report of a run."""
    with RunFolder.create(tmp_path / "run", config(**changes)) as writer:
        for one in trajectories:
            writer.append(one)
        writer.finish(planned=len(trajectories))
    async with opened(tmp_path, write_report(RunFolder(tmp_path / "run"))) as page:
        yield page


@asynccontextmanager
async def opened(tmp_path, file):
    """A tab with a page."""
    profile = tmp_path / "profile"
    profile.mkdir()
    failures = []
    with trio.fail_after(DEADLINE), (tmp_path / "chromium.log").open("wb") as log:
        async with chromium(profile, log) as browser:
            try:
                page = await browser.open(file.as_uri())
                await until(page, "document.querySelector('h1')")
                yield page
            except Exception as error:
                failures.append(error)
        # The browser's end cancels whatever is under way in its block, so a failure is raised only behind it.
        await trio.lowlevel.checkpoint_if_cancelled()
    for error in failures:
        raise error


async def press(page, key):
    for kind in ("keyDown", "keyUp"):
        await page.ask("Input.dispatchKeyEvent", {"type": kind, "key": key})


async def until(page, expression):
    """Wait until a JavaScript expression is true."""
    assert await page.evaluate(UNTIL % expression)


async def heading(page, text):
    """Wait for the page with this heading."""
    await until(page, f"document.querySelector('h1')?.textContent === {json.dumps(text)}")


async def go(page, id):
    """Go to an episode."""
    await page.evaluate(f"void (location.hash = encodeURIComponent({json.dumps(id)}))")
    await heading(page, id)


def flight(id="flight"):
    frames = [png(40 * index, 0, 90, size=64) for index in range(4)]
    first, *later = frames
    steps = [
        step(index, text_block(f"height {3 - index}"), image_block(frame), reward=index - 1.0)
        for index, frame in enumerate(later)
    ]
    episode = trajectory(id, steps, env="lunar_lander")
    episode.initial_state = {"observation": [text_block("height 4"), image_block(first)], "info": {}, "seed": 0}
    for place, frame in zip((4, 7, 10), later, strict=True):
        episode.messages.insert(place, {"role": "user", "content": [image_part(frame)]})
    return episode


async def test_the_overview_shows_the_run_and_its_episodes(tmp_path):
    episodes = [
        trajectory("a"),
        trajectory("b", total_reward=-2.5, end_reason=EndReason.MAX_STEPS),
        failure("c"),
        flight(),
    ]
    async with report(tmp_path, *episodes, policy={"kind": "openai", "model": "small"}) as page:
        assert await page.evaluate(text_of("h1")) == "run"
        top = await page.evaluate("document.body.innerText")
        for shown in ("openai · small", "complete", "1 failed, 3 valid", "frozen_lake", "lunar_lander", "env crashed"):
            assert shown in top
        assert await page.evaluate(EPISODES_SHOWN) == ["a", "b", "c", "flight"]
        # A mark for each episode: three with a reward, one without.
        assert await page.evaluate("document.querySelectorAll('.point').length") == 3
        assert await page.evaluate("document.querySelectorAll('.cross').length") == 1


async def test_episodes_can_be_sorted_and_filtered(tmp_path):
    episodes = [
        trajectory("a", total_reward=1.0),
        trajectory("b", total_reward=-2.5, end_reason=EndReason.MAX_STEPS),
        failure("c"),
        trajectory("d", total_reward=3.0, env="ring"),
    ]
    sort = "[...document.querySelectorAll('th button')].find((one) => one.textContent.startsWith('Reward')).click()"
    choose = """((name, value) => {
      const select = document.querySelector(`select[aria-label="${name}"]`);
      select.value = value;
      select.dispatchEvent(new Event('change'));
    })"""
    async with report(tmp_path, *episodes) as page:
        await page.evaluate(sort)
        assert await page.evaluate(EPISODES_SHOWN) == ["d", "a", "b", "c"]
        await page.evaluate(sort)
        assert await page.evaluate(EPISODES_SHOWN) == ["b", "a", "d", "c"]
        await page.evaluate(f"{choose}('Environment', 'frozen_lake')")
        assert await page.evaluate(EPISODES_SHOWN) == ["b", "a", "c"]
        await page.evaluate(f"{choose}('End', 'failed')")
        assert await page.evaluate(EPISODES_SHOWN) == ["c"]
        await page.evaluate(f"{choose}('End', '')")
        await press(page, "/")
        await page.ask("Input.insertText", {"text": "max steps"})
        assert await page.evaluate(EPISODES_SHOWN) == ["b"]
        # Coming back from an episode finds the list as it was left.
        await go(page, "b")
        await press(page, "Escape")
        await heading(page, "run")
        assert await page.evaluate(EPISODES_SHOWN) == ["b"]


async def test_an_episode_shows_each_step_and_apart_from_it_what_the_agent_could_not_see(tmp_path):
    async with report(tmp_path, trajectory("a")) as page:
        await go(page, "a")
        seen = await page.evaluate("[...document.querySelectorAll('.seen')].map((cell) => cell.innerText).join('\\n')")
        unseen = await page.evaluate(
            "[...document.querySelectorAll('.unseen')].map((cell) => cell.innerText).join('\\n')"
        )
        assert "You are on a frozen lake." in seen
        assert 'lake_move(action: "RIGHT")' in seen
        assert "you are at 2" in seen
        assert "terminated" in unseen
        assert "+1" in unseen
        for hidden in ("terminated", "+1", "prob"):
            assert hidden not in seen


async def test_a_flight_is_played_with_the_keyboard(tmp_path):
    async with report(tmp_path, flight()) as page:
        await go(page, "flight")
        assert await page.evaluate("document.querySelectorAll('.strip img').length") == 4
        sources = []
        for key, current, said in (
            (None, "start", "height 4"),
            ("ArrowRight", "0", "height 3"),
            ("ArrowRight", "1", "height 2"),
            ("ArrowLeft", "0", "height 3"),
            ("End", "2", "height 1"),
            ("ArrowRight", "2", "height 1"),
            ("Home", "start", "height 4"),
        ):
            if key is not None:
                await press(page, key)
            assert await page.evaluate(CURRENT) == current
            assert await page.evaluate(text_of(".said")) == said
            sources.append(await page.evaluate("document.querySelector('.screen img').src"))
        assert sources[1] == sources[3]
        assert len(set(sources)) == 4
        assert await page.evaluate("document.querySelector('.screen img').decode().then(() => 1)") == 1
        # The frames that a model was sent once more are not shown once more.
        assert await page.evaluate("document.querySelectorAll('.story img').length") == 3


# It may be over before anybody looks.
SEES_PAUSE = """
    window.seen = false;
    new MutationObserver(() => { seen ||= document.querySelector('[aria-label=Pause]') !== null })
        .observe(document.body, { subtree: true, childList: true, attributes: true }); 0
"""


async def test_a_flight_plays_by_itself_and_stops_at_its_end(tmp_path):
    async with report(tmp_path, flight()) as page:
        await go(page, "flight")
        await page.evaluate(SEES_PAUSE)
        await press(page, " ")
        await until(page, f"{CURRENT} === '2' && document.querySelector('[aria-label=Play]') && seen")


async def test_a_failure_shows_its_error_and_stderr(tmp_path):
    async with report(tmp_path, failure("b"), trajectory("c")) as page:
        await go(page, "b")
        alert = await page.evaluate(text_of(".alert"))
        assert "The episode failed: env crashed" in alert
        assert "the backend ended with exit status 1" in alert
        assert "ZeroDivisionError: division by zero" in alert
        await press(page, "j")
        await heading(page, "c")


HOSTILE = (
    '</script><script>window.owned = 1</script><img src="x" onerror="window.owned = 1">'
    '<svg onload="window.owned = 1"><a href="javascript:window.owned = 1">"\'`${window.owned = 1}'
)


async def test_nothing_that_an_episode_says_acts_on_the_page(tmp_path):
    remote = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    script_url = {"type": "image_url", "image_url": {"url": 'data:image/png;base64,AA" onerror="window.owned = 1'}}
    other_file = {"type": "image", "mimeType": "image/png", "path": "../../secret.png"}
    hostile_step = step(0, text_block(HOSTILE), other_file, action=HOSTILE, reward=None, is_error=True)
    episode = trajectory(
        HOSTILE,
        [hostile_step],
        env=HOSTILE,
        session=HOSTILE,
        error=HOSTILE,
        stderr=[HOSTILE],
        info={HOSTILE: HOSTILE},
        initial_state={"observation": HOSTILE},
        evaluation_criteria=HOSTILE,
    )
    episode.messages += [{"role": HOSTILE, "content": HOSTILE}, {"role": "user", "content": [remote, script_url]}]
    elements = "[...document.querySelectorAll('body *')].map((one) => one.tagName.toLowerCase())"
    async with report(tmp_path, episode, policy={"kind": HOSTILE}, dataset=HOSTILE) as page:
        scripts = await page.evaluate("document.scripts.length")
        for name in ("run", HOSTILE):
            if name == HOSTILE:
                await go(page, HOSTILE)
                assert HOSTILE in await page.evaluate(text_of(".alert"))
                assert HOSTILE in await page.evaluate(text_of(".story"))
            assert await page.evaluate(text_of("h1")) == name
            assert await page.evaluate("window.owned === undefined")
            assert await page.evaluate("document.scripts.length") == scripts
            assert "img" not in await page.evaluate(elements)
            assert (
                await page.evaluate("document.querySelectorAll('a[href^=javascript], [onload], [onerror]').length") == 0
            )
        # Nothing was asked of anybody.
        assert await page.evaluate("performance.getEntriesByType('resource').length") == 0


async def test_a_run_of_five_thousand_episodes_opens(tmp_path):
    episodes = [trajectory(f"lake-{seed}", seed=seed) for seed in range(5000)]
    async with report(tmp_path, *episodes) as page:
        assert await page.evaluate("document.querySelectorAll('tbody tr').length") == 200
        assert await page.evaluate("document.querySelectorAll('.point').length") == 5000
        more = "[...document.querySelectorAll('button')].find((one) => one.textContent.startsWith('Show 200')).click()"
        await page.evaluate(more)
        assert await page.evaluate("document.querySelectorAll('tbody tr').length") == 400
        await go(page, "lake-4999")


async def test_a_run_without_episodes_is_shown(tmp_path):
    async with report(tmp_path) as page:
        assert "No episode is like that." in await page.evaluate("document.body.innerText")


async def test_the_page_is_light_or_dark_as_its_reader_likes(tmp_path):
    background = "getComputedStyle(document.body).backgroundColor"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    async with report(tmp_path, trajectory("a")) as page:
        light = await page.evaluate(background)
        await page.ask("Emulation.setEmulatedMedia", dark)
        await until(page, f"{background} !== {json.dumps(light)}")
        await page.evaluate("document.querySelector('[title=\"Light or dark\"]').click()")
        assert await page.evaluate(background) == light


GROUP_NAMES = "[...document.querySelectorAll('.groups tbody .name')].map((cell) => cell.textContent)"
EPISODE_IDS = (
    "[...document.querySelectorAll('section:not(.groups) tbody .name')].map((cell) => cell.textContent).sort()"
)


async def test_groups_are_shown_best_or_worst_first_and_lead_to_their_episodes(tmp_path):
    given = [("a#0", 0.0), ("a#1", 1.0), ("b#0", 1.0), ("b#1", 1.0), ("c#0", None), ("c#1", -1.0)]
    async with report(tmp_path, *(trajectory(id, total_reward=reward) for id, reward in given)) as page:
        assert await page.evaluate(GROUP_NAMES) == ["b", "a", "c"]
        assert "pass@2" in await page.evaluate(text_of(".tiles"))
        await page.evaluate("document.querySelector('.groups .button').click()")
        assert await page.evaluate(GROUP_NAMES) == ["c", "a", "b"]
        await page.evaluate("document.querySelectorAll('.groups tbody tr')[1].click()")
        assert await page.evaluate(EPISODE_IDS) == ["a#0", "a#1"]
        await page.evaluate("document.querySelector('.tools .button[title=\"Show all rows again\"]').click()")
        assert len(await page.evaluate(EPISODE_IDS)) == 6


async def test_episodes_are_filtered_by_their_reward(tmp_path):
    given = [("a", 0.0), ("b", 0.5), ("c", 1.0), ("d", None)]
    async with report(tmp_path, *(trajectory(id, total_reward=reward) for id, reward in given)) as page:
        for bound, value, left in (("at least", "0.5", ["b", "c"]), ("at most", "0.75", ["b"])):
            box = f"document.querySelector('input[aria-label=\"Reward {bound}\"]')"
            await page.evaluate(f"void ({box}.value = {value!r}, {box}.dispatchEvent(new Event('input')))")
            assert await page.evaluate(EPISODE_IDS) == left


async def test_what_was_throttled_has_its_place_in_the_time_of_the_run_and_of_an_episode(tmp_path):
    times = StageTimes(start=1.0, model=3.0, throttled=2.0)
    shares = "[...document.querySelector('.bar:has(.k4)').children].map((one) => Number(one.style.flexGrow))"
    async with report(tmp_path, trajectory("a", times=times), trajectory("b", times=times)) as page:
        assert "of it throttled" in await page.evaluate("document.body.innerText")
        assert await page.evaluate(shares) == [25, 25, 50]
        await go(page, "a")
        assert "of it throttled" in await page.evaluate("document.body.innerText")
        assert await page.evaluate(shares) == [25, 25, 50]


async def test_what_a_reader_has_to_know_of_an_episode_is_on_its_page(tmp_path):
    steps = [step(0, control=False)]
    steps[0].content, steps[0].structured = [], {"door": "open"}
    told = trajectory("a", steps, scores={"format": 0.5}, error="KeyError: 'x'", traceback="Traceback: in mine.py")
    told.messages.append({"role": "assistant", "content": "", "metadata": {"finish_reason": "length"}})
    async with report(tmp_path, told) as page:
        await go(page, "a")
        text = await page.evaluate("document.body.innerText")
        assert '"door": "open"' in text
        assert "Traceback: in mine.py" in text
        assert "length" in text
        assert "0.5" in text


async def test_kept_files_are_linked_where_a_browser_only_shows_them(tmp_path):
    files = [
        KeptFile(path=path, file=f"files/a/{path}", size=len(path), sha256="0" * 64)
        for path in ("out/plot 100%25.png", "evil.html", "x.svg", "<b>.txt")
    ]
    episode = trajectory("a", files=files, files_problem="b.png is a link, which is not followed")
    async with report(tmp_path, episode) as page:
        await page.evaluate("location.hash = '#a'")
        await until(page, "document.querySelector('.files')")
        links = "[...document.querySelectorAll('.files a')].map((one) => [one.textContent, one.getAttribute('href')])"
        assert await page.evaluate(links) == [
            ["out/plot 100%25.png", "./files/a/out/plot%20100%2525.png"],
            ["<b>.txt", "./files/a/%3Cb%3E.txt"],
        ]
        shown = await page.evaluate(text_of(".files"))
        assert "evil.html" in shown
        assert "Not kept: b.png is a link, which is not followed" in shown


async def test_a_comparison_shows_each_run_against_the_first_its_curves_and_the_episodes_of_all(tmp_path):
    folders = []
    for name, rewards, most in (("small", (0.0, 1.0), 50), ("large", (1.0, 1.0), 9)):
        with RunFolder.create(tmp_path / name, config(options={"max_steps": most})) as writer:
            for seed, reward in enumerate(rewards):
                steps = [step(0, image_block(png(seed, 0, 0))), step(1, reward=reward, terminated=True)]
                writer.append(trajectory(f"lake-{seed}", steps, seed=seed))
            writer.finish(planned=2)
        folders.append(RunFolder(tmp_path / name))
    file = write_comparison(compare(*folders), folders, tmp_path / "page.html")
    async with opened(tmp_path, file) as page:
        text = await page.evaluate("document.querySelector('.against').innerText")
        for shown in ("large against small", "2 pairs by row and seed", "+0.5", "options.max_steps was 50, is 9"):
            assert shown in text
        assert await page.evaluate("document.querySelectorAll('polyline.course').length") == 4
        await page.evaluate("document.querySelector('.against a').click()")
        await heading(page, "The difference of two runs")
        # Both runs have an episode of this name: each opens its own.
        await page.evaluate("void (location.hash = '#/2/lake-0')")
        await heading(page, "lake-0")
        await until(page, "document.querySelector('.reward') && document.querySelector('img[src^=\"data:\"]')")
        assert "large" in await page.evaluate("document.title")
