"""Policies compared on the same rows: what is paired, what is left out and said, and how surely."""

import io
import json
from math import comb

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import muxsim
from muxsim.cli.compare import show
from muxsim.cli.main import app
from muxsim.rollouts import Price, RunFolder
from muxsim.rollouts.data.comparison import Comparison, ComparisonError, compare
from muxsim.rollouts.data.estimates import sign_test
from muxsim.rollouts.data.trajectory import EndReason, Usage
from muxsim.rollouts.view.report import ReportError, write_comparison

from .samples import config, failure, trajectory


def played(*rewards, first=0, **changes):
    """An episode of each row with its reward; of several in a list."""
    made = []
    for place, given_rewards in enumerate(rewards, first):
        samples = given_rewards if isinstance(given_rewards, list) else [given_rewards]
        for sample, reward in enumerate(samples):
            name = f"row-{place}" if sample == 0 else f"row-{place}#{sample}"
            more = {"row": f"row-{place}", "sample": sample, "seed": place, "total_reward": reward}
            made.append(trajectory(name, **more, **changes))
    return made


def folder(path, *trajectories, **changes):
    with RunFolder.create(path, config(**changes)) as writer:
        for one in trajectories:
            writer.append(one)
        writer.finish(planned=len(trajectories))
    return path


def only(comparison):
    [difference] = comparison.differences
    return difference


def test_rows_are_paired_by_row_and_seed_and_what_one_run_alone_has_is_counted_and_left_out():
    one, other = played(0.0, 1.0, 5.0), played(1.0, 1.0, first=0) + played(9.0, first=7)
    told = only(compare(one, other))
    assert (told.pairs, told.only_first, told.only_second, told.paired_by) == (2, 1, 1, "row and seed")
    reward = told.figures["reward"]
    assert (reward.first, reward.second, reward.difference) == (0.5, 1.0, 0.5)
    assert (reward.more, reward.same, reward.less, reward.sign_test) == (1, 1, 0, 1.0)
    assert told.notes[:2] == [
        "1 row of run 1 is in no pair: the other run has not played it",
        "1 row of run 2 is in no pair: the other run has not played it",
    ]


def test_the_same_row_with_another_seed_is_no_pair():
    moved = [trajectory("row-0", row="row-0", seed=5, total_reward=1.0), *played(1.0, first=1)]
    assert only(compare(played(0.0, 0.0), moved)).pairs == 1


def test_runs_without_a_common_row_are_paired_by_seed_and_say_so():
    renamed = [trajectory("other", row="other", seed=0, total_reward=2.0)]
    told = only(compare(played(0.0), renamed))
    assert (told.paired_by, told.figures["reward"].difference) == ("seed", 2.0)
    assert "the runs have no row in common: environments and seeds are paired" in told.notes


def test_of_rows_that_were_played_several_times_the_means_are_paired_and_it_is_said():
    told = only(compare(played([0.0, 1.0], 0.0), played([1.0, 1.0, 1.0], 0.0)))
    assert (told.figures["reward"].difference, told.figures["reward"].pairs) == (0.25, 2)
    assert "rows were played several times: the means of their episodes are paired" in told.notes


def test_an_episode_that_is_not_valid_and_one_without_a_reward_are_left_out_and_never_0():
    broken = failure("row-1", row="row-1", seed=1)
    unscored = trajectory("row-2", row="row-2", seed=2, total_reward=None)
    told = only(compare(played(1.0, 1.0, 1.0), [*played(1.0), broken, unscored]))
    assert (told.figures["reward"].pairs, told.figures["reward"].difference) == (1, 0.0)
    assert told.figures["steps"].pairs == 2
    assert (told.figures["valid"].pairs, told.figures["valid"].second) == (3, pytest.approx(2 / 3))
    assert told.ends["env_crashed"].difference == pytest.approx(1 / 3)
    assert told.notes == [
        "1 of 3 episodes of run 2 is not valid and left out",
        "1 of 2 valid episodes of run 2 has no reward",
        "reward, success: over 1 of 3 pairs",
        "steps, tokens, seconds: over 2 of 3 pairs",
    ]


def test_a_run_that_was_killed_says_how_many_of_its_episodes_are_compared(tmp_path):
    whole, notes = played([0.0, 1.0], [0.0, 1.0]), {"rollouts": 2}
    one = folder(tmp_path / "one", *whole, notes=notes, rollouts_per_row=2)
    other = folder(tmp_path / "other", *whole[:3], notes=notes, rollouts_per_row=2)
    assert (
        "only 3 of the 4 episodes of other are on record: it was stopped, or is going on"
        in only(compare(one, other)).notes
    )
    assert not any("on record" in note for note in only(compare(one, one)).notes)


