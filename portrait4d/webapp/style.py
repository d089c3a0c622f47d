"""How the page looks: system fonts, one column on a phone, faces to choose from as pictures."""

from portrait4d.data.portrait_folder import PreparedPortrait
from portrait4d.webapp.markup import data_url

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "Consolas", "monospace")
_THUMBNAIL = 96

_PAGE = """
.gradio-container { max-width: 1280px !important; width: 100%; margin: auto; }
.gradio-container main { padding-top: .5rem !important; }
.pictures figure:only-child img { width: auto; max-width: 100%; min-width: min(100%, 55vh); }
#title h1 { font-size: 1.35rem; margin: 0; }
#title p { margin: 0; opacity: .8; }
#title, #title .prose { padding: 0 !important; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .6rem; }
.pictures figure { margin: 0; min-width: 0; text-align: center; }
.pictures img, .film video { width: 100%; max-height: 62vh; object-fit: contain; border-radius: 8px; background: #000; }
.pictures figcaption { font-size: .8rem; opacity: .8; text-align: center; }
.notice { padding: .5rem .8rem; border-radius: 8px; border-left: 4px solid #3b82f6; background: #3b82f61a; margin: 0; }
.notice.error { border-color: #dc2626; background: #dc26261a; }
a.download { display: inline-block; padding: .35rem .8rem; border-radius: 8px; border: 1px solid currentColor; }
#faces .wrap { display: grid; grid-template-columns: repeat(auto-fill, minmax(62px, 1fr)); gap: 6px; }
#faces label { aspect-ratio: 1; padding: 0; background-size: cover; position: relative; overflow: hidden; }
#faces label span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
#faces label input { position: absolute; left: 5px; top: 5px; }
#faces label:has(input:checked) { outline: 3px solid #f97316; outline-offset: -1px; }
:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 1px; }
#sliders .form { display: grid; grid-template-columns: 1fr 1fr; gap: 0; background: var(--block-background-fill); }
#sliders .block { padding: .25rem .6rem; }
#sliders .reset-button { display: none; }
#sliders input[type=number] { width: 3.6rem; }
#photo .wrap, #clip-upload .wrap { font-size: .8rem; line-height: 1.2; min-height: 0; }
#photo .icon-wrap, #clip-upload .icon-wrap { display: none; }
#mine img { border-radius: 8px; max-width: 120px; }
@media (max-width: 640px) {
  .gradio-container { padding: .4rem !important; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .pictures figure:first-child { grid-column: 1 / -1; }
  #faces .wrap { grid-template-columns: repeat(6, 1fr); }
}
"""


def page_style(faces: list[PreparedPortrait]) -> str:
    """Return the page's CSS; the choices of the element `faces` show these portraits, in order."""
    rules = [
        f'#faces label:nth-of-type({number}) {{ background-image: url("{data_url(face.load_image(), _THUMBNAIL)}"); }}'
        for number, face in enumerate(faces, 1)
    ]
    return _PAGE + "\n".join(rules)
