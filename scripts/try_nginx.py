"""Run the product behind nginx as docs/deploy/nginx.conf says, on this machine alone, and ask.

Needs nginx and openssl. Ports, name and certificate are the only words of the configuration that
differ; everything lies in a temporary folder. Prints a line for each thing that was tried, and ends
with 1 at the first that is not as it should be.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parent.parent
CONFIGURATION = REPOSITORY / "docs" / "deploy" / "nginx.conf"
NAME = "help.example.com"
RATE = 40
PATIENCE = 60
TRIED: list[Callable[["Place"], str]] = []


class Place:
    """Hold where nginx and the product listen, and the certificate that is to be trusted."""

    product: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls, self.plain, self.inner = (_free_port() for _ in range(3))
        self.trusted = ssl.create_default_context()
        self.token = secrets.token_urlsafe(24)

    def client(self, address: str = "127.0.0.1", name: str = NAME) -> httpx.Client:
        """Return a client that takes nginx for the named host and comes from an address."""
        transport = httpx.HTTPTransport(verify=self.trusted, local_address=address)
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.tls}",
            headers={"Host": name},
            transport=_Named(transport),
            timeout=PATIENCE,
        )


class _Named(httpx.BaseTransport):
    """Ask for the host by its name in TLS too."""

    def __init__(self, transport: httpx.HTTPTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        request.extensions["sni_hostname"] = NAME
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def main() -> int:
    """Start both, try everything, end both."""
    missing = [name for name in ("nginx", "openssl") if _found(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}. Debian: apt install {' '.join(missing)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="try-nginx-") as folder:
        place = Place(Path(folder))
        _certify(place)
        with _product(place), _nginx(place):
            for one in TRIED:
                print(
                    f"{one.__name__.removeprefix('_').replace('_', ' ')}: {one(place)}", flush=True
                )
    print("all as it should be")
    return 0


# --- What is tried -------------------------------------------------------------------------------


def _try(one: Callable[[Place], str]) -> Callable[[Place], str]:
    TRIED.append(one)
    return one


def _see(truth: object, *seen: object) -> None:
    if not truth:
        raise SystemExit(f"not as it should be: {seen}")


@_try
def _the_page(place: Place) -> str:
    answer = place.client().get("/")
    _see(answer.status_code == 200 and 'id="loading"' in answer.text, answer)
    names = Counter(name.lower() for name, _ in answer.headers.multi_items())
    _see(max(names.values()) == 1, names)
    for name in ("strict-transport-security", "content-security-policy", "x-content-type-options"):
        _see(name in names, names)
    files = set(re.findall(r'"\.?(/?assets/[^"]+\.(?:js|css))"', answer.text))
    for name in files:
        found = place.client().get("/" + name.lstrip("/"))
        _see(found.status_code == 200, name, found)
    return f"with {len(files)} of its files, every header once"


@_try
def _plain_http(place: Place) -> str:
    answer = httpx.get(f"http://127.0.0.1:{place.plain}/agent?x=1", headers={"Host": NAME})
    there = answer.headers["location"]
    _see((answer.status_code, there) == (301, f"https://{NAME}/agent?x=1"), answer)
    return f"led to {there}"


@_try
def _http_2(place: Place) -> str:
    trusted = ssl.create_default_context(cafile=place.folder / "certificate.pem")
    trusted.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", place.tls))
    with trusted.wrap_socket(plain, server_hostname=NAME) as safe:
        spoken = safe.selected_alpn_protocol(), safe.version()
    _see(spoken == ("h2", "TLSv1.3"), spoken)
    return "spoken, over TLS 1.3"


@_try
def _rest(place: Place) -> str:
    answer = place.client().post("/api/v1/ask", json={"question": "充值没到账怎么办"})
    _see(answer.status_code == 200 and answer.json()["verdict"] == "answered", answer.text)
    return answer.json()["verdict"]


@_try
def _signing_in(place: Place) -> str:
    client = place.client()
    answer = client.get("/login", params={"token": place.token})
    _see(answer.status_code == 303 and "; Secure" in answer.headers["set-cookie"], answer.headers)
    metrics = client.get("/metrics", headers={"Cookie": ""})
    _see(metrics.status_code == 401, metrics)
    return "with a cookie for HTTPS alone; the metrics are not for those who come through nginx"


@_try
def _the_event_stream(place: Place) -> str:
    """Ask as the page does, and see that what is told at once is heard at once."""
    client, session = place.client("127.0.0.9"), "abcdefgh12"
    listeners = client.get("/config").json()["dependencies"]
    turn = next(one["id"] for one in listeners if one["api_name"] == "turn")
    body = {"data": ["充值没到账怎么办", ""], "fn_index": turn, "session_hash": session}
    origin = {"Origin": f"https://{NAME}"}
    joined = client.post("/gradio_api/queue/join", json=body, headers=origin)
    _see(joined.status_code == 200, joined.text)
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as told:
        _see(any("process_completed" in line for line in told.iter_lines()), told)
    started = time.monotonic()
    with client.stream("GET", f"/gradio_api/heartbeat/{session}") as told:
        first = next(told.iter_raw())
        took = time.monotonic() - started
    _see(took < 5, first, took)
    return f"an answer through the queue; a heartbeat heard after {took:.2f} s, while it goes on"


@_try
def _large_bodies(place: Place) -> str:
    client = place.client()
    ours = client.post("/api/v1/ask", json={"question": "长" * 100_000})
    _see(ours.status_code == 413, ours)
    _see(ours.headers["content-type"] == "application/problem+json", ours.headers)
    outer = client.post("/api/v1/ask", content=b"x" * (2 << 20))
    _see(outer.status_code == 413 and "nginx" in outer.text, outer.text)
    return "413 from the program above 256 kB, from nginx above 1 MB"


@_try
def _foreign_hosts(place: Place) -> str:
    by_header = place.client(name="evil.example").get("/")
    _see(
        by_header.status_code == 421 and "content-security-policy" not in by_header.headers,
        by_header,
    )
    try:
        httpx.get(f"https://localhost:{place.tls}/", verify=place.trusted)
        _see(False, "a handshake with another name")
    except httpx.ConnectError as error:
        _see("unrecognized name" in str(error).lower(), error)
    inner = httpx.get(f"http://127.0.0.1:{place.inner}/", headers={"Host": "evil.example"})
    _see(inner.status_code == 400, inner)
    return "421, or no handshake; 400 from the program itself"


@_try
def _client_addresses(place: Place) -> str:
    """Count a client by its connection to nginx, and by no address that it claims."""
    one, other = place.client("127.0.0.2"), place.client("127.0.0.3")
    codes = Counter(
        one.get(
            "/api/v1/generation", headers={"X-Forwarded-For": f"198.51.100.{number}"}
        ).status_code
        for number in range(2 * RATE)
    )
    _see(codes[200] >= RATE and codes[429] >= 10 and len(codes) == 2, codes)
    _see(other.get("/api/v1/generation").status_code == 200, other)
    return f"{codes[200]} of {2 * RATE} taken from one that claimed many, the next served"


@_try
def _while_it_is_away(place: Place) -> str:
    """Tried last, for the product is ended."""
    place.product.terminate()
    place.product.wait(PATIENCE)
    answer = place.client("127.0.0.4").get("/")
    _see((answer.status_code, answer.headers["retry-after"]) == (503, "10"), answer)
    _see(answer.headers["content-type"] == "text/html; charset=utf-8", answer.headers)
    _see("strict-transport-security" in answer.headers, answer.headers)
    _see("官方应用" in answer.text and "official app" in answer.text, answer.text)
    return "503, with where to turn in two languages"


# --- What is started -----------------------------------------------------------------------------


def _certify(place: Place) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        [
            *command.split(),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", "key.pem", "-out", "certificate.pem"),
        ],
        cwd=place.folder,
        check=True,
        capture_output=True,
    )
    place.trusted.load_verify_locations(place.folder / "certificate.pem")


@contextmanager
def _product(place: Place) -> Iterator[None]:
    """Serve by two workers, with the settings that docs/deploy.md names."""
    told = {
        "ASSISTANT_ALLOWED_HOSTS": f'["{NAME}"]',
        "ASSISTANT_TRUSTED_PROXIES": '["127.0.0.1"]',
        "ASSISTANT_RATE_PER_MINUTE": str(RATE),
        "ASSISTANT_AGENT_TOKEN": place.token,
        "ASSISTANT_CORPUS": str(REPOSITORY / "corpus"),
        "PYTHONPATH": str(REPOSITORY),
    }
    options = f"-m assistant.cli serve --workers 2 --port {place.inner}".split()
    with _running([sys.executable, *options], place.folder, told) as process:
        _wait(place.inner, process)
        place.product = process
        yield


@contextmanager
def _nginx(place: Place) -> Iterator[None]:
    (place.folder / "site.conf").write_text(_site(place))
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{one}_temp_path {place.folder}/{one}; " for one in paths)
    (place.folder / "nginx.conf").write_text(
        f"{'user root; ' if os.geteuid() == 0 else ''}daemon off; pid {place.folder}/nginx.pid; "
        "error_log stderr; events { worker_connections 256; } "
        f"http {{ access_log off; {temporary} include {place.folder}/site.conf; }}\n"
    )
    command = [str(_found("nginx")), "-p", str(place.folder), "-c", "nginx.conf"]
    with _running([*command, "-e", "stderr"], place.folder, {}) as process:
        _wait(place.tls, process)
        yield


def _site(place: Place) -> str:
    """Return the configuration with the few words changed that must differ here."""
    text = CONFIGURATION.read_text()
    for old, new, times in (
        ("listen 443 ", f"listen 127.0.0.1:{place.tls} ", 2),
        ("listen 80;", f"listen 127.0.0.1:{place.plain};", 1),
        ("listen [::]:443 ", "# listen [::]:443 ", 2),
        ("listen [::]:80;", "# listen [::]:80;", 1),
        ("127.0.0.1:7860;", f"127.0.0.1:{place.inner};", 1),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", f"{place.folder}/certificate.pem", 1),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", f"{place.folder}/key.pem", 1),
    ):
        _see(text.count(old) == times, f"{old!r} stands {text.count(old)} times in {CONFIGURATION}")
        text = text.replace(old, new)
    return text


@contextmanager
def _running(
    command: list[str], folder: Path, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **variables})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            lives = process.poll() is None and time.monotonic() < until
            _see(lives, f"nobody listens on port {port}")
            time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


if __name__ == "__main__":
    sys.exit(main())
