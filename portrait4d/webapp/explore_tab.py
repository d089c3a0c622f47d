"""Explore: a head under sliders, rendered as they move."""

import gradio as gr

from portrait4d.webapp.events import answered, bounded
from portrait4d.webapp.heads import LOOKS, knows_sliders, look_pictures, pose_head
from portrait4d.webapp.markup import notice, pictures
from portrait4d.webapp.poses import SLIDERS, HeadPose, default_value, pose_from_values
from portrait4d.webapp.state import AppState

_FOREIGN_HEAD = "The expression sliders are made for our open head; this network has another, and follows some of them."


def build_explore_tab(state: AppState, chosen: gr.State, tab: gr.Tab) -> list[gr.Slider]:
    """Lay out the tab and return its sliders, in the order of `SLIDERS`."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            looks = gr.CheckboxGroup(list(LOOKS), value=[], label="Also show", elem_id="looks")
            view = gr.HTML(pictures({}), elem_id="view", min_height=240)
            message = gr.HTML(elem_id="explore-message")
        with gr.Column(scale=2, min_width=260, elem_id="sliders"):
            sliders = [
                gr.Slider(
                    s.low, s.high, value=default_value(s), step=s.step, label=s.label, elem_id=f"slider-{s.field}"
                )
                for s in SLIDERS
            ]
            reset = gr.Button("Reset", size="sm")
    show = answered(lambda key, looks, *values: _show(state, key, looks, values), 1)
    controls, shown = [chosen, looks, *sliders], [view, message]
    settings = bounded("pictures", state.config.jobs) | {"show_progress": "hidden", "trigger_mode": "always_last"}
    gr.on([slider.input for slider in sliders] + [looks.input], show, controls, shown, **settings)
    gr.on([tab.select, chosen.change], show, controls, shown, **settings | {"show_progress": "minimal"})
    reset.click(lambda: [default_value(s) for s in SLIDERS], None, sliders, **settings).then(
        show, controls, shown, **settings
    )
    return sliders


def _show(state: AppState, key: str, looks: list[str], values: tuple[object, ...]) -> tuple[str]:
    pose = pose_from_values(values)
    found = pictures(look_pictures(state, pose_head(state, key, pose), looks), f"{key} {pose.yaw_deg:g}")
    if pose != HeadPose() and not knows_sliders(state.reenactor()):
        found += notice(_FOREIGN_HEAD)
    return (found,)
