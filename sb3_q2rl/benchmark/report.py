"""One page with a table and a picture of every task, and one picture of all, from the CSV files alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sb3_q2rl.benchmark.comparison import Curves, draw_curves
from sb3_q2rl.benchmark.overview import draw_improvement, draw_rivals, with_rivals
from sb3_q2rl.benchmark.results import Curve, Results, comparable
from sb3_q2rl.benchmark.statistics import percentile_interval, resample
from sb3_q2rl.benchmark.suite import Suite, load_suite
from sb3_q2rl.benchmark.table import HEADINGS, Published, line, markdown, rate, scores

INTRODUCTION = """# Results

Not written by hand: `{command}`
makes this page from the CSV files in this folder. One line of it is run again by
`python -m sb3_q2rl benchmark run SUITE.yml --only task=... algorithm=... --again`.

- **success at the end**: of the model as it acts, mean over seeds; the same starts for all. **95 %**: percentiles of a
  bootstrap that draws seeds, then for each a rate from what its episodes tell (Jeffreys). Of one seed it knows nothing
  of how seeds differ, and is narrower than the truth.
  In the kitchen an episode counts by the share of its four sub-tasks that it finished, as the paper's do.
- **IQM**: interquartile mean of the seeds. **RL alone**: the actor without gate or BC policy, at the end.
- **lowest after the start**: worst evaluation of any seed once RL acts (the gate opens, an offline phase is over).
- **steps to 90 %**: the first evaluation after the start at which the mean is at nine tenths of its own last value;
  "-" where it ends below the success before the start. **mean while learning**: area under the curve, divided by its
  length; before RL starts the BC policy's success counts.
- **difference**: of the success at the end, with 95 %, where both sides have two seeds or more.
- **paper**: {source}. Other BC policies, larger networks, mostly more steps: not the same experiment.

All environment steps count, those of the BC policy and of warm-ups too; gradient steps of offline phases do not.
Seeds that were stopped early are left out where another seed is finished; where none is, all count up to the end of the
shortest.
"""


def write_report(
    suites: Sequence[str | Path], results: str | Path | None = None, out: str | Path | None = None
) -> Path:
    """
    :param suites: YAML files
    :param results: folder that holds a folder for each suite, by default ``results`` beside it
    :param out: folder of the page and its pictures, by default that of the results of the first suite
    :return: the page
    :raises ValueError: not one cell has a result
    """
    paths = [Path(suite) for suite in suites]
    homes = [Path(results) if results is not None else path.parent / "results" for path in paths]
    folder = Path(out) if out is not None else homes[0]
    published = Published.load()
    parts: list[str] = []
    tasks: dict[str, Curves] = {}
    told: set[str] = set()  # environments of which the paper's other numbers have been given
    for path, home in zip(paths, homes, strict=True):
        suite = load_suite(path)
        found = collect(suite, Results(home / suite.name))
        for task, curves in found.items():
            env_id, others = suite.tasks[task].env, list[list[str]]()
            if suite.reference is None and env_id not in told:
                others = published.others(env_id, [seeds[0].cell.by for seeds in curves.values()])
                told.add(env_id)
            parts.append(_section(suite, task, curves, published, others, folder))
        if suite.reference is None:
            tasks |= found
    if not parts:
        raise ValueError(f"There is no result of {', '.join(map(str, paths))} yet: start with `benchmark run`.")
    command = "python -m sb3_q2rl benchmark report " + " ".join(map(str, paths))
    page = [INTRODUCTION.format(command=command, source=published.source)]
    if compared := with_rivals(tasks):
        draw_rivals(compared, folder / "rivals.png")
        page.append("![Q2RL and its rivals](rivals.png)\n")
    if tasks:
        draw_improvement(tasks, folder / "improvement.png")
        page.append("![Before and after](improvement.png)\n\nHollow: not all seeds are finished.")
    target = folder / "report.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([*page, *parts, ""]))
    return target


def collect(suite: Suite, results: Results) -> dict[str, Curves]:
    """
    :param suite: what was asked for
    :param results: what is there
    :return: the comparable curves of each task that has any, by task and label
    """
    found: dict[str, dict[str, list[Curve]]] = {}
    for curve in results.curves(suite.cells()):
        found.setdefault(curve.cell.task, {}).setdefault(curve.cell.label, []).append(curve)
    return {
        task: {label: comparable(seeds) for label, seeds in found[task].items()}
        for task in suite.tasks
        if task in found
    }


def _section(
    suite: Suite, task: str, curves: Curves, published: Published, others: list[list[str]], folder: Path
) -> str:
    cell = next(iter(curves.values()))[0].cell
    picture = draw_curves(
        curves,
        folder / suite.name / f"{task}.png",
        f"{cell.to.env} ({suite.name})",
    )
    paper_steps = published.steps.get(cell.to.env)
    headings, lines = list(HEADINGS), [line(seeds, published) for seeds in curves.values()]
    reference = curves.get(suite.reference or "")
    if reference is not None:
        headings.insert(3, f"difference to {suite.reference}")
        for row, seeds in zip(lines, curves.values(), strict=True):
            row.insert(3, _difference(seeds, reference))
    missing = [label for label in suite.algorithms if label not in curves]
    notes = [f"{cell.to.steps:,} environment steps, {cell.evaluation.episodes} episodes an evaluation."]
    if not cell.evaluation.deterministic:
        notes.append("Everybody is evaluated as it acts while learning, RL by samples.")
    if paper_steps is not None:
        notes.append(f"The paper's numbers: after {paper_steps:,} steps.")
    if missing:
        notes.append(f"No results: {', '.join(missing)}.")
    parts = [
        f"\n## {suite.name}: {task} (`{cell.to.env}`)\n",
        " ".join(notes),
        f"\n{markdown(headings, [*lines, *others])}\n",
        "Mean over seeds, the band reaches from the lowest to the highest.\n",
        f"![Learning curves]({Path(os.path.relpath(picture, folder)).as_posix()})",
    ]
    return "\n".join(parts)


def _difference(seeds: Sequence[Curve], reference: Sequence[Curve]) -> str:
    """Of the success at the end, with its 95 % interval: is the whole of it on one side of 0?"""
    finished = all(curve.is_finished for curve in (*seeds, *reference))
    if seeds is reference or not finished or min(len(seeds), len(reference)) < 2:
        return ""
    ours, theirs = scores(seeds), scores(reference)
    # Another stream of random numbers: the two were measured independently
    draws = resample(ours).mean(axis=1) - resample(theirs, seed=1).mean(axis=1)
    low, high = percentile_interval(draws)
    difference = float(ours.rates.mean() - theirs.rates.mean())
    return f"{_signed(difference)} ({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    return ("-" if value <= -0.005 else "+") + rate(abs(value))
