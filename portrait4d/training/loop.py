"""The training loop: iterations of phases, steps that are watched, the averaged network, and the records of ticks.

Source: training-genhead.md §5, §8. Everything random in an iteration follows from its number, so going on from a saved
state repeats what would have come, to the bit on a CPU.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from portrait4d.files.errors import UserError
from portrait4d.training.distributed import flatten_gradients, spread_gradients
from portrait4d.training.run_log import RunLog
from portrait4d.training.run_state import FIRST_FP16_SCALE, GradientsLostError, LossScale, RunState
from portrait4d.training.schedules import rate_factor
from portrait4d.training.snapshots import Snapshots
from portrait4d.training.stop_signal import StopSignal
from portrait4d.training.tasks import Phase, Step, Task
from portrait4d.training.weight_average import update_weight_average

MAX_ATTEMPTS = 3


def train(task: Task, state: RunState, log: RunLog, snapshots: Snapshots) -> None:
    """Train to the end of the run, or until it is told to stop; then what is needed to go on is on disk.

    Raises:
        UserError: if gradients stay bad although the run was set back several times.
    """
    for name in task.networks:
        first = FIRST_FP16_SCALE if task.optim.precision == "float16" else 1.0
        state.scales.setdefault(name, LossScale(first))
    total, shown = round(task.run.kimg * 1000), log.verbose and task.ranks.is_first
    bar = tqdm(total=total, initial=state.images_seen, unit="img", disable=not shown)
    with bar, StopSignal(task.ranks) as stop:
        task.skip_batches(state.iteration)
        while not (over := is_over(task, state)) and not stop.is_set():
            try:
                _iterate(task, state, log)
            except GradientsLostError as error:
                _set_back(task, state, log, snapshots, str(error))
                bar.n = state.images_seen
                continue
            bar.update(task.run.batch)
            due = state.tick == 0 or state.images_seen >= state.tick_start + task.run.tick_kimg * 1000
            if due and not is_over(task, state):
                with snapshots.writing():
                    _end_tick(task, state, log, snapshots)
        with snapshots.writing():
            if not over:
                snapshots.save_network(task, state)
                snapshots.save_state(task, state)
                log.line(f"stopped at {state.images_seen} images; the same command goes on from there")
            elif state.ended_at != state.images_seen:
                _end_tick(task, state, log, snapshots, done=True)


def is_over(task: Task, state: RunState) -> bool:
    """Return whether a run has seen all the images that it will see."""
    return state.images_seen >= expected_end(task, state)


def expected_end(task: Task, state: RunState) -> float:
    """Return how many images the run will have seen in the end."""
    run = task.run
    if run.minutes is None:
        return round(run.kimg * 1000)
    first = task.config.start.kimg * 1000
    return task.ranks.share_decision(state.expected_end(first, run.kimg * 1000, 60 * run.minutes))


def _iterate(task: Task, state: RunState, log: RunLog) -> None:
    started, moment = time.perf_counter(), state.moment
    chunks = task.load_chunks(moment)
    log.time("data", time.perf_counter() - started)
    for phase in task.phases:
        if moment.iteration % phase.interval == 0:
            with log.timed(phase.name, task.ranks.device):
                _run_phase(task, phase, chunks, state, log)
    update_weight_average(task.average, task.networks["G"], task.average_beta(moment))
    task.end_iteration(log.record)
    state.extra = task.extra_state()
    state.images_seen += task.run.batch
    state.iteration += 1
    state.seconds += time.perf_counter() - started


def _run_phase(task: Task, phase: Phase, chunks: list, state: RunState, log: RunLog) -> None:
    optimiser, scale = task.optimisers[phase.network], state.scales[phase.network]
    factor = scale.value / (len(chunks) if task.optim.chunk_reduction == "mean" else 1)
    optimiser.zero_grad(set_to_none=True)
    with learning(task.networks[phase.network]):
        for number, chunk in enumerate(chunks):
            generators = task.chunk_generators(state.moment, phase.name, number, state.attempt)
            step = Step(phase, state.moment, *generators, lambda loss: (loss * factor).backward(), log.record)
            task.compute_gradients(chunk, step)
    parameters, flat = flatten_gradients(p for group in optimiser.param_groups for p in group["params"])
    if not parameters:
        return
    flat = task.ranks.sum(flat).div_(task.ranks.count * scale.value)
    finite = bool(flat.isfinite().all())
    if finite:
        spread_gradients(parameters, flat)
        end_kimg = expected_end(task, state) / 1000
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * rate_factor(state.images_seen, end_kimg, task.optim.decay_kimg)
        optimiser.step()
    elif scale.value == 1:
        log.line(f"{phase.name}: gradients are not finite at {state.images_seen} images, step skipped")
    scale.note(finite, task.optim.patience, phase.name)


@contextmanager
def learning(network: torch.nn.Module) -> Iterator[None]:
    """Let the parameters of a network ask for gradients within the block."""
    network.requires_grad_(True)
    try:
        yield
    finally:
        network.requires_grad_(False)


def _set_back(task: Task, state: RunState, log: RunLog, snapshots: Snapshots, reason: str) -> None:
    """Go back to the last saved state, with other random numbers from there on; the time spent counts."""
    seconds = state.seconds
    attempt, skipped = state.attempt + 1, {name: scale.skipped for name, scale in state.scales.items()}
    if attempt > MAX_ATTEMPTS or not snapshots.load_state(task, state):
        raise UserError(
            f"{reason}; lower the learning rates or look at the data, then run again with --resume {snapshots.folder}"
        )
    state.attempt = attempt
    state.tick_seconds += seconds - state.seconds
    state.seconds = seconds
    for name, scale in state.scales.items():
        scale.bad_steps, scale.skipped = 0, skipped[name]
    task.skip_batches(state.iteration)
    log.resume(state.tick)
    log.line(f"{reason}: set back to {state.images_seen} images (attempt {attempt} of {MAX_ATTEMPTS})")


def _end_tick(task: Task, state: RunState, log: RunLog, snapshots: Snapshots, done: bool = False) -> None:
    """Write what is due at a tick, or at the end of the run (`done`) everything; the state to resume from last."""
    started, run, tick = time.perf_counter(), task.run, state.tick
    measured = {}
    if done or tick % run.image_ticks == 0:
        snapshots.save_pictures(task, state)
        measured = task.validate() if task.ranks.is_first else {}
    if done or tick % run.network_ticks == 0:
        snapshots.save_network(task, state)
    log.write_tick(task, state, measured, time.perf_counter() - started)
    state.tick, state.tick_start, state.tick_seconds = tick + 1, state.images_seen, state.seconds
    if done or tick % run.state_ticks == 0:
        state.attempt = 0  # bad steps are behind
        state.ended_at = state.images_seen if done else state.ended_at
        snapshots.save_state(task, state)
    task.ranks.wait()
