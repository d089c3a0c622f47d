"""The panel that all tabs share: who is shown, one of the bundled persons or a photo of one's own."""

import gradio as gr

from portrait4d.webapp.events import answered, bounded
from portrait4d.webapp.markup import data_url
from portrait4d.webapp.sources import add_source
from portrait4d.webapp.state import AppState, bundled_portraits


def build_source_panel(state: AppState) -> gr.State:
    """Lay out the panel and return what holds the key of the chosen source, see `AppState.portrait`."""
    names = list(bundled_portraits())
    chosen = gr.State(names[0])
    choices = [(f"Person {number}", name) for number, name in enumerate(names, 1)]
    faces = gr.Radio(choices, value=names[0], label="Who", elem_id="faces")
    photo = gr.File(label="Or a photo of your own", height=110, elem_id="photo")
    message = gr.HTML(elem_id="photo-message")
    mine = gr.HTML(elem_id="mine")
    settings = bounded("pictures", state.config.jobs)
    faces.input(lambda name: (name, ""), faces, [chosen, mine], **settings)
    photo.upload(
        answered(lambda upload: _take_photo(state, upload), 4, cleared=1),
        photo,
        [chosen, faces, mine, photo, message],
        preprocess=False,
        **settings,
    )
    return chosen


def _take_photo(state: AppState, upload: object) -> tuple:
    """Keep an uploaded photo as a source: its key, no bundled face chosen, its crop, an empty upload field."""
    key = add_source(state, upload)
    picture = state.portrait(key).load_image()
    return key, None, f'<img src="{data_url(picture, 240)}" alt="Your photo, as the network sees it">', None
