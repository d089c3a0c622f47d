"""3D: the head's surface as a mesh to turn in the browser and to take home."""

import gradio as gr

from portrait4d.webapp.events import answered, bounded
from portrait4d.webapp.heads import pose_head, write_meshes
from portrait4d.webapp.markup import downloads
from portrait4d.webapp.poses import pose_from_values
from portrait4d.webapp.state import AppState

_RESOLUTIONS = {"Coarse": 64, "Medium": 96, "Fine": 160}
"""Grid points per side."""


def build_mesh_tab(state: AppState, chosen: gr.State, sliders: list[gr.Slider]) -> None:
    """Lay out the tab; the expression is the one that `sliders` of Explore show."""
    with gr.Row():
        with gr.Column(scale=1, min_width=220):
            detail = gr.Radio(list(_RESOLUTIONS), value="Medium", label="Detail")
            gr.Markdown("The head smiles, looks and speaks as it is set in *Explore*.")
            make = gr.Button("Make the mesh", variant="primary", elem_id="make-mesh")
            links = gr.HTML(elem_id="mesh-links")
            message = gr.HTML(elem_id="mesh-message")
        with gr.Column(scale=3, min_width=300):
            mesh = gr.Model3D(label="Mesh", height=420, elem_id="mesh", interactive=False)
    make.click(
        answered(lambda key, detail, *values: _make(state, key, detail, values), 2),
        [chosen, detail, *sliders],
        [mesh, links, message],
        **bounded("films", state.config.jobs),
    )


def _make(state: AppState, key: str, detail: str, values: tuple[object, ...]) -> tuple[str, str]:
    head = pose_head(state, key, pose_from_values(values))
    with state.workspace.job() as folder:
        glb, ply = (state.workspace.publish(path) for path in write_meshes(state, head, _RESOLUTIONS[detail], folder))
    shown = state.workspace.result(*glb.split("/"))
    return str(shown), downloads({"Download GLB": glb, "Download PLY": ply})
