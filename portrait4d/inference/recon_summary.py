"""Rows of an evaluation, one a frame, to means with confidence intervals, and a table for the terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from portrait4d.metrics.bootstrap import Estimate, estimate_correlation, estimate_mean, resample_weights

ANSWERS = ("result", "copy", "mean")
"""What is measured: the network's pictures, the source's picture as it is, the mean of all true pictures of a task."""

MOVES = ("mouth", "blink")
UNITS = {
    "psnr": "dB",
    "psnr_head": "dB",
    "ssim": "",
    "lpips": "",
    "identity": "",
    "mask_iou": "",
    "expression_error": "",
    "pose_error": "",
    "mouth_correlation": "",
    "blink_correlation": "",
    "rank1": "",
    "jitter_pixels": "levels",
    "jitter_expression": "",
    "jitter_landmarks": "pixels",
    "fid_pixels16": "",
    "fid": "",
}
"""All metrics in the order of the table, with their units."""

_RUN = "no three consecutive frames"
_WITHOUT = {
    "rank1": "needs several persons under one motion, as synthetic protocols have",
    "jitter_pixels": _RUN,
    "jitter_expression": _RUN,
    "jitter_landmarks": _RUN,
}


@dataclass
class Row:
    """One frame.

    Attributes:
        task, subject, driver: see `recon_benchmarks.Case`.
        place, yaw_deg: likewise.
        values: answer -> metric or movement -> number.
        truth: movement -> number read from the true picture; empty where all frames show one motion.
        seconds: "motion", "render" and, of the subject, "source".
    """

    task: str
    subject: str
    driver: str
    place: int
    yaw_deg: float
    values: dict[str, dict[str, float]]
    truth: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)


def summarise_tasks(rows: Sequence[Row], distances: dict[tuple[str, str, str], float], seed: int) -> dict[str, dict]:
    """Return for each task the number of frames and subjects, and each metric's estimate for each answer.

    Args:
        rows: of all frames.
        distances: (task, metric, answer) -> Frechet distance.
        seed: of the bootstrap.
    """
    tasks = {}
    for task in dict.fromkeys(row.task for row in rows):
        chosen = [row for row in rows if row.task == task]
        metrics: dict[str, dict] = {}
        for name in UNITS:
            answers = {answer: _estimate(chosen, name, answer, seed) for answer in ANSWERS}
            answers |= {a: {"value": value} for (t, n, a), value in distances.items() if (t, n) == (task, name)}
            known = {answer: found for answer, found in answers.items() if found is not None}
            if known:
                metrics[name] = known
        subjects = len({row.subject for row in chosen})
        tasks[task] = {"frames": len(chosen), "subjects": subjects, "metrics": metrics}
    return tasks


def _estimate(rows: Sequence[Row], name: str, answer: str, seed: int) -> dict | None:
    move = name.removesuffix("_correlation")
    wanted = move if move in MOVES else name
    having = [row for row in rows if wanted in row.values.get(answer, {}) and (move not in MOVES or move in row.truth)]
    if not having:
        return None
    values = np.array([row.values[answer][wanted] for row in having])
    weights = resample_weights([row.subject for row in having], seed=seed)
    if move in MOVES:
        estimate = estimate_correlation(values, np.array([row.truth[move] for row in having]), weights)
    else:
        estimate = estimate_mean(values, weights)
    if len({row.subject for row in having}) == 1:
        estimate = Estimate(estimate.value, np.nan, np.nan)  # one subject tells nothing of how subjects differ
    return _plain(estimate) | {"frames": len(having)}


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """Return an estimate as JSON has it: what is undefined is null."""
    return {name: value if np.isfinite(value) else None for name, value in estimate._asdict().items()}


def list_missing(tasks: dict[str, dict], missing: dict[str, str]) -> dict[str, str]:
    """Return why each metric that no task has was not measured.

    Args:
        tasks: of `summarise_tasks`.
        missing: what is known to lack something, and what.
    """
    measured = {name for found in tasks.values() for name in found["metrics"]}
    return missing | {
        name: _WITHOUT.get(name, "no frame that it can be measured on")
        for name in UNITS
        if name not in measured and name not in missing
    }


def summarise_speed(rows: Sequence[Row]) -> dict[str, float]:
    """Return frames per second of rendering alone, and with reading the motion and encoding the source each time."""
    render, motion, source = (
        np.array([row.seconds[name] for row in rows[1:] or rows]) for name in ("render", "motion", "source")
    )
    return {
        "fps": float(1 / np.median(render)),
        "fps_with_preprocessing": float(1 / np.median(render + motion + source)),
    }


def format_summary(summary: dict) -> str:
    """Lay a summary out for the terminal: a table for each task, then what is missing and what failed."""
    lines = [f"{summary['protocol']}: {summary['network']}"]
    for task, found in summary["tasks"].items():
        title = f"{task} ({found['frames']} frames, {found['subjects']} subjects)"
        lines += ["", f"{title:<36}{'result':>10}  {'95 % interval':<22}{'copy source':>12}{'mean head':>12}"]
        for name, answers in found["metrics"].items():
            label = f"  {name}" + (f" ({UNITS[name]})" if UNITS[name] else "")
            result, *others = (answers.get(answer, {}) for answer in ANSWERS)
            interval = f"[{_number(result.get('low'))}, {_number(result.get('high'))}]" if "low" in result else ""
            cells = "".join(f"{_number(other.get('value')):>12}" for other in others)
            lines.append(f"{label:<36}{_number(result.get('value')):>10}  {interval:<22}{cells}")
    speed = summary["speed"]
    if speed:
        lines += ["", f"{speed['fps']:.3g} frames per second, {speed['fps_with_preprocessing']:.3g} with preprocessing"]
    lines += _listed("not measured:", summary["missing"].items())
    return "\n".join(lines + _listed(f"{summary['failure_count']} failures:", summary["failures"].items()))


def _listed(title: str, items: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"  {name}: {text}" for name, text in items]
    return [title, *lines] if lines else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
