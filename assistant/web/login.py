"""Let people in and out: the sign-in page, the cookie of a session, and what a route needs."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import quote, urlsplit

import anyio
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from assistant.access import Access, Person, Role
from assistant.web.office import SESSION, is_https, language_of, office
from assistant.web.office_words import words
from assistant.web.plain import for_a_person
from assistant.web.problems import problem

_VISIT = "assistant_visit"  # the cookie that the sign-in form is bound to, before any session
_HOME: dict[Role, str] = {"agent": "/agent", "maintainer": "/maintain"}
_CHALLENGE = {"www-authenticate": 'Bearer realm="assistant"'}
_HASHES_AT_ONCE = 2  # each takes 64 MiB and a core
_SAFE = ("GET", "HEAD", "OPTIONS")
_WRITTEN = ("note", "questions", "passage", "answer")  # fields that take a person time
_log = logging.getLogger(__name__)


class _Turned(Exception):
    """Carry the response of a request that is not let in out of a dependency."""

    def __init__(self, response: Response) -> None:
        self.response = response


def sign_in_routes(app: FastAPI, access: Access) -> None:
    """Add `/login` and `/logout`, and let `needs` and `person_of` work in this application."""
    app.state.access = access
    app.state.hashing = anyio.CapacityLimiter(_HASHES_AT_ONCE)
    app.add_exception_handler(_Turned, _turned)
    for path, method, answer in (
        ("/login", "GET", _ask_who),
        ("/login", "POST", _sign_in),
        ("/logout", "POST", _sign_out),
        ("/logout", "GET", _not_by_link),
    ):
        app.add_api_route(path, answer, methods=[method], include_in_schema=False)


def person_of(request: Request) -> Person | None:
    """Return who a request comes from, by its bearer token or else by its cookie."""
    access: Access = request.app.state.access
    if (token := bearer(request)) is not None:
        return access.by_token(token)
    return access.read_session(request.cookies.get(SESSION, ""))


def bearer(request: Request) -> str | None:
    """Return the token that a program sends; None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def needs(role: Role) -> Callable[[Request], Awaitable[Person]]:
    """Return a dependency that gives the person at hand, who may do what a role may.

    Others are turned away: a browser on its way to a page to `/login`, everything else with a
    problem, 401 or 403. What changes something and comes with a cookie must also hold the form
    token of that session, as the field `form_token` or the header X-Form-Token (CSRF).
    """

    async def person(request: Request) -> Person:
        found = person_of(request)
        if found is None:
            raise _Turned(await _unknown(request))
        if not found.may(role):
            raise _Turned(await _not_allowed(request, found, role))
        if request.method not in _SAFE and not await _is_ours(request):
            raise _Turned(await _old_form(request, found))
        return found

    return person


# --- Routes --------------------------------------------------------------------------------------


async def _ask_who(request: Request) -> Response:
    token = request.query_params.get("token")
    if token is None:
        return _form(request, 200, "")
    person = _access(request).by_token(token)
    if person is None:  # away from the address that holds what may be a mistyped token
        return RedirectResponse("/login?wrong", 303, {"cache-control": "no-store"})
    return _let_in(request, person, request.query_params.get("next", ""))


async def _sign_in(request: Request) -> Response:
    access = _access(request)
    sent = await request.form(max_files=0)
    form = {name: value for name, value in sent.items() if isinstance(value, str)}
    if not access.is_form_token(form.get("visit_token", ""), request.cookies.get(_VISIT, "")):
        return _form(request, 403, "stale", form.get("next", ""))
    if "token" in form:
        person = access.by_token(form["token"].strip())
    else:
        name, password = form.get("name", "").strip(), form.get("password", "")
        limiter = request.app.state.hashing
        person = await anyio.to_thread.run_sync(access.by_password, name, password, limiter=limiter)
    if person is None:
        _log.warning("a sign-in failed from %s", request.client.host if request.client else "?")
        return _form(request, 401, "wrong", form.get("next", ""), form.get("name", ""))
    return _let_in(request, person, form.get("next", ""))


