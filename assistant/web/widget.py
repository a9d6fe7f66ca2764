"""Serve the script that opens the ask page on other sites: one tag, one button, one frame."""

from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

_SCRIPT = (Path(__file__).parent / "static" / "widget.js").read_bytes()
_HEADERS = {
    "etag": f'"{sha256(_SCRIPT).hexdigest()[:16]}"',
    "cache-control": "public, max-age=3600",
    "cross-origin-resource-policy": "cross-origin",  # the one file that other sites may load
}


def widget_routes(app: FastAPI) -> None:
    """Add `/widget.js`; the setting `widget_origins` says which sites may then show the page."""

    @app.get("/widget.js", include_in_schema=False)
    def widget(request: Request) -> Response:
        if request.headers.get("if-none-match") == _HEADERS["etag"]:
            return Response(status_code=304, headers=_HEADERS)
        return Response(_SCRIPT, headers=_HEADERS, media_type="text/javascript")
