"""Write the pages behind the sign-in: one frame, two languages, escaped, and a strict policy."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from assistant.access import Access, Person
from assistant.answer import Language
from assistant.web.office_words import words
from assistant.web.wording import preferred, tag

SESSION = "assistant_session"  # the cookie that holds a session
_LANGUAGE = "lang"
_YEAR = 365 * 24 * 3600
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with the Guard's `no-referrer`, forms come from no origin
    "cache-control": "no-store",
    "vary": "Accept-Language, Cookie",
}
_HERE = Path(__file__).parent
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
# The files that pages may name, a new one to be added here; nothing else of the disk is served.
_STATIC = {
    name: (_HERE / "static" / name).read_bytes()
    for name in ("office.css", "office.js", "agent.js", "maintain.js")
}
_PAGES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def office(
    name: str, request: Request, person: Person | None, status: int = 200, **values: object
) -> HTMLResponse:
    """Return the page of a template, e.g. "login.html", filled with values.

    Every template also knows `person`, `language`, its `tag`, the request's `path`, `say(key,
    **values)`, `static(name)`, `form_token`, and `other`, the same page in the other language.
    Every POST form holds `{{ token_field() }}` of `_parts.html`; a script sends `form_token`, which
    is in the page's <meta name="form-token">, as the header X-Form-Token.
    """
    language = language_of(request)
    given = {
        "person": person,
        "language": language,
        "tag": tag(language),
        "path": request.url.path,
        "say": partial(_say, language),
        "static": static,
        "form_token": form_token(request),
        "other": _in_language(request, "en" if language == "zh" else "zh"),
    }
    page = _PAGES.get_template(name).render({**given, **values})
    answer = HTMLResponse(page, status, headers=_HEADERS)
    if request.query_params.get(_LANGUAGE) == language:
        answer.set_cookie(
            _LANGUAGE, language, _YEAR, httponly=True, samesite="lax", secure=is_https(request)
        )
    return answer


def language_of(request: Request) -> Language:
    """Return the language of a page: chosen just now, chosen before, or the browser's."""
    for asked in (request.query_params.get(_LANGUAGE), request.cookies.get(_LANGUAGE)):
        if asked == "zh":
            return "zh"
        if asked == "en":
            return "en"
    return preferred(request.headers.get("accept-language", ""))


def form_token(request: Request) -> str:
    """Return what a form of the session at hand must carry (CSRF); "" without a session."""
    access: Access = request.app.state.access
    session = request.cookies.get(SESSION, "")
    return access.form_token(session) if session else ""


def is_https(request: Request) -> bool:
    """Tell whether the browser came by https, here or to a trusted proxy before us."""
    return request.url.scheme == "https"


def static(name: str) -> str:
    """Return the address of a file of ours; it changes with the file's content."""
    return f"/static/{name}?v={hashlib.sha256(_STATIC[name]).hexdigest()[:12]}"


def static_routes(app: FastAPI) -> None:
    """Serve the files that the pages name, to be kept by browsers for a year."""
    for name, content in _STATIC.items():
        app.add_api_route(f"/static/{name}", _serving(name, content), include_in_schema=False)


def _serving(name: str, content: bytes) -> Callable[[], Response]:
    kind = _KINDS[name.rpartition(".")[2]]

    def serve() -> Response:
        kept = {"cache-control": f"public, max-age={_YEAR}, immutable"}
        return Response(content, headers=kept, media_type=kind)

    return serve


def _say(language: Language, key: str, **values: object) -> str:
    return words(key, language, **values)


def _in_language(request: Request, language: Language) -> str:
    """Return the address of the page at hand in a language."""
    kept = [(key, value) for key, value in request.query_params.multi_items() if key != _LANGUAGE]
    return f"?{urlencode([*kept, (_LANGUAGE, language)])}"
