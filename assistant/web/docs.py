"""Document the REST routes: `/openapi.json`, and the same as a page that works offline, `/docs`."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from assistant.settings import Settings
from assistant.web.bodies import Body, show_limit
from assistant.web.render import page_html, text

Schema = Mapping[str, Any]

_HOST = re.compile(r"(?:[\w.-]+|\[[\w.:]+\])(?::[0-9]{1,5})?", re.ASCII)
_TITLE = "Support assistant"
_ABOUT = (
    "Answers from the guide in its own words, with a calibrated confidence, and the way to a "
    "person. Offsets count characters. Errors are problem+json (RFC 9457); with 429 and 503 comes "
    "Retry-After. A `url` that begins with / is relative to this service."
)
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {
            "type": "string",
            "description": "a sentence that says what to do; in Chinese and English, as … / …, "
            "where a person may be shown it",
        },
        "instance": {"type": "string", "description": "the id of the request in the log"},
    },
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
}


def docs(api: APIRouter, settings: Settings) -> APIRouter:
    """Return the routes that document an API."""
    schema = openapi(api, settings)
    written = json.dumps(schema, ensure_ascii=False, indent=1).encode()
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    def openapi_json() -> Response:
        return Response(written, media_type="application/json")

    @router.get("/docs")
    def docs_page(request: Request) -> Response:
        page = page_html(f"{_TITLE} · REST", docs_html(schema, _address(request)), "en")
        return HTMLResponse(page, headers=_HEADERS)

    return router


def _address(request: Request) -> str:
    """Return what a reader reached us by; the Guard knows the host, and nothing else is taken."""
    host = request.headers.get("host", "")
    return f"{request.url.scheme}://{host if _HOST.fullmatch(host) else 'localhost'}"


def openapi(api: APIRouter, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document of an API; every route may also refuse, with a problem."""
    schema = get_openapi(title=_TITLE, version="1", description=_ABOUT, routes=api.routes)
    parts = schema.setdefault("components", {})
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    unused = ("HTTPValidationError", "ValidationError")
    shapes = {name: one for name, one in parts["schemas"].items() if name not in unused}
    for body in Body.__subclasses__():
        if body.__name__ in shapes:
            show_limit(shapes[body.__name__], settings.max_question_chars)
    parts["schemas"] = {**shapes, "Problem": _PROBLEM}
    _show_nulls(schema, api)
    refused = {"$ref": "#/components/schemas/Problem"}
    for _, _, operation in _operations(schema):
        operation["responses"].pop("422", None)
        operation["responses"]["default"] = {
            "description": "Refused",
            "content": {"application/problem+json": {"schema": refused}},
        }
    return schema


def _show_nulls(schema: Schema, api: APIRouter) -> None:
    """Put the examples in again as they are: FastAPI leaves out whatever is null."""
    for route in api.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                told = schema["paths"][route.path_format][method.lower()]["responses"]
                for status, answer in route.responses.items():
                    for kind, content in answer["content"].items():
                        told[str(status)]["content"][kind]["example"] = content["example"]


def _operations(schema: Schema) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every operation."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


# --- The page ------------------------------------------------------------------------------------


def docs_html(schema: Schema, address: str) -> str:
    """Write an OpenAPI document as HTML; `address` is where its routes are."""
    operations = list(_operations(schema))
    contents = "".join(
        f'<li><a href="#{_anchor(method, path)}">{text(f"{method} {path}")}</a></li>'
        for method, path, _ in operations
    )
    shown = "".join(_operation(schema, address, *one) for one in operations)
    return (
        f"<style>{_CSS}</style><h1>{text(schema['info']['title'])}: REST</h1>"
        f"<p>{text(schema['info']['description'])}</p>"
        f'<p><a href="/openapi.json">OpenAPI document</a></p>'
        f'<nav aria-label="Routes"><ul class="routes">{contents}</ul></nav>{shown}'
    )