def test_no_figure_is_there_of_which_nobody_knows_anything():
    silent = {"usage": Usage()}
    told = only(compare(played(None, **silent), played(None, **silent)))
    assert set(told.figures) == {"steps", "seconds", "valid"}


def test_a_cost_is_made_of_tokens_and_the_prices_that_are_given_and_of_nothing_else():
    read = {"usage": Usage(prompt_tokens=1_000_000, completion_tokens=500_000, total_tokens=1_500_000)}
    one, other = played(0.0, **read), played(0.0, **read)
    assert "cost" not in only(compare(one, other)).figures
    both = compare(one, other, prices=Price(0.5, 2.0))
    assert [side.figures["cost"].mean for side in both.runs] == [1.5, 1.5]
    mixed = compare(one, other, prices=[Price(0.5, 2.0), None])
    assert "cost" not in only(mixed).figures
    silent = compare(one, played(0.0, usage=Usage()), prices=Price(1, 1))
    assert "run 2 has no cost: its episodes tell of no tokens" in only(silent).notes


def test_ends_are_shares_of_all_episodes():
    cut = played(0.0, 0.0, end_reason=EndReason.MAX_STEPS)
    told = only(compare(played(0.0, 0.0), cut))
    assert {name: change.difference for name, change in told.ends.items()} == {"terminated": -1.0, "max_steps": 1.0}


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_the_exact_two_sided_one(more, less):
    told, both = sign_test(more, less), more + less
    if not both:
        assert told is None
        return
    as_uneven = sum(comb(both, k) for k in range(both + 1) if abs(k - both / 2) >= abs(more - both / 2))
    assert told == pytest.approx(as_uneven / 2**both)


def test_the_sign_test_of_many_pairs_is_as_that_of_fewer():
    assert sign_test(520, 481) == pytest.approx(sign_test(520, 480), abs=0.02)
    assert sign_test(50_000, 50_000) == 1.0
    assert sign_test(0, 3000) < 1e-300


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_an_interval_lies_around_the_difference_and_within_those_of_the_pairs(gaps):
    change = only(compare(played(*[0.0] * len(gaps)), played(*gaps))).figures["reward"]
    low, high = change.interval
    assert min(gaps) - 1e-6 <= low <= high <= max(gaps) + 1e-6
    assert change.more + change.same + change.less == len(gaps)


def test_an_interval_holds_the_mean_difference_closer_than_the_runs_hold_their_means():
    noisy = [float(10 * (place % 7)) for place in range(40)]
    compared = compare(played(*noisy), played(*[reward + 1 for reward in noisy]))
    change = only(compared).figures["reward"]
    assert change.interval == (pytest.approx(1.0), pytest.approx(1.0))
    low, high = compared.runs[0].figures["reward"].interval
    assert high - low > 5


def test_what_differs_besides_the_policy_is_named_and_the_policy_is_not(tmp_path):
    one = folder(tmp_path / "one", *played(0.0), policy={"kind": "openai", "model": "a"})
    more = {"dataset_sha256": "e" * 64, "options": {"max_steps": 9}, "policy": {"kind": "openai", "model": "b"}}
    other = folder(tmp_path / "other", *played(0.0), **more)
    told = only(muxsim.compare(one, other))
    assert [line.partition(" was ")[0] for line in told.differs[:2]] == ["dataset_sha256", "options.max_steps"]
    assert "what frozen_lake consists of is not known of both runs" in told.differs
    assert not any("policy" in line for line in told.differs)


def test_runs_with_nothing_in_common_are_an_error_that_says_what_each_has(tmp_path):
    one = folder(tmp_path / "one", *played(0.0))
    other = folder(tmp_path / "other", *played(0.0, first=3, env="ring"), environments=("ring",))
    with pytest.raises(ComparisonError) as caught:
        compare(one, other)
    assert "one has 1 row of frozen_lake, the first with seed 0; other has 1 row of ring" in str(caught.value)
    assert 'environments was ["frozen_lake"], is ["ring"]' in str(caught.value)


