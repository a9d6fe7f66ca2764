"""What a person is shown where a program is told of a problem: a page in their language."""

import re

import pytest
from fastapi.testclient import TestClient
from small_app import create

from assistant.settings import Settings

AGENT = "agent-token-0123456789"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
ZH = {"Accept": BROWSER, "Accept-Language": "zh-CN,zh;q=0.9"}
EN = {"Accept": BROWSER, "Accept-Language": "en-GB"}


def visitor(folder, **given):
    """A browser that speaks to the small application."""
    settings = Settings(users=folder / "users.toml", agent_token=AGENT, **given)
    app = create(settings)
    return TestClient(app, "http://127.0.0.1", follow_redirects=False)


def shown(answer, status, language):
    """Check that a refusal is a page that can be read, and return its words."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["cache-control"] == "no-store"
    assert "script-src" in answer.headers["content-security-policy"]
    assert f'<html lang="{language}">' in answer.text
    assert "<script" not in answer.text
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", answer.text)


def test_who_asks_too_often_reads_how_long_to_wait_and_can_try_again(tmp_path):
    one = visitor(tmp_path, rate_per_minute=3)
    assert [one.get("/ping").status_code for _ in range(3)] == [200] * 3
    chinese = one.get("/ping", headers=ZH)
    seconds = chinese.headers["retry-after"]
    words = shown(chinese, 429, "zh-CN")
    assert f"请等 {seconds} 秒再试" in words
    assert "Too many" not in words
    assert '<a href="">再试一次</a>' in chinese.text
    english = one.get("/ping", headers=EN)
    assert f"wait {english.headers['retry-after']} s" in shown(english, 429, "en")


def test_in_a_hurry_one_is_sent_to_the_official_app(tmp_path):
    """Who waits for the page may be in danger; agents and maintainers are not told so."""
    one = visitor(tmp_path, rate_per_minute=1)
    one.get("/ping")
    assert "从官方应用或官网联系客服" in shown(one.get("/", headers=ZH), 429, "zh-CN")
    assert "official app" in shown(one.get("/", headers=EN), 429, "en")
    assert "官方应用" not in shown(one.get("/agent", headers=ZH), 429, "zh-CN")


def test_who_tried_too_many_tokens_gets_a_page_that_leads_back_to_the_sign_in(tmp_path):
    one = visitor(tmp_path, rate_login_per_minute=2)
    for _ in range(2):
        one.get("/login?token=x", headers=ZH)
    linked, sent = (
        one.get("/login?token=CANARY", headers=ZH),
        one.post("/login", data={"token": "CANARY"}, headers=EN),
    )
    assert "请求太频繁了" in shown(linked, 429, "zh-CN")
    assert "Then reload this page" in shown(sent, 429, "en")
    for answer in (linked, sent):
        assert '<a href="/login">' in answer.text
        assert "CANARY" not in answer.text
    chosen = one.get("/login?token=x", headers={**EN, "Cookie": "lang=zh"})
    assert "请求太频繁了" in shown(chosen, 429, "zh-CN")


@pytest.mark.parametrize(
    ("path", "status", "chinese", "english"),
    [
        ("/nowhere", 404, "没有这个页面", "There is no such page"),
        ("/broken", 500, "我们这边出了问题", "on our side"),
        ("/slow?seconds=9", 503, "现在太忙", "too busy here"),
        ("/slow?seconds=CANARY", 422, "没有被接受", "was not taken"),
        ("/upload", 404, "没有这个页面", "There is no such page"),
    ],
)
def test_every_refusal_is_put_into_words(tmp_path, path, status, chinese, english):
    one = visitor(tmp_path, request_seconds=0.1)
    words = shown(one.get(path, headers=ZH), status, "zh-CN")
    assert chinese in words
    assert "CANARY" not in words
    assert english in shown(one.get(path, headers=EN), status, "en")


def test_the_number_of_a_failure_is_the_one_that_the_log_names(tmp_path, caplog):
    answer = visitor(tmp_path).get("/broken", headers=ZH)
    (number,) = re.findall(r"编号 ([0-9a-f]{16})", shown(answer, 500, "zh-CN"))
    assert number in caplog.text
    assert "CANARY" not in answer.text


def test_what_is_too_large_or_from_an_unknown_host_is_put_into_words(tmp_path):
    """An operator who opens the page by a name that is not allowed reads which setting that is."""
    one = visitor(tmp_path, max_body_kb=16)
    large = one.post("/agent/note", content=b"x" * 20_000, headers=ZH)
    assert "返回缩短后再发" in large.text
    unknown = one.get("/ping", headers={**ZH, "Host": "elsewhere.example"})
    assert unknown.status_code == 400
    assert "没有被接受" in unknown.text
    assert "allowed_hosts" in unknown.text


def test_programs_get_the_problem_whatever_they_accept(tmp_path):
    one = visitor(tmp_path, rate_per_minute=1)
    one.get("/ping")
    told = [
        one.get("/ping", headers={"Accept": "*/*"}),
        one.get("/ping", headers={"Accept": "application/json"}),
        one.get("/ping", headers={**ZH, "Authorization": "Bearer x"}),
        *(one.get(path, headers=ZH) for path in ("/api/v1/ask", "/mcp", "/gradio_api/info")),
    ]
    for answer in told:
        assert answer.status_code == 429
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["instance"] == answer.headers["x-request-id"]