def _operation(schema: Schema, address: str, method: str, path: str, operation: Schema) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    fields = _shape(schema, body.get("schema", {}))
    status, answer = next(iter(operation["responses"].items()))
    contents: dict[str, Schema] = answer.get("content", {})
    kind = next(iter(contents), "")
    signed_in = "security" in operation
    token = '<p class="meta">Needs a token: <code>Authorization: Bearer …</code></p>'
    parts = (
        f"<p>{text(operation.get('description', ''))}</p>",
        token if signed_in else "",
        _table(_parameters(operation), "Parameter"),
        _table(_fields(fields), "Field of the body"),
        _request(f"{address}{path}", fields, signed_in) if fields else "",
        _example(f"{status} {kind}", contents.get(kind, {}).get("example")),
    )
    anchor = _anchor(method, path)
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}"><code>{method} {text(path)}</code>'
        f"</h2>{''.join(parts)}</section>"
    )


def _anchor(method: str, path: str) -> str:
    return text((method + path).replace("/", "-").replace("{", "").replace("}", "").lower())


Row = tuple[str, str, str]


def _parameters(operation: Schema) -> list[Row]:
    return [
        (one["name"], _type(one["schema"], one["required"]), _words(one, one["schema"]))
        for one in operation.get("parameters", [])
    ]


def _shape(schema: Schema, body: Schema) -> Schema:
    """Return the schema that a body refers to, {} for a route without one."""
    choices: list[Schema] = [body, *body.get("anyOf", [])]
    for one in choices:
        if "$ref" in one:
            shape: Schema = schema["components"]["schemas"][one["$ref"].rpartition("/")[2]]
            return shape
    return {}


def _fields(shape: Schema) -> list[Row]:
    """Return the fields of a body: name, type with its caps, meaning."""
    required = shape.get("required", [])
    return [
        (name, _type(one, name in required), _words(one))
        for name, one in shape.get("properties", {}).items()
    ]


def _request(url: str, shape: Schema, signed_in: bool) -> str:
    """Write a request as it can be typed."""
    given = {
        name: one["examples"][0] for name, one in shape["properties"].items() if "examples" in one
    }
    body = json.dumps(given, ensure_ascii=False)
    token = "-H 'Authorization: Bearer …' " if signed_in else ""
    url = url.replace("{number}", "12")
    typed = f"curl {token}-H 'Content-Type: application/json' -d '{body}' {url}"
    return f'<pre tabindex="0">{text(typed)}</pre>'


def _words(*parts: Schema) -> str:
    return next((part["description"] for part in parts if "description" in part), "")


def _type(one: Schema, required: bool) -> str:
    """Say in a few words what a value must be."""
    choices = [part for part in one.get("anyOf", [one]) if part.get("type") != "null"]
    one = {**one, **choices[0]}
    values = one.get("enum") or ([one["const"]] if "const" in one else [])
    kind = " | ".join(json.dumps(value) for value in values) or str(one.get("type", "any"))
    for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("minLength", "≥"), ("maxLength", "≤")):
        if key in one:
            unit = "" if key.endswith("imum") else f" character{'s' * (one[key] > 1)}"
            kind += f", {sign} {one[key]:,}{unit}"
    if not required and one.get("default") not in (None, ""):
        kind += f", default {json.dumps(one['default'])}"
    return kind + (", required" if required else "")


def _table(rows: list[Row], heading: str) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{text(name)}</code></td><td>{text(kind)}</td><td>{text(words)}</td></tr>"
        for name, kind, words in rows
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">{heading}</th>'
        f'<th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>'
        f"<tbody>{cells}</tbody></table></div>"
    )


def _example(label: str, example: Any) -> str:
    if example is None:
        return f'<p class="meta">Answer: {text(label.strip())}</p>'
    shown = (
        example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, indent=2)
    )
    return (
        f"<details><summary>Answer: {text(label)}</summary>"
        f'<pre tabindex="0">{text(shown)}</pre></details>'
    )


_CSS = """
h2{font-size:1.05rem;margin:2rem 0 .25rem;overflow-wrap:anywhere}
section{border-top:1px solid var(--line)}
.routes{columns:20rem;padding-left:1.2rem}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.95rem}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;
border-bottom:1px solid var(--line)}
pre{overflow-x:auto;border:1px solid var(--line);border-radius:.25rem;padding:.75rem;
line-height:1.5}
summary{cursor:pointer}summary:focus-visible,pre:focus-visible{outline:3px solid var(--link)}
"""