@pytest.mark.parametrize(
    ("runs", "options", "words"),
    [
        ([played(0.0)], {}, "name two runs at least"),
        ([played(0.0), []], {}, "run 2 has no episode that has ended"),
        ([played(0.0), played(0.0)], {"names": ["a"]}, "2 runs need as many names"),
        ([played(0.0), played(0.0)], {"names": ["a", "a"]}, "each another"),
        ([played(0.0), played(0.0)], {"prices": [Price(1, 1)]}, "1 prices for 2 runs"),
    ],
)
def test_what_cannot_be_compared_is_an_error(runs, options, words):
    with pytest.raises(ComparisonError, match=words):
        compare(*runs, **options)


def test_a_run_is_told_from_another_of_the_same_name(tmp_path):
    one, other = folder(tmp_path / "a" / "run", *played(0.0)), folder(tmp_path / "b" / "run", *played(0.0))
    assert [side.name for side in compare(one, other).runs] == [str(one), str(other)]
    assert [side.name for side in compare(one, one).runs] == [f"{one} (1)", f"{one} (2)"]


def test_the_table_fits_into_80_columns(tmp_path):
    usage = {"usage": Usage(prompt_tokens=123_456, completion_tokens=7, total_tokens=123_463)}
    one, other = played(*[-123.456] * 30, **usage), played(*[float(n) for n in range(30)], **usage)
    compared = compare(one, other, names=["a name that is long", "another long one"], prices=Price(0.001, 0.001))
    console = Console(width=80, record=True, highlight=False, file=(tmp_path / "out").open("w"))
    show(compared, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    [header] = [line for line in lines if line.startswith("mean")]
    assert header.endswith("sign test")
    [reward] = [line for line in lines if line.startswith("reward")]
    assert reward.split()[-4:] == ["30", "0", "0", "<"] or reward.endswith("30 0 0   < 0.0001")


@pytest.mark.parametrize(
    "names",
    [("runs/policy (1)", "runs/policy (2)"), ("checkpoint-1000", "checkpoint-2000"), ("checkpoint-10", "checkpoint-1")],
)
def test_names_that_begin_alike_are_told_apart_in_the_head_of_the_table(names, tmp_path):
    console = Console(width=80, record=True, highlight=False, file=(tmp_path / "out").open("w"))
    show(compare(played(0.0), played(1.0), names=names), console)
    [header] = [line for line in console.export_text().splitlines() if line.startswith("mean")]
    first, second = header.partition("difference")[0].removeprefix("mean").strip().rsplit("  ", 1)
    assert first.strip() != second.strip()
    for name, shown in zip(names, (first, second), strict=True):
        assert name.endswith(shown.strip().lstrip("…"))


def test_the_command_prints_a_table_json_and_a_page(tmp_path):
    one, other = folder(tmp_path / "one", *played(0.0, 1.0)), folder(tmp_path / "other", *played(1.0, 1.0))
    run = CliRunner().invoke
    table = run(app, ["compare", str(one), str(other)])
    assert table.exit_code == 0
    assert "other against one: 2 pairs by row and seed" in table.stdout
    page = tmp_path / "page.html"
    told = run(app, ["compare", str(one), str(other), "--json", "--price", "1,2", "--page", str(page)])
    assert json.loads(told.stdout)["differences"][0]["figures"]["reward"]["difference"] == 0.5
    assert '<script type="application/json" id="runs">' in page.read_text()
    wrong = run(app, ["compare", str(one), str(other), "--price", "cheap"])
    assert (wrong.exit_code, "price = cheap" in wrong.stderr) == (2, True)


def test_a_page_is_made_of_the_folders_that_were_compared(tmp_path):
    one, other = folder(tmp_path / "one", *played(0.0)), folder(tmp_path / "other", *played(1.0))
    compared = compare(one, other)
    with pytest.raises(ReportError, match="all in order"):
        write_comparison(compared, [RunFolder(other), RunFolder(one)], tmp_path / "page.html")


@pytest.mark.parametrize(("one", "other"), [(1e308, -1e308), (-1e308, 1e308), (1e308, 1.0)])
def test_rewards_whose_sum_is_past_the_largest_number_are_compared(one, other):
    compared = compare(played(one, one, one), played(other, other, one))
    reward = compared.differences[0].figures["reward"]
    assert (reward.first, reward.pairs, reward.same) == (one, 3, 1)
    assert (reward.difference > 0) == (other > one)
    assert msgspec.json.decode(msgspec.json.encode(compared), type=Comparison) == compared
    console = Console(file=io.StringIO(), width=120)
    show(compared, console)
    assert "1e308" in console.file.getvalue()