async def _sign_out(request: Request) -> Response:
    if not await _is_ours(request):
        return await _old_form(request, person_of(request))
    _access(request).end_session(request.cookies.get(SESSION, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION)
    return answer


async def _not_by_link() -> Response:
    """Change nothing: a picture on another site could ask for an address too."""
    return RedirectResponse("/login", 303)


def _form(
    request: Request, status: int, trouble: str, onward: str = "", typed_name: str = ""
) -> Response:
    """Write the sign-in page, bound to a cookie of this visit (a stranger cannot fill it in)."""
    access = _access(request)
    visit = request.cookies.get(_VISIT) or secrets.token_urlsafe(18)
    asked = request.query_params
    page = office(
        "login.html",
        request,
        person_of(request),
        status,
        trouble=trouble or ("wrong" if "wrong" in asked else ""),
        next=local_path(onward or asked.get("next", "")),
        typed_name=typed_name,
        takes_passwords=access.takes_passwords,
        takes_tokens=access.takes_tokens,
        visit_token=access.form_token(visit),
    )
    if status == 401:
        page.headers.update(_CHALLENGE)
    _set(page, _VISIT, visit, request)
    return page


def _let_in(request: Request, person: Person, onward: str) -> Response:
    access: Access = request.app.state.access
    _log.info("%s signed in as %s", person.name, person.role)
    onward = local_path(onward) or _HOME[person.role]
    answer = RedirectResponse(onward, 303, {"cache-control": "no-store"})
    _set(answer, SESSION, access.new_session(person), request)
    return answer


def _set(answer: Response, name: str, value: str, request: Request) -> None:
    # Not `Strict`: a ticket's link in a mail, or the link printed at start when it was sent on in
    # a chat, would then arrive without the cookie. Forms are guarded by their token and by Origin.
    answer.set_cookie(
        name, value, path="/", httponly=True, samesite="lax", secure=is_https(request)
    )


def local_path(address: str) -> str:
    r"""Return an address when it leads to a path of ours, else "".

    Browsers read `\` as `/` and skip control characters, so `/\evil` leads to a host named evil.
    """
    plain = address.isprintable() and " " not in address and "\\" not in address
    return address if plain and address.startswith("/") and not address.startswith("//") else ""


# --- Turning away --------------------------------------------------------------------------------


def _turned(request: Request, error: Exception) -> Response:
    assert isinstance(error, _Turned)
    return error.response


async def _unknown(request: Request) -> Response:
    seen = for_a_person(request.headers)
    if seen and request.method in _SAFE:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(here, safe='/')}", 303)
    if seen:
        return await _refused(request, None, 401, words("signed_out", language_of(request)))
    said = "Sign in, or send a token of this service as `Authorization: Bearer …`."
    return problem(401, said, _CHALLENGE)


async def _not_allowed(request: Request, person: Person, role: Role) -> Response:
    if for_a_person(request.headers):
        language = language_of(request)
        needed, mine = words(f"role_{role}", language), words(f"role_{person.role}", language)
        said = words("only_for", language, role=needed, mine=mine)
        return await _refused(request, person, 403, said)
    return problem(403, f"This needs the role {role}; you have the role {person.role}.")


async def _old_form(request: Request, person: Person | None) -> Response:
    if for_a_person(request.headers):
        return await _refused(request, person, 403, words("old_form", language_of(request)))
    return problem(403, "Send the session's form token: field form_token or header X-Form-Token.")


async def _refused(request: Request, person: Person | None, status: int, said: str) -> Response:
    page = office(
        "refused.html",
        request,
        person,
        status,
        heading="ended" if status == 401 else "not_allowed",
        words=said,
        typed=await _typed(request),
        onward=_page_left(request),
    )
    if status == 401:
        page.headers.update(_CHALLENGE)
    return page


def _page_left(request: Request) -> str:
    """Return the page of ours for staff that a request was made from; "" when none is told."""
    with suppress(ValueError):
        left = urlsplit(request.headers.get("referer", ""))
        path = left.path + (f"?{left.query}" if left.query else "")
        return local_path(path) if path.startswith(tuple(_HOME.values())) else ""
    return ""


async def _typed(request: Request) -> list[str]:
    """Return what a person wrote into a form that is not taken, to be kept by copying it."""
    sent = {} if request.method in _SAFE else await request.form(max_files=0)
    values = (sent.get(name) for name in _WRITTEN)
    return [value for value in values if isinstance(value, str) and value.strip()]


async def _is_ours(request: Request) -> bool:
    """Tell whether a request was made by a page of this session, or by a program with a token."""
    if bearer(request) is not None:
        return True
    given = request.headers.get("x-form-token") or (await request.form(max_files=0)).get(
        "form_token"
    )
    session = request.cookies.get(SESSION, "")
    return isinstance(given, str) and _access(request).is_form_token(given, session)


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access
