"""The page: whom to show on the left, what to do on the right; one below the other on a phone."""

import gradio as gr

from portrait4d.webapp.explore_tab import build_explore_tab
from portrait4d.webapp.markup import notice
from portrait4d.webapp.mesh_tab import build_mesh_tab
from portrait4d.webapp.reenact_tab import build_reenact_tab
from portrait4d.webapp.sample_tab import build_sample_tab
from portrait4d.webapp.source_panel import build_source_panel
from portrait4d.webapp.state import AppState

_TITLE = "<h1>Portrait4D</h1><p>One portrait, a head that moves. Nothing leaves this machine.</p>"
_UNTRAINED = (
    "No trained network is here, so a small seeded one stands in: it shows that the app works, not what the method can "
    "do. Start the app with --network FILE, or put the demonstration network in its place (see README)."
)


def build_page(state: AppState) -> gr.Blocks:
    """Lay the page out; nothing is loaded yet."""
    with gr.Blocks(title="Portrait4D", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_TITLE, elem_id="title")
        if state.is_untrained:
            gr.HTML(notice(_UNTRAINED))
        with gr.Row():
            with gr.Column(scale=1, min_width=230, elem_id="source"):
                chosen = build_source_panel(state)
            with gr.Column(scale=4, min_width=300), gr.Tabs():
                with gr.Tab("Reenact", id="reenact"):
                    build_reenact_tab(state, chosen)
                with gr.Tab("Explore", id="explore") as explore:
                    sliders = build_explore_tab(state, chosen, explore)
                with gr.Tab("3D", id="mesh"):
                    build_mesh_tab(state, chosen, sliders)
                with gr.Tab("Sample", id="sample"):
                    build_sample_tab(state)
    return page
