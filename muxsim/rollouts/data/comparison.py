"""What policies came to on the same rows: each run beside the first, paired by row and seed, and how surely.

What several episodes of a row came to is their mean, and pairs are what is drawn again for an interval: rows differ
more than episodes of one. What nobody knows (a reward, a model's tokens) is left out and counted as left out.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.estimates import Interval, intervals_of_ratios, mean, sign_test, succeeded
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import Trajectory

FIGURES: Final = ("reward", "success", "steps", "tokens", "cost", "seconds", "valid")
_PRICED: Final = 1_000_000
_MOST_DIFFERENCES: Final = 8
# Below this, the difference of two means of the same numbers is that of their rounding.
_SAME: Final = 1e-9
# Two numbers may be further apart than the largest that there is.
_MOST: Final = sys.float_info.max
_END: Final = "end "

# A row of an environment, and its seed; of runs without a common row "" for the row.
Key = tuple[str, str, int]
# What is known of an episode, or of several as means, by the names of figures.
Values = Mapping[str, float]


class ComparisonError(MuxsimError):
    """Runs cannot be compared. The message names them, and says how they differ."""


class Price(msgspec.Struct, frozen=True):
    """What a million tokens cost, of those that a model reads and of those that it writes, in any one currency."""

    input: float
    output: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) and one >= 0 for one in (self.input, self.output)):
            raise ComparisonError(f"a price is a number from 0 up: {self.input:g},{self.output:g}")


class Figure(msgspec.Struct, kw_only=True):
    """The mean over so many ``episodes``, and its interval of 95 %; of an end the share of episodes."""

    mean: float
    interval: Interval | None
    episodes: int


class Side(msgspec.Struct, kw_only=True):
    """One run: ``valid`` of its ``episodes`` say something of the policy, ``scored`` of these have a reward.

    ``figures`` are those of `FIGURES` that are known: reward and success of scored episodes, steps, tokens, cost and
    seconds of valid ones, ``valid`` of all. ``ends`` are the end reasons of all.
    """

    name: str
    path: str | None
    policy: dict[str, Any]
    rows: int
    episodes: int
    valid: int
    scored: int
    price: Price | None
    figures: dict[str, Figure]
    ends: dict[str, Figure]
    end_reasons: dict[str, int]


class Change(msgspec.Struct, kw_only=True):
    """A figure in two runs, over the ``pairs`` in which both know it: the means, and that of the differences.

    In ``more`` pairs the second has more of it than the first. ``sign_test`` is how likely as uneven a split would be
    if both were as likely: two-sided, without the pairs that are the ``same``, None where all are.
    """

    pairs: int
    first: float
    second: float
    difference: float
    interval: Interval | None
    more: int
    same: int
    less: int
    sign_test: float | None


class Difference(msgspec.Struct, kw_only=True):
    """How the run ``second`` differs from ``first``, by name, over the ``pairs`` of rows that both have played.

    ``paired_by`` is ``row and seed``, or ``seed`` where they have no row in common. ``differs`` is what else than the
    policy is not the same; ``notes`` are what a reader of the figures has to know.
    """

    first: str
    second: str
    paired_by: str
    pairs: int
    only_first: int
    only_second: int
    figures: dict[str, Change]
    ends: dict[str, Change]
    differs: list[str]
    notes: list[str]


class Comparison(msgspec.Struct, kw_only=True):
    """Runs, and how each differs from the first. ``notes`` hold for all of them."""

    runs: list[Side]
    differences: list[Difference]
    success_reward: float | None
    notes: list[str]

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(side.name for side in self.runs)}>"


Source = RunFolder | str | os.PathLike[str] | Iterable[Trajectory]


def compare(
    *runs: Source,
    names: Sequence[str] = (),
    prices: Price | Sequence[Price | None] | None = None,
    success_reward: float | None = None,
) -> Comparison:
    """Compare runs with the first of them: their folders, or trajectories as `rollout` returns them.

    ``names`` are what they are called, else their folders' names. ``prices`` are those of a million tokens, one for all
    runs or one for each; a run without has no cost. ``success_reward`` is the least reward that is a success, else what
    the runs say. Raises `ComparisonError`: they have no row and no seed in common, or no episode; and `RunError`.
    """
    if len(runs) < 2:
        raise ComparisonError("name two runs at least: the first is what the others are compared with")
    given = [_Given.of(run) for run in runs]
    for one, name in zip(given, _names(given, names), strict=True):
        one.name = name
    notes: list[str] = []
    threshold = _threshold(given, success_reward, notes)
    of_each = [prices] * len(given) if isinstance(prices, Price | None) else list(prices)
    if len(of_each) != len(given):
        raise ComparisonError(f"{len(of_each)} prices for {len(given)} runs: give one for all, or one for each")
    for one, price in zip(given, of_each, strict=True):
        one.price = price
        one.read(threshold)
    first, *others = given
    return Comparison(
        runs=[one.side() for one in given],
        differences=[_difference(first, other) for other in others],
        success_reward=threshold,
        notes=notes,
    )


class _Given:
    """A run, and the numbers of its episodes."""

    def __init__(self, trajectories: Callable[[], Iterable[Trajectory]], folder: RunFolder | None) -> None:
        self.folder = folder
        self.config: RunConfig | None = None if folder is None else folder.config
        self.name = ""
        self.price: Price | None = None
        self.episodes = self.valid = self.scored = 0
        self.end_reasons: Counter[str] = Counter()
        self.rows: dict[Key, list[Values]] = {}
        self._trajectories = trajectories

    @classmethod
    def of(cls, run: Source) -> _Given:
        if isinstance(run, str | os.PathLike):
            run = RunFolder(Path(run))
        if isinstance(run, RunFolder):
            return cls(run.trajectories, run)
        kept = list(run)
        return cls(lambda: kept, None)

    def read(self, threshold: float | None) -> None:
        for one in self._trajectories():
            values = _values(one, self.price, threshold)
            self.rows.setdefault((one.env, one.row, one.seed), []).append(values)
            self.episodes += 1
            self.valid += one.valid
            self.scored += "reward" in values
            self.end_reasons[one.end_reason.value] += 1
        if not self.episodes:
            raise ComparisonError(f"{self.name} has no episode that has ended: there is nothing to compare")

    def side(self) -> Side:
        figures = _figures(self.rows.values(), (*FIGURES, *map(_of_end, self.end_reasons)))
        return Side(
            name=self.name,
            path=None if self.folder is None else str(self.folder.path),
            policy={} if self.config is None else self.config.policy,
            rows=len(self.rows),
            episodes=self.episodes,
            valid=self.valid,
            scored=self.scored,
            price=self.price,
            figures={name: figure for name, figure in figures.items() if not name.startswith(_END)},
            ends={name.removeprefix(_END): one for name, one in figures.items() if name.startswith(_END)},
            end_reasons=dict(self.end_reasons.most_common()),
        )

    def by_seed(self) -> dict[Key, list[Values]]:
        """The episodes of each seed, whatever their rows are called."""
        found: dict[Key, list[Values]] = {}
        for (env, _, seed), episodes in self.rows.items():
            found.setdefault((env, "", seed), []).extend(episodes)
        return found

    @property
    def environments(self) -> list[str]:
        return sorted({env for env, _, _ in self.rows})


def _of_end(reason: str) -> str:
    return f"{_END}{reason}"


def _values(one: Trajectory, price: Price | None, threshold: float | None) -> dict[str, float]:
    """The figures of an episode as far as they are known; its end is one of them."""
    values = {"valid": float(one.valid), _of_end(one.end_reason.value): 1.0}
    if not one.valid:
        return values
    values |= {"steps": len(one.steps), "seconds": one.seconds}
    reward, usage = one.total_reward, one.usage
    if reward is not None and math.isfinite(reward):
        values |= {"reward": reward, "success": float(succeeded(reward, threshold))}
    # No endpoint has answered without reading a token: 0 is one that does not say.
    counted = usage.prompt_tokens + usage.completion_tokens
    if usage.total_tokens or counted:
        values["tokens"] = usage.total_tokens or counted
    if price is not None and counted:
        paid = usage.prompt_tokens * price.input + usage.completion_tokens * price.output
        values["cost"] = paid / _PRICED
    return values


def _figures(rows: Iterable[Sequence[Values]], names: Sequence[str]) -> dict[str, Figure]:
    """The means over episodes; intervals from drawing whole rows, and of one row alone its episodes."""
    units = [list(row) for row in rows]
    drawn = [[one] for one in units[0]] if len(units) == 1 else units
    columns = [[number for name in names for number in _counted(row, name)] for row in drawn]
    intervals = intervals_of_ratios(columns)
    figures = {}
    for name, interval in zip(names, intervals, strict=True):
        known = [_known(one, name) for row in units for one in row]
        told = [value for value in known if value is not None]
        if told:
            spread = interval if len(told) > 1 else None
            figures[name] = Figure(mean=mean(told), interval=spread, episodes=len(told))
    return figures


def _counted(row: Sequence[Values], name: str) -> tuple[float, float]:
    told = [value for one in row if (value := _known(one, name)) is not None]
    return len(told), sum(told)


def _known(values: Values, name: str) -> float | None:
    """A figure of an episode: of an end that it has not had 0."""
    return values.get(name, 0.0 if name.startswith(_END) else None)


def _difference(first: _Given, second: _Given) -> Difference:
    differs = _differs(first, second)
    paired_by, ones, others = "row and seed", first.rows, second.rows
    if ones.keys().isdisjoint(others):
        paired_by, ones, others = "seed", first.by_seed(), second.by_seed()
    together = [key for key in ones if key in others]
    if not together:
        raise ComparisonError(_nothing_in_common(first, second, differs))
    ends = [*dict.fromkeys([*first.end_reasons, *second.end_reasons])]
    names = (*FIGURES, *map(_of_end, ends))
    changes = _changes([(_means(ones[key], names), _means(others[key], names)) for key in together], names)
    made = Difference(
        first=first.name,
        second=second.name,
        paired_by=paired_by,
        pairs=len(together),
        only_first=len(ones) - len(together),
        only_second=len(others) - len(together),
        figures={name: change for name, change in changes.items() if not name.startswith(_END)},
        ends={name.removeprefix(_END): one for name, one in changes.items() if name.startswith(_END)},
        differs=differs,
        notes=[],
    )
    several = any(len(rows[key]) > 1 for rows in (ones, others) for key in together)
    made.notes += _notes(made, first, second, several)
    return made


def _means(episodes: Sequence[Values], names: Sequence[str]) -> dict[str, float]:
    """What the episodes of a row came to: the mean of those of which it is known."""
    means = {}
    for name in names:
        told = [value for one in episodes if (value := _known(one, name)) is not None]
        if told:
            means[name] = mean(told)
    return means


def _changes(pairs: Sequence[tuple[Values, Values]], names: Sequence[str]) -> dict[str, Change]:
    both = [[name in one and name in other for name in names] for one, other in pairs]
    units = [
        [
            number
            for name, known in zip(names, knows, strict=True)
            for number in (known, _gap(*pair, name) if known else 0)
        ]
        for pair, knows in zip(pairs, both, strict=True)
    ]
    intervals = dict(zip(names, intervals_of_ratios(units), strict=True))
    changes = {}
    for name in names:
        known = [(one[name], other[name]) for one, other in pairs if name in one and name in other]
        if known:
            changes[name] = _change(known, intervals[name] if len(known) > 1 else None)
    return changes


def _gap(one: Values, other: Values, name: str) -> float:
    """How much more the other has."""
    before, after = one[name], other[name]
    gap = 0.0 if math.isclose(before, after, rel_tol=_SAME, abs_tol=_SAME) else after - before
    return max(-_MOST, min(_MOST, gap))


def _change(known: Sequence[tuple[float, float]], interval: Interval | None) -> Change:
    gaps = [_gap({"": one}, {"": other}, "") for one, other in known]
    more, less = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    return Change(
        pairs=len(known),
        first=mean([one for one, _ in known]),
        second=mean([other for _, other in known]),
        difference=mean(gaps),
        interval=interval,
        more=more,
        same=len(gaps) - more - less,
        less=less,
        sign_test=sign_test(more, less),
    )


def _notes(made: Difference, first: _Given, second: _Given, several: bool) -> Iterator[str]:
    """What the figures do not say themselves."""
    if made.paired_by == "seed":
        yield "the runs have no row in common: environments and seeds are paired"
    for count, name in ((made.only_first, first.name), (made.only_second, second.name)):
        if count:
            yield f"{_many(count, 'row')} of {name} {_is(count)} in no pair: the other run has not played {_it(count)}"
    unseeing = [run.name for run in (first, second) if run.config and run.config.options.get("images") is False]
    if len(unseeing) == 1:
        yield f"the policy of {unseeing[0]} was shown no images, the other was"
    if several:
        yield "rows were played several times: the means of their episodes are paired"
    yield from _left_out(made, first, second)


def _left_out(made: Difference, first: _Given, second: _Given) -> Iterator[str]:
    for run in (first, second):
        planned = (run.config and run.config.planned) or 0
        if run.episodes < planned:
            missing = f"only {run.episodes} of the {planned} episodes of {run.name} {_is(run.episodes)} on record"
            yield f"{missing}: it was stopped, or is going on"
        broken, unscored = run.episodes - run.valid, run.valid - run.scored
        if broken:
            yield f"{broken} of {_many(run.episodes, 'episode')} of {run.name} {_is(broken)} not valid and left out"
        if unscored:
            yield f"{unscored} of {_many(run.valid, 'valid episode')} of {run.name} {_has(unscored)} no reward"
    fewer: dict[int, list[str]] = {}
    for name, change in made.figures.items():
        if change.pairs < made.pairs:
            fewer.setdefault(change.pairs, []).append(name)
    for pairs, figures in fewer.items():
        yield f"{', '.join(figures)}: over {pairs} of {_many(made.pairs, 'pair')}"
    for run in (first, second):
        if run.price is not None and not any("cost" in one for row in run.rows.values() for one in row):
            yield f"{run.name} has no cost: its episodes tell of no tokens"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _it(count: int) -> str:
    return "it" if count == 1 else "them"


def _differs(first: _Given, second: _Given) -> list[str]:
    """What else than the policy is not the same in two runs."""
    if first.config is None or second.config is None:
        here, there = first.environments, second.environments
        return [] if here == there else [f"environments: {', '.join(here)}, and {', '.join(there)}"]
    ours, theirs = first.config, second.config
    unknown = ours.not_compared(theirs)
    found = [line for line in ours.differences(theirs) if not _is_of_policy(line, bool(unknown))]
    if unknown:
        found.append(f"what {', '.join(unknown)} consists of is not known of both runs")
    return found


def _is_of_policy(line: str, unknown: bool) -> bool:
    """Whether a difference is the one that is asked for, or none of what was played."""
    if line.startswith("config_sha256"):  # where the parts of all environments are known, they say it better
        return not unknown
    return line.startswith(("policy.", "options.images ", "the policy:", "url ", "rollouts_per_row "))


def _nothing_in_common(first: _Given, second: _Given, differs: Sequence[str]) -> str:
    played = "; ".join(
        f"{one.name} has {_many(len(one.rows), 'row')} of {', '.join(one.environments)}, the first with seed {seed}"
        for one in (first, second)
        for _, _, seed in [next(iter(one.rows))]
    )
    more = f" ({'; '.join(differs[:_MOST_DIFFERENCES])})" if differs else ""
    return f"there is no pair to compare, neither row and seed nor seed alone are the same in any: {played}{more}"


def _names(runs: Sequence[_Given], given: Sequence[str]) -> list[str]:
    if given:
        if len(given) != len(runs) or len(set(given)) != len(given):
            raise ComparisonError(f"{len(runs)} runs need as many names, each another: {', '.join(given)}")
        return list(given)
    names = [
        f"run {number}" if run.folder is None else run.folder.path.resolve().name for number, run in enumerate(runs, 1)
    ]
    # Of folders that are called alike the ways to them, and of one that is named twice its place too.
    longer = [name if run.folder is None else str(run.folder.path) for run, name in zip(runs, names, strict=True)]
    names = _told_apart(names, longer)
    return _told_apart(names, [f"{name} ({number})" for number, name in enumerate(names, 1)])


def _told_apart(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    times = Counter(names)
    return [more if times[name] > 1 else name for name, more in zip(names, longer, strict=True)]


def _threshold(runs: Sequence[_Given], given: float | None, notes: list[str]) -> float | None:
    if given is not None:
        return given
    told = {run.name: run.config.success_reward for run in runs if run.config is not None}
    first = next(iter(told.values()), None)
    if len(set(told.values())) > 1:
        shown = ", ".join(f"{name} {'more than 0' if one is None else f'{one:g}'}" for name, one in told.items())
        notes.append(f"the runs have other rewards for a success ({shown}): that of the first is taken for all")
    return first
