"""Sample: heads of persons who do not exist, made up by GenHead from seeds."""

import gradio as gr

from portrait4d.data.image_io import save_video
from portrait4d.files.errors import UserError
from portrait4d.webapp.events import answered, bounded
from portrait4d.webapp.markup import film, pictures
from portrait4d.webapp.state import AppState

_MANY, _FRAMES, _FPS = 6, 24, 12
_HIGHEST_SEED = 2**32 - 1


def build_sample_tab(state: AppState) -> None:
    """Lay out the tab."""
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=_HIGHEST_SEED, elem_id="seed")
        truncation = gr.Slider(
            0, 1, value=0.7, step=0.05, label="Variety", info="0: the average head", elem_id="variety"
        )
    with gr.Row():
        many = gr.Button(f"Show {_MANY} heads from this seed on", variant="primary", elem_id="sample")
        turn = gr.Button("Turn the head of this seed", elem_id="turn")
    message = gr.HTML(elem_id="sample-message")
    heads = gr.HTML(elem_id="heads", min_height=200)
    inputs, outputs = [seed, truncation], [heads, message]
    many.click(answered(lambda *v: _sample(state, *v), 1), inputs, outputs, **bounded("pictures", state.config.jobs))
    turn.click(answered(lambda *v: _turn(state, *v), 1), inputs, outputs, **bounded("films", state.config.jobs))


def _sample(state: AppState, seed: object, truncation: object) -> tuple[str]:
    sampler = state.sampler(_in_range("Variety", truncation, 1), frames=1)
    first = int(_in_range("Seed", seed, _HIGHEST_SEED - _MANY + 1))
    found = {}
    for number in range(first, first + _MANY):
        found[f"Seed {number}"] = sampler.render(sampler.sample(number), 0).image_sr[0].float().clamp(-1, 1).cpu()
    return (pictures(found),)


def _turn(state: AppState, seed: object, truncation: object) -> tuple[str]:
    sampler = state.sampler(_in_range("Variety", truncation, 1), _FRAMES)
    head = sampler.sample(int(_in_range("Seed", seed, _HIGHEST_SEED)))
    with state.workspace.job() as folder:
        path = folder / f"head-{head.seed}.mp4"
        save_video(path, (sampler.render(head, k).image_sr[0].float().cpu() for k in range(_FRAMES)), _FPS)
        return (film(state.workspace.publish(path), f"Seed {head.seed}."),)


def _in_range(name: str, value: object, highest: float) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= highest:
        raise UserError(f"{name}: expected 0 to {highest:g}.")
    return value
