"""The web application through its public door: a real server, real requests."""

import asyncio
import html
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from server import PATIENCE, REPOSITORY, Server, asked, running

from assistant.build import build
from assistant.settings import Settings
from assistant.web.guard import Guard

GUIDE = "topay-contact-guide.md"


HOSTILE = """# <script>alert(1)</script> ${alert(2)} {{value}}

## 彩虹独角兽 <img src=x onerror=alert(3)>

彩虹独角兽住在 <b onmouseover="alert(4)">山上</b> `${alert(5)}` {{#each value}}x{{/each}} @children
<a href="javascript:alert(6)">&lt;</a> </blockquote><script>alert(7)</script>。版本0号。

## 彩虹独角兽吃什么

彩虹独角兽吃苹果。版本0号。
"""


def command(corpus: Path, index: Path) -> list[str]:
    """Return the command of `python app.py` for a guide."""
    places = ["--corpus", str(corpus), "--index", str(index)]
    return [str(REPOSITORY / "app.py"), "--port", "0", *places]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the server runs in, with a secret file in it."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "secret.txt").write_text("CANARY")
    return folder


@pytest.fixture(scope="module")
def server(folder, guide):
    """The shipped guide, served."""
    with running(command(guide.corpus, guide.index), folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client as client:
        yield client


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A small guide full of markup, served as `gradio app.py` does, and built by that."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "corpus").mkdir()
    (folder / "corpus" / "h.md").write_text(HOSTILE, "utf-8")
    watched = {"GRADIO_WATCH_DIRS": str(folder)}
    with running(command(folder / "corpus", folder / "index"), folder, **watched) as server:
        yield server


def visible(page: str) -> str:
    """Return the words of HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


# --- Answers -------------------------------------------------------------------------------------


def test_a_question_is_answered_with_the_guides_exact_words(client):
    """Every blockquote is, to the character, the span of the document that its link names."""
    text = (REPOSITORY / "corpus" / GUIDE).read_text("utf-8")
    page = asked(client, "充值没到账怎么办")
    quotes = re.findall(r"<blockquote[^>]*>(.*?)</blockquote>.*?:(\d+)–(\d+)</span>", page, re.S)
    assert quotes
    for quoted, start, end in quotes:
        assert visible(quoted) == text[int(start) : int(end)]


@pytest.mark.parametrize(
    ("question", "languages", "words"),
    [
        ("", "zh-CN,zh;q=0.9", "请用一句话描述"),
        ("？！🙂", "en-US", "describe your problem"),
        ("", "", "describe your problem"),
        ("字" * 2001, "en", "请缩短"),
        ("x" * 2001, "zh-CN", "please shorten it"),
    ],
)
def test_a_question_that_is_none_gets_a_polite_line_in_the_right_language(
    client, question, languages, words
):
    page = asked(client, question, **{"Accept-Language": languages})
    assert words in page
    assert "/ " not in visible(page)


@pytest.mark.parametrize("value", [None, 7, ["充值"], {"a": 1}, True])
def test_a_value_of_another_type_is_no_way_to_a_traceback(client, server, value):
    """Whatever the queue is sent, an answer or a polite line comes back."""
    assert 'class="answer' in asked(client, value)
    assert "Traceback" not in server.log.read_text()


def test_corpus_and_question_are_shown_as_text_and_never_as_markup(hostile):
    """The tags of an answer are ours alone, whatever guide and question contain."""
    ours = {"div", "h2", "h3", "p", "span", "strong", "ol", "ul", "li", "article", "blockquote"}
    ours |= {"mark", "b", "a", "details", "summary", "aside", "pre", "button"}
    ours |= {"section", "form", "fieldset", "legend", "label", "input", "template"}
    asking = "彩虹独角兽住在哪里 </pre><script>alert(8)</script>${alert(9)} {{x}}"
    with hostile.client as client:
        pages = [asked(client, asking), asked(client, "我要转人工 " + asking)]
    for page in pages:
        assert set(re.findall(r"</?([a-zA-Z!][^\s>]*)", page)) <= ours
        assert not re.search(r"<[^>]*\son\w+=|href=\"javascript:", page)
        assert not re.search(r"[${`]", page)
        assert '住在 <b onmouseover="alert(4)">山上</b> `${alert(5)}`' in visible(page)
    assert "<script>alert(8)</script>${alert(9)} {{x}}" in visible(pages[1])


def test_a_document_is_shown_as_text_and_never_as_markup(hostile):
    with hostile.client as client:
        page = client.get("/source/h.md?start=0&end=5").text
    assert not re.search(r"<script|<img|<b |href=\"javascript:", page)
    assert visible(page.split('<div class="document"')[1]).endswith(HOSTILE)


def test_gradio_clients_ask_and_search(server):
    """The same object that REST gives, as text; a follow-up is one by its conversation."""
    client = Client(server.url, verbose=False, analytics_enabled=False)
    answer = json.loads(client.predict("怎么联系在线客服", api_name="/ask"))
    assert answer["verdict"] == "answered"
    assert answer["saved"]
    after = json.loads(client.predict("那邮件呢", answer["conversation"], api_name="/ask"))
    assert after["conversation"] == answer["conversation"]
    assert after["quotes"][0]["headings"][-1] == "3. 电子邮件支持"
    found = json.loads(client.predict("冻结账户", 3, api_name="/search"))
    sent = {"question": "冻结账户", "top_k": 3}
    with server.client as rest:
        assert found == rest.post("/api/v1/search", json=sent).json()
        for quote in (found["hits"][0]["chunk"], answer["quotes"][0]):
            assert rest.get(quote["url"]).status_code == 200
    for name, values, words in (
        ("ask", [" "], "describe your problem"),
        ("ask", [5], "question: Input should be a valid string"),
        ("ask", ["你好", "x" * 65], "conversation: "),
        ("search", ["x", 0], "top_k: "),
        ("search", ["x", 10**9], "top_k: "),
        ("search", ["x", "y"], "top_k: Input should be a valid integer"),
        ("search", ["x", True], "top_k: "),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(*values, api_name=f"/{name}")
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/ask", "/search"}


def test_listeners_are_private_and_stay_so_by_every_name(client):
    info = client.get("/gradio_api/info").json()
    assert (set(info["named_endpoints"]), info["unnamed_endpoints"]) == ({"/ask", "/search"}, {})
    names = {one["api_name"] for one in client.get("/config").json()["dependencies"]}
    for name in [*names, "ask", "predict", "lambda"]:
        for path in ("call", "run", "api", "call/v2"):
            assert client.post(f"/gradio_api/{path}/{name}", json={"data": ["x"]}).is_client_error


# --- The source viewer ---------------------------------------------------------------------------


def test_the_source_marks_exactly_the_span(client):
    text = (REPOSITORY / "corpus" / GUIDE).read_text("utf-8")
    start = text.index("在充值过程中")
    page = client.get(f"/source/{GUIDE}?start={start}&end={start + 200}").text
    marks = re.findall(r"<mark[^>]*>(.*?)</mark>", page, re.S)
    assert visible("".join(marks)) == text[start : start + 200]
    assert f'<mark id="{start}-{start + 200}">' in page
    body = re.search(r'<div class="document"[^>]*>(.*)</div></main>', page, re.S)
    assert body
    assert visible(body[1]) == text[text.index("\n# Topay") :]


@pytest.mark.parametrize(
    "query",
    ["", "?start=9&end=3", "?start=1&end=99999999", "?start=-1&end=x", "?end=٣", "?start=&end="],
)
def test_a_span_that_is_none_shows_the_document_unmarked(client, query):
    page = client.get(f"/source/{GUIDE}{query}")
    assert page.status_code == 200
    assert "<mark" not in page.text


PLACES = ["secret.txt", "corpus/contacts.toml", "etc/passwd", "server.log", "index/CURRENT", ".env"]
WAYS = [
    "{}",
    "../{}",
    "../../../../../../{}",
    "..%2f..%2f{}",
    "%2e%2e/%2e%2e/{}",
    "%252e%252e/{}",
    "..\\..\\{}",
    "C:\\{}",
    "C:/{}",
    "/{}",
    "//{}",
    "{}%00",
    "%00{}",
    "{}::$DATA",
    "file:///{}",
    "....//{}",
]


@pytest.mark.parametrize(
    "route",
    ["/source/", "/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/", "/static/"]
    + [
        "/assets/",
        "/gradio_api/proxy=",
        "/gradio_api/stream/",
        "/gradio_api/custom_component/",
        "/",
    ],
)
def test_no_way_of_writing_a_path_reads_a_file(server, folder, route):
    """Not one byte of a file beside the guide comes out of any route that takes a path."""
    for place in [*PLACES, str(folder / "secret.txt")[1:]]:
        for way in WAYS:
            answer = raw(server, f"GET {route}{way.format(place)} HTTP/1.1")
            assert b" 200 " not in answer.split(b"\r\n", 1)[0], way
            for words in (b"CANARY", b"root:", b"[[channel]]", b"Traceback"):
                assert words not in answer


def test_a_path_to_nowhere_gives_our_own_page(client):
    for path in ("nothing.md", "%2e%2e%2fetc%2fpasswd", "<script>", "%00", ""):
        answer = client.get(f"/source/{path}", headers={"Accept-Language": "zh-CN"})
        assert answer.status_code == 404
        assert "没有这个文件" in answer.text
        assert "<script" not in answer.text


def raw(server: Server, line: str, *headers: str, body: bytes = b"") -> bytes:
    """Send a request as written, with no client to put its path in order."""
    host, port = server.host.split(":")
    given = (
        headers
        if any(h.lower().startswith("host") for h in headers)
        else ("Host: " + host, *headers)
    )
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        head = "\r\n".join([line, *given, "Connection: close", "", ""])
        connection.sendall(head.encode() + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


# --- The guard -----------------------------------------------------------------------------------

FAMILIAR = ["127.0.0.1", "127.0.0.1:7860", "localhost", "LOCALHOST:80", "[::1]", "[::1]:7860"]
STRANGE = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "", "10.0.0.1"]


@pytest.mark.parametrize(
    "path", ["/", "/healthz", f"/source/{GUIDE}", "/config", "/gradio_api/info"]
)
def test_only_known_hosts_are_answered(client, path):
    for host in FAMILIAR:
        assert client.get(path, headers={"Host": host}).status_code == 200
    for host in STRANGE:
        assert client.get(path, headers={"Host": host}).status_code == 400


def test_two_hosts_are_no_host():
    headers = [(b"host", b"evil.example"), (b"host", b"127.0.0.1")]
    assert guarded(Settings(), headers) == 400
    assert guarded(Settings(), []) == 400


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost",
        "",
        "http://",
        "http://[",
    ],
)
def test_other_origins_are_refused(client, origin):
    for method, path in (("POST", "/gradio_api/queue/join"), ("GET", "/"), ("GET", "/healthz")):
        answer = client.request(method, path, headers={"Origin": origin}, json={})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("settings", "host", "origin", "status"),
    [
        ({"host": "0.0.0.0"}, "192.168.1.7:7860", None, 200),
        ({"host": "0.0.0.0"}, "[fe80::1]:7860", None, 200),
        ({"host": "::"}, socket.gethostname(), None, 200),
        ({"host": "0.0.0.0"}, "evil.example", None, 400),
        ({"host": "192.168.1.7"}, "192.168.1.7", None, 200),
        ({"host": "192.168.1.7"}, "192.168.1.8", None, 400),
        ({"host": "fe80::1"}, "[fe80::1]:80", None, 200),
        ({"allowed_hosts": ("help.example",)}, "Help.example", None, 200),
        ({"allowed_hosts": ("help.example",)}, "127.0.0.1:7860", "https://help.example", 200),
        ({"allowed_hosts": ("help.example",)}, "help.example", "https://evil.example", 403),
        ({"host": "0.0.0.0"}, "192.168.1.7:7860", "http://192.168.1.7:80", 403),
    ],
)
def test_hosts_and_origins_follow_the_settings(settings, host, origin, status):
    """An address cannot be rebound and a name can, so a served-everywhere page takes addresses."""
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    assert guarded(Settings(**settings), headers) == status


def guarded(settings, headers):
    """Return the status that an application behind the guard answers with."""
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(Guard(application, settings)(scope, receive, send))
    return sent[0]["status"]


def test_our_own_origin_is_taken(client, server):
    assert client.get("/", headers={"Origin": server.url}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/upload/", "/upload", "//gradio_api/upload"]
)
def test_nothing_can_be_uploaded(client, path):
    answer = client.post(path, files={"files": ("a.html", b"<script>")})
    assert answer.status_code in (403, 404)


@pytest.mark.parametrize(
    "path",
    "/gradio_api/vibe-code/ /gradio_api/runs /gradio_api/token /gradio_api/user /monitoring "
    "/gradio_api/process_recording /pwa_icon/64 /svelte/x /redoc "
    "/log /gradio_api/openapi.json /gradio_api /gradio_api/deep_link".split(),
)
def test_what_the_page_does_not_need_is_not_there(client, path):
    assert client.get(path).status_code == 404
    assert client.post(path, json={}).status_code in (404, 405)


def test_a_body_over_the_cap_is_refused_whether_it_says_its_length_or_not(client):
    """10 MB of question: 413 at once when declared, and when sent in chunks."""
    question = '{"data": ["' + "问" * 3_500_000 + '"], "fn_index": 0, "session_hash": "x"}'
    big = question.encode()
    assert len(big) > 10_000_000
    kind = {"Content-Type": "application/json"}
    assert client.post("/gradio_api/queue/join", content=big, headers=kind).status_code == 413
    chunks = (big[i : i + 65536] for i in range(0, len(big), 65536))
    assert client.post("/gradio_api/queue/join", content=chunks, headers=kind).status_code == 413
    assert client.post("/nowhere", content=big).status_code == 413


def test_a_body_that_never_comes_to_its_end_is_given_up():
    """A client that sends a byte and falls silent holds nothing for longer than the deadline."""
    sent = []

    async def slow():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(None, Settings(), patience=0.1)(scope, slow, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("length", ["-1", "1e9", "99999999999999999999", "0x10"])
def test_a_length_that_is_none_is_refused(server, length):
    answer = raw(server, "POST /gradio_api/queue/join HTTP/1.1", f"Content-Length: {length}")
    assert re.match(rb"HTTP/1.1 (400|413) ", answer)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"data": NaN}', b'{"data": ["\\ud800"]}', b"\xff\xfe"]
)
def test_a_body_that_is_no_question_is_no_server_error(client, body):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/gradio_api/queue/join", content=body, headers=headers)
    assert answer.status_code < 500


@pytest.mark.parametrize(
    "path", ["/", "/healthz", f"/source/{GUIDE}", "/nowhere", "/theme.css", "/source/x"]
)
def test_every_answer_has_the_safe_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in re.search(r"script-src [^;]*|$", policy)[0]
    assert "frame-ancestors 'self'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_refusals_have_the_safe_headers_too(client):
    headers = client.get("/", headers={"Host": "evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]


# --- The page itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("languages", "tag", "title"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN", "客服助手"),
        ("ZH-tw", "zh-CN", "客服助手"),
        ("en-US,en;q=0.9,zh;q=0.8", "en", "Support assistant"),
        ("fr", "en", "Support assistant"),
        ("", "en", "Support assistant"),
    ],
)
def test_the_page_bears_the_readers_language_and_our_title(client, languages, tag, title):
    page = client.get("/", headers={"Accept-Language": languages}).text
    assert re.search(r'<html\s+lang="([^"]*)"', page)[1] == tag
    assert f"<title>{title}</title>" in page


def test_the_page_names_no_other_site_and_no_maker_of_pages(client):
    """What others show of a link to the page is ours; no picture of elsewhere is named."""
    page = client.get("/").text
    head = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)
    assert not re.search(r"https?://", head)
    assert "og:" not in head
    assert "Click to try out" not in page


def test_every_script_of_the_page_bears_the_nonce_of_its_policy(client):
    first, second = client.get("/"), client.get("/")
    for answer in (first, second):
        nonce = re.search(r"'nonce-([^']+)'", answer.headers["content-security-policy"])[1]
        scripts = re.findall(r"<script[^>]*>", answer.text)
        assert scripts
        assert all(f'nonce="{nonce}"' in script for script in scripts)
    assert first.headers["content-security-policy"] != second.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        f"/source/{GUIDE}",
        "/favicon.ico",
        "/robots.txt",
        "/manifest.json",
        "/theme.css",
        "/source/x",
    ],
)
def test_head_gives_what_get_gives_without_the_body(client, path):
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""


def test_the_signs_in_a_tab_and_on_a_phones_first_screen_are_ours(client):
    ours = (REPOSITORY / "assistant" / "web" / "static" / "icon.svg").read_bytes()
    told = client.get("/manifest.json").json()
    (icon,) = told["icons"]
    assert told["name"] == "客服助手"
    for path in ("/favicon.ico", icon["src"]):
        answer = client.get(path)
        assert (answer.content, answer.headers["content-type"]) == (ours, "image/svg+xml")


def test_health_names_the_generation(client):
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    assert re.fullmatch(r"\d{6}-[0-9a-f]{8}", health["generation"])


def test_requests_of_other_kinds_get_clean_answers(client):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        for path in ("/", "/healthz", f"/source/{GUIDE}"):
            assert client.request(method, path).status_code in (404, 405)


# --- While it serves -----------------------------------------------------------------------------


def test_a_rebuild_is_picked_up_and_every_answer_is_of_one_generation(hostile, encoder):
    """People ask all the while: no error, no answer of two versions, and at last the newest."""
    folder = Path(hostile.log).parent
    settings = Settings(corpus=folder / "corpus", index=folder / "index")
    seen: list[set[str]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with hostile.client as client:
            while not stop.is_set():
                seen.append(versions(asked(client, "彩虹独角兽住在哪里，吃什么")))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 3):
        text = HOSTILE.replace("版本0号", f"版本{number}号")
        (folder / "corpus" / "h.md").write_text(text, "utf-8")
        build(settings, encoder)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 10
    assert {len(one) for one in seen} == {1}
    with hostile.client as client:
        assert versions(asked(client, "彩虹独角兽住在哪里")) == {"2"}
    assert "Traceback" not in hostile.log.read_text()


def versions(page: str) -> set[str]:
    return set(re.findall(r"版本(\d+)号", visible(page)))


def test_a_broken_index_leaves_the_last_good_one_serving_and_tells_the_log(hostile):
    index = Path(hostile.log).parent / "index"
    whole = {path: path.read_bytes() for path in index.glob("generations/*/vectors.faiss")}
    assert whole
    try:
        for path, data in whole.items():
            path.write_bytes(data[:-1])
        (index / "CURRENT").write_text((index / "CURRENT").read_text())
        with hostile.client as client:
            assert versions(asked(client, "彩虹独角兽住在哪里")) == {"2"}
        assert "vectors.faiss" in hostile.log.read_text()
    finally:
        for path, data in whole.items():
            path.write_bytes(data)


def test_a_change_of_the_program_restarts_it_but_half_a_program_does_not(hostile):
    """`gradio app.py` runs app.py with the folders to watch in the environment."""
    folder = Path(hostile.log).parent
    (folder / "half.py").write_text("def f(:\n")
    until = time.monotonic() + PATIENCE
    while "half.py" not in hostile.log.read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    with hostile.client as client:
        assert client.get("/healthz").status_code == 200
    (folder / "half.py").write_text("pass\n")
    hostile.read_address()
    with hostile.client as client:
        assert 'class="answer' in asked(client, "彩虹独角兽住在哪里")


def test_a_taken_port_is_one_clear_line_and_exit_code_2(server, guide, folder):
    port = server.host.split(":")[1]
    again = subprocess.run(
        [sys.executable, *command(guide.corpus, folder / "none"), "--port", port],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert again.returncode == 2
    assert again.stdout == ""
    assert re.fullmatch(rf"assistant: .*{port}.*--port.*\n", again.stderr)
    assert not (folder / "none").exists()


def test_told_to_end_it_ends_within_ten_seconds_with_exit_code_0(hostile):
    """Also with a client that never finishes its request and one that never reads."""
    host, port = hostile.host.split(":")
    with (
        socket.create_connection((host, int(port))) as half,
        socket.create_connection((host, int(port))) as deaf,
    ):
        half.sendall(b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        half.sendall(b"Content-Length: 100\r\n\r\n{")
        deaf.sendall(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(0.2)
        started = time.monotonic()
        assert hostile.end() == 0
        assert time.monotonic() - started < 10
