"""Reenact: the chosen person moves as a clip, a picture or the visitor before the camera does."""

from typing import Any

import gradio as gr

from portrait4d.webapp.events import answered, bounded
from portrait4d.webapp.films import FilmRequest, make_film
from portrait4d.webapp.markup import film
from portrait4d.webapp.sources import add_clip
from portrait4d.webapp.state import AppState, bundled_clips
from portrait4d.webapp.uploads import Upload

_MINE = "mine"


def build_reenact_tab(state: AppState, chosen: gr.State) -> None:
    """Lay out the tab."""
    names = list(bundled_clips())
    choices = [(f"Clip {number}", name) for number, name in enumerate(names, 1)] + [("My own", _MINE)]
    uploaded = gr.State("")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            clip = gr.Radio(choices, value=names[0], label="Moves like", elem_id="clip")
            with gr.Tabs():
                with gr.Tab("Upload"):
                    upload = gr.File(label="Film or picture", height=110, elem_id="clip-upload")
                with gr.Tab("Camera"):
                    webcam = gr.Video(
                        sources=["webcam"], include_audio=False, label="Record yourself", elem_id="webcam", height=240,
                        webcam_options=gr.WebcamOptions(mirror=False),
                    )  # fmt: skip
            clip_message = gr.HTML(elem_id="clip-message")
            options = _build_options()
            make = gr.Button("Make the film", variant="primary", elem_id="make-film")
        with gr.Column(scale=3, min_width=300):
            result = gr.HTML(elem_id="film", min_height=240)
            message = gr.HTML(elem_id="film-message")
    taken = answered(lambda claimed: _take_clip(state, claimed), 3, cleared=1)
    settings = bounded("pictures", state.config.jobs) | {"preprocess": False}
    upload.upload(taken, upload, [uploaded, clip, upload, clip_message], **settings)
    webcam.stop_recording(taken, webcam, [uploaded, clip, webcam, clip_message], **settings)
    controls = {chosen, clip, uploaded, *options.values()}

    def run(values: dict, progress: gr.Progress = gr.Progress()) -> tuple[str]:  # noqa: B008
        wanted = {name: values[control] for name, control in options.items()}
        own = values[clip] == _MINE
        request = FilmRequest(values[chosen], values[uploaded] if own else values[clip], **wanted)
        progress(0, desc="Loading")
        address, caption = make_film(
            state, request, lambda done, total: progress((done, total), desc="Frames", unit="frames")
        )
        return (film(address, caption),)

    make.click(answered(run, 1), controls, [result, message], **bounded("films", state.config.jobs))


def _build_options() -> dict[str, Any]:
    """Lay out what few need, and return the controls by the names that `FilmRequest` has for them."""
    with gr.Accordion("More", open=False):
        return {
            "layout": gr.Radio(
                [("Photo, result, driver", "side-by-side"), ("Result", "result")],
                value="side-by-side",
                label="Film shows",
            ),
            "camera": gr.Radio(
                [("Driver's", "driver"), ("Frontal", "frontal"), ("Orbit", "orbit")], value="driver", label="Camera"
            ),
            "stabilise": gr.Radio(
                [("Off", "off"), ("Light", "light"), ("Strong", "strong")], value="off", label="Steady the head"
            ),
            "relative": gr.Checkbox(False, label="Only the driver's changes, from the photo's own expression on"),
        }


def _take_clip(state: AppState, claimed: object) -> tuple:
    """Keep an uploaded clip: its key, "My own" chosen, an empty upload field."""
    key, upload = add_clip(state, claimed)
    return key, gr.Radio(value=_MINE, info=_describe(upload)), None


def _describe(upload: Upload) -> str:
    length = f"film, {upload.duration_s:.1f} s" if upload.kind == "film" else "picture"
    return f"Yours: {length}, {upload.width} x {upload.height} pixels"
