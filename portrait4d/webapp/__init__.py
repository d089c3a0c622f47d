"""The web app: a page that plays with a head, served to this machine. Needs the extra `app` (gradio)."""
