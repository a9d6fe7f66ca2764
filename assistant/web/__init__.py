"""The web application: the Gradio page and the source viewer, behind one guard."""

from assistant.web.app import create_app, serve

__all__ = ["create_app", "serve"]
