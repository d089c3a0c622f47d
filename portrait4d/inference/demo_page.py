"""The page of the demonstration: one HTML file without scripts, fonts or anything from elsewhere."""

from html import escape
from pathlib import Path

from portrait4d.inference.demo_results import Closeness, DemoResults, Film, Pair

_STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #ffffff; --ink: #1c1b19; --soft: #6a6760; --line: #dedbd3;
  --accent: #1f6f5c; --bad: #a33a1d; }
@media (prefers-color-scheme: dark) { :root { --paper: #131416; --card: #1c1e21; --ink: #eceae5; --soft: #9d9a93;
  --line: #2e3136; --accent: #6fcfb4; --bad: #f0977a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2rem); }
h1 { font-size: clamp(1.9rem, 5.5vw, 3.1rem); line-height: 1.1; letter-spacing: -0.025em; margin: 0 0 0.8rem;
  text-wrap: balance; }
h2 { font-size: 1.45rem; letter-spacing: -0.015em; margin: 3.2rem 0 0.4rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 0.7rem; color: var(--soft); font-weight: 600; }
p { max-width: 68ch; margin: 0 0 1rem; }
a { color: var(--accent); }
.lead { font-size: clamp(1.05rem, 2.4vw, 1.22rem); color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 0.8rem; margin: 1.8rem 0 0;
  padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 0.8rem 1rem;
  color: var(--soft); font-size: 0.85rem; line-height: 1.35; }
.facts b { display: block; color: var(--ink); font-size: 1.45rem; letter-spacing: -0.02em; }
.films { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1.2rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden; }
figure.wide { max-width: 780px; }
figure.small { max-width: 514px; }
video, figure img { display: block; width: 100%; height: auto; background: #000; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); text-align: center; font-size: 0.78rem;
  color: var(--soft); padding: 0.4rem 0; }
.tiles b { color: var(--accent); }
figcaption { padding: 0.7rem 1rem 0.9rem; border-top: 1px solid var(--line); font-size: 0.9rem; }
figcaption small { color: var(--soft); font-size: 0.82rem; }
details { border-top: 1px solid var(--line); }
summary { padding: 0.55rem 1rem; cursor: pointer; font-size: 0.85rem; color: var(--accent); }
.failed { border-left: 3px solid var(--bad); padding: 0.2rem 1rem; color: var(--bad); }
code { font: 0.88em ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 0.9rem 1rem;
  overflow-x: auto; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 0.85rem; }
"""

_INTRODUCTION = """<h1>One picture, another’s motion, any side</h1>
<p class="lead">Portrait4D turns one portrait into a head that moves and can be turned around. The small demonstration
network below was trained on made-up people only, and has never seen the persons and clips on this page. It was given
one picture of each person; motion is read from the driving pictures. Since these people are computed, the true
picture is known for every frame.</p>"""

_COMMANDS = """portrait4d-reenact --outdir results             # all bundled portraits by a bundled clip
portrait4d-animate --source FOLDER --driving FILM --out film.mp4
portrait4d-export --out head.glb --motion synthetic
portrait4d-sample-heads --seeds 0-15 --grid --outdir heads"""


def build_page(results: DemoResults) -> str:
    """Return the page as HTML; files are named relative to it."""
    sections = [_INTRODUCTION, _facts(results), _pairs(results), _orbit(results), _mesh(results), _heads(results)]
    body = "\n".join([*sections, _failures(results), _own(), _foot(results)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Portrait4D: demonstration</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _facts(results: DemoResults) -> str:
    facts = [
        (f"{results.parameters / 1e6:.2f} M", "parameters"),
        (f"{results.frame_ms:.0f} ms", "a frame on this machine, reading the motion included (median)"),
        (f"{results.size} × {results.size}", "pixels"),
    ]
    if (mean := results.closeness) is not None:
        facts.append(
            (f"{mean.head:.1f} dB", f"PSNR of the head against truth; the unchanged source: {mean.copy_head:.1f}")
        )
    items = "\n".join(f"<li><b>{escape(value)}</b>{escape(text)}</li>" for value, text in facts)
    return f'<ul class="facts">\n{items}\n</ul>'


def _pairs(results: DemoResults) -> str:
    if not results.pairs:
        return ""
    parts = [
        "<h2>Reenactment</h2>",
        "<p>The person on the left does what the person in the middle does. Below: the shape the network sees in it, "
        "the true picture, and where the result differs from it (black: not at all; white: by half of full "
        "brightness or more).</p>",
    ]
    for number, person in enumerate(dict.fromkeys(pair.person for pair in results.pairs), 1):
        films = "\n".join(_pair(pair) for pair in results.pairs if pair.person == person)
        parts.append(f'<h3>Person {number}</h3>\n<div class="films">\n{films}\n</div>')
    return "\n".join(parts)


def _pair(pair: Pair) -> str:
    strip = (
        f'<img loading="lazy" src="{_link(pair.strip)}" alt="driving pictures, results and true pictures over time">'
    )
    return f"""<figure>
{_tiles("source", "driving", "<b>result</b>")}
{_video(pair.film, f"person {pair.person} driven by clip {pair.clip}")}
{_tiles("shape", "truth", "error")}
<figcaption>Clip {pair.clip + 1}: {_closeness(pair.closeness)}</figcaption>
<details><summary>Moment by moment: driving, result, truth</summary>{strip}</details>
</figure>"""


def _orbit(results: DemoResults) -> str:
    if results.orbit is None:
        return ""
    return f"""<h2>From all sides</h2>
<p>The same network, the same single picture: the camera moves 30 degrees to each side.</p>
<figure class="wide">
{_tiles("<b>result</b>", "truth", "shape")}
{_video(results.orbit.film, "a head seen from all sides")}
<figcaption>{_closeness(results.orbit.closeness)}</figcaption>
</figure>"""


def _mesh(results: DemoResults) -> str:
    if results.mesh is None:
        return ""
    mesh = results.mesh
    return f"""<h2>A mesh to take along</h2>
<p><a href="{_link(mesh.path)}" download>{escape(mesh.path.name)}</a>: the head above with its colours,
{mesh.vertices:,} vertices and {mesh.triangles:,} triangles, in metres, for Blender and any viewer of glTF.</p>
<figure class="wide"><img loading="lazy" src="{_link(mesh.picture)}" alt="the mesh from three sides"></figure>"""


def _heads(results: DemoResults) -> str:
    if results.heads is None:
        return ""
    return f"""<h2>People who were never there</h2>
<p>GenHead makes heads up from random numbers; it learnt from single pictures. Its bundled network is a first stage: how
far its training went is in the card of the weights.</p>
<figure class="small"><img loading="lazy" src="{_link(results.heads)}" alt="made-up heads"></figure>"""


def _failures(results: DemoResults) -> str:
    if not results.failures:
        return ""
    rows = "\n".join(f"<p>{escape(name)}: {escape(problem)}</p>" for name, problem in results.failures.items())
    return f'<h2>What could not be made</h2>\n<div class="failed">\n{rows}\n</div>'


def _own() -> str:
    return f"""<h2>Your turn</h2>
<pre><code>{escape(_COMMANDS)}</code></pre>
<p>Photos of people need a published network and its weights; README says how. The demonstration network knows
made-up people only.</p>"""


def _foot(results: DemoResults) -> str:
    return (
        f"<footer>Made on this machine in {results.total_s:.0f} s. All people on this page are computed; no photo was "
        "used. Peak of PSNR: full brightness; mean over the frames of a film.</footer>"
    )


def _closeness(closeness: Closeness) -> str:
    return (
        f"PSNR of the head <b>{closeness.head:.1f}&nbsp;dB</b>, unchanged source {closeness.copy_head:.1f}&nbsp;dB<br>"
        f"<small>whole picture {closeness.whole:.1f}&nbsp;dB, unchanged source {closeness.copy_whole:.1f}&nbsp;dB"
        "</small>"
    )


def _tiles(*labels: str) -> str:
    return '<div class="tiles">' + "".join(f"<span>{label}</span>" for label in labels) + "</div>"


def _video(film: Film, what: str) -> str:
    return (
        f'<video src="{_link(film.path)}" poster="{_link(film.poster)}" aria-label="{escape(what, quote=True)}" '
        "autoplay loop muted playsinline></video>"
    )


def _link(path: Path) -> str:
    return escape(path.as_posix(), quote=True)
