"""An index in Milvus answers as one in files does, and stays whole whatever happens."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs the extra: pip install '.[milvus]'")
pytest.importorskip("milvus_lite", reason="needs a server to try: pip install milvus-lite")

import grpc
from conftest import REPOSITORY
from fakes import CharacterEncoder
from faults import FEW, NEW, OLD, write_guide
from milvus_server import MilvusServer, impatient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from assistant import calibrate, collection, generations, milvus, search
from assistant.build import build, recalibrate, roll_back
from assistant.cli import main
from assistant.collection import Collection, open_collection, write_collection
from assistant.desk import Desk
from assistant.errors import IndexUnusable, StoreDown, UsageError
from assistant.milvus import server_of
from assistant.questions import held_out
from assistant.records import Chunk, View
from assistant.settings import Settings

_names = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    impatient()
    started = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield started
    started.kill()


@pytest.fixture
def settings(tmp_path, server, monkeypatch):
    """Settings over a small guide, and a name in Milvus of its own."""
    for name, few in FEW.items():
        monkeypatch.setattr(calibrate, name, few)
    write_guide(tmp_path, OLD)
    return Settings(
        corpus=tmp_path / "corpus",
        index=tmp_path / "index",
        store="milvus",
        milvus_uri=server.uri,
        milvus_name=f"t{next(_names)}",
        milvus_seconds=1.5,
        request_seconds=20,
    )


def built(settings, sentence):
    write_guide(settings.corpus.parent, sentence)
    return build(settings, CharacterEncoder()).generation


def collections(settings):
    """Return the collections of one test, and what its alias names."""
    asked, name = server_of(settings), settings.milvus_name
    mine = [one for one in asked.call("list_collections") if one.startswith(f"{name}_0")]
    return sorted(mine), collection._alias(asked, name)


def named(settings, *ids):
    return sorted(collection.collection_name(one, settings) for one in ids)


def told(settings):
    """Return what the index says of the guide's one fact, in words of the guide."""
    answer = Desk(settings, CharacterEncoder()).ask("提现手续费是多少")
    return next(sentence for sentence in (OLD, NEW) if sentence in answer.quotes[0].text)


# --- The same answers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory, server, encoder):
    """The shipped guide in files and in Milvus; calibrated on some of the questions alone."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(REPOSITORY / "corpus", folder / "corpus")
    files = Settings(corpus=folder / "corpus", index=folder / "files")
    other = {"index": folder / "milvus", "store": "milvus", "milvus_uri": server.uri}
    there = files.model_copy(update={**other, "milvus_name": "both", "milvus_seconds": 10})
    with pytest.MonkeyPatch.context() as patch:
        whole = calibrate.probes
        patch.setattr(calibrate, "probes", lambda *given: islice(whole(*given), None, None, 20))
        build(files, encoder)
        build(there, encoder)
    return files, there


def labelled(desk):
    """Return the labelled questions, less those that hold no word."""
    asked = (question.ask for question in held_out(desk.settings.corpus))
    return [ask for ask in asked if any(map(str.isalnum, ask))]


def shown(answer):
    places = [(quote.path, quote.start, quote.end, quote.highlights) for quote in answer.quotes]
    handed = repr(answer.handoff).replace(answer.generation, "")  # a ticket names its index
    return answer.verdict, answer.message, places, handed


def test_the_labelled_questions_get_the_same_answers_from_milvus(both, encoder):
    files, there = (Desk(one, encoder) for one in both)
    questions = labelled(files)
    assert len(questions) > 300
    for question in questions:
        one, other = files.ask(question), there.ask(question)
        assert shown(one) == shown(other), question
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        for mine, its in zip(one.quotes, other.quotes, strict=True):
            assert mine.similarity == pytest.approx(its.similarity, abs=1e-5)
            assert mine.lexical == pytest.approx(its.lexical, rel=1e-5)


def test_a_large_index_gets_the_same_answers_too(both, encoder, monkeypatch):
    """With nothing of the rows kept in memory, as above ten thousand views."""
    monkeypatch.setattr(search, "_DECODED", 0)
    files, there = (Desk(one, encoder) for one in both)
    for question in labelled(files)[::10]:
        one, other = files.ask(question), there.ask(question)
        assert shown(one) == shown(other), question
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_an_index_is_opened_where_it_was_built_alone(both, encoder):
    files, there = both
    for wanted, index in (("milvus", files.index), ("faiss", there.index)):
        other = there.model_copy(update={"store": wanted, "index": index})
        with pytest.raises(IndexUnusable, match=f"store = '{wanted}'|say '{wanted}'"):
            Desk(other, encoder)


def test_moving_to_milvus_encodes_nothing_anew(settings):
    files = settings.model_copy(update={"store": "faiss"})
    first = build(files, CharacterEncoder())
    moved = build(settings, CharacterEncoder())
    assert (moved.encoded, moved.reused) == (0, first.views)
    again = build(settings, CharacterEncoder())
    assert (again.encoded, again.reused) == (0, first.views)


# --- One collection ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory, server):
    """A collection of three documents with some headings, and its vectors."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(240, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    paths = ['a "quoted" \\ name.md', "b.md", "深/处.md"]
    chunks = [
        Chunk(str(i), paths[i % 3], "", ("顶", f'节 "{i % 4}" \\'), 0, 1, "x") for i in range(80)
    ]
    views = [View(i // 3, "sentence" if i % 3 else "passage", f"第{i}行", 0, 1) for i in range(240)]
    folder = tmp_path_factory.mktemp("rows")
    settings = Settings(store="milvus", milvus_uri=server.uri, milvus_seconds=10)
    write_collection(folder, "rows", settings, chunks, views, [v.text for v in views], vectors)
    return open_collection(folder, settings), vectors, chunks, views


@pytest.mark.parametrize(("path", "section"), [(0, None), (1, None), (2, 3), (None, 0)])
def test_a_document_and_a_section_narrow_the_search(rows, path, section):
    (store, _), vectors, chunks, views = rows
    path = "" if path is None else chunks[path].path
    section = "" if section is None else chunks[section].headings[-1]
    left = [
        row
        for row, view in enumerate(views)
        if path in ("", chunks[view.chunk].path)
        and (not section or section in chunks[view.chunk].headings)
    ]
    query = vectors[7] + vectors[100]
    scores, found = store.within(path, section).search(query[None], 10)
    truth = np.array(left)[np.argsort(-(vectors[left] @ query), kind="stable")[:10]]
    assert found[0].tolist() == truth.tolist()
    assert np.abs(scores[0] - vectors[truth] @ query).max() < 1e-6
    assert store.within(path, section).search(query[None], 1000)[1].shape == (1, len(left))


def test_cosines_come_from_the_server_for_any_rows_in_any_order(rows):
    (store, _), vectors, *_ = rows
    some = np.array([200, 3, 77, 0])
    assert np.abs(store.cosines(some, vectors[5]) - vectors[some] @ vectors[5]).max() < 1e-6
    assert len(store.cosines(np.zeros(0, np.int64), vectors[5])) == 0


def test_a_graph_finds_nearly_what_brute_force_finds(tmp_path, server, monkeypatch):
    """Above some number of rows not every one is compared."""
    monkeypatch.setattr(collection, "_EXACT", 100)
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(1500, 6)) @ random.normal(size=(6, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chunks = [Chunk("1", "a.md", "", (), 0, 1, "x")]
    views = [View(0, "passage", f"第{i}行", 0, 1) for i in range(len(vectors))]
    settings = Settings(store="milvus", milvus_uri=server.uri, milvus_seconds=20)
    write_collection(tmp_path, "graph", settings, chunks, views, ["行"] * len(views), vectors)
    store, _ = open_collection(tmp_path, settings)
    queries = vectors[::50] + vectors[1::50]
    scores, found = store.search(queries, 10)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    shared = [len({*a} & {*b}) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    assert np.mean(shared) >= 9.7
    assert np.abs(scores - np.take_along_axis(queries @ vectors.T, found, 1)).max() < 1e-5
    every = np.arange(len(vectors))
    assert np.abs(store.cosines(every, queries[0]) - vectors @ queries[0]).max() < 1e-5


# --- Generations ---------------------------------------------------------------------------------


def test_a_build_switches_keeps_the_one_before_and_sweeps_the_rest(settings):
    first = built(settings, OLD)
    assert collections(settings) == (named(settings, first), *named(settings, first))
    second = built(settings, NEW)
    third = built(settings, OLD)
    assert collections(settings) == (named(settings, second, third), *named(settings, third))
    assert told(settings) == OLD
    assert roll_back(settings).id == second
    assert collections(settings)[1] == named(settings, second)[0]
    assert told(settings) == NEW
    fourth = built(settings, OLD)
    assert collections(settings) == (named(settings, second, fourth), *named(settings, fourth))


def test_fitting_the_curve_anew_shares_the_collection_until_both_are_gone(settings):
    first = built(settings, OLD)
    recalibrate(settings, CharacterEncoder())
    assert collections(settings) == (named(settings, first), *named(settings, first))
    second = built(settings, NEW)
    assert collections(settings)[0] == named(settings, first, second)
    third = built(settings, NEW)
    assert collections(settings)[0] == named(settings, second, third)


def test_a_collection_that_lost_rows_or_has_others_is_refused_and_the_one_before_serves(settings):
    first, second = built(settings, OLD), built(settings, NEW)
    asked, (name,) = server_of(settings), named(settings, second)
    known = asked.call("query", name, ids=[0], output_fields=["*"])[0]
    asked.call("delete", name, ids=[0])
    desk = Desk(settings, CharacterEncoder())
    assert desk.generation == first
    assert f"{name} of Milvus at" in desk.notes[0]
    assert "rows, expected" in desk.notes[0]
    asked.call("insert", name, data=[{**known, "vector": [-x for x in known["vector"]]}])
    desk = Desk(settings, CharacterEncoder())
    assert (desk.generation, "other vectors" in desk.notes[0]) == (first, True)
    asked.call("drop_collection", name)
    desk = Desk(settings, CharacterEncoder())
    assert (desk.generation, "lacks the collection" in desk.notes[0]) == (first, True)
    assert built(settings, NEW)
    assert told(settings) == NEW


def test_a_collection_that_is_put_away_is_fetched_again(settings):
    generation = built(settings, OLD)
    desk = Desk(settings, CharacterEncoder())
    server_of(settings).call("release_collection", *named(settings, generation))
    assert OLD in desk.ask("提现手续费是多少").quotes[0].text


def test_a_self_test_that_fails_leaves_the_old_index(settings, monkeypatch):
    first = built(settings, OLD)
    honest = Collection.search

    def weak(self, field, *given):
        found = honest(self, field, *given)
        return [(rows, scores * (0.9 if field == "words" else 1)) for rows, scores in found]

    monkeypatch.setattr(Collection, "search", weak)
    with pytest.raises(IndexUnusable, match="fails its self-test"):
        built(settings, NEW)
    monkeypatch.setattr(Collection, "search", honest)
    assert told(settings) == OLD
    assert collections(settings) == (named(settings, first), *named(settings, first))


@pytest.mark.parametrize("mode", ["kill", "down"])
def test_every_step_of_a_build_in_milvus_may_be_the_last(settings, mode):
    """Killed, or left alone by the server, before each call that changes something there."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("milvus_faults.py"))]
        + [str(settings.corpus.parent), settings.milvus_uri, settings.milvus_name + mode, mode],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    print(f"{mode}: {found['steps']} steps, left {found['states']}")
    assert found["problems"] == []
    assert found["steps"] >= 6
    assert {"old", "new"} == set(found["states"])


# --- A server that is not as it should be --------------------------------------------------------


@contextmanager
def listening(answer):
    """Take connections on a port; `answer` may say something on each."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        kept = []

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def silent(connection):
    """Say nothing."""


def web(connection):
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.close()


@contextmanager
def refusing():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


class Odd(milvus_pb2_grpc.MilvusServiceServicer):
    """A server of another version, or that knows nobody."""

    def __init__(self, version="", knows=True):
        self.version, self.knows = version, knows

    def Connect(self, request, context):  # noqa: N802
        if not self.knows:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, CANARY")
        return milvus_pb2.ConnectResponse()

    def GetVersion(self, request, context):  # noqa: N802
        return milvus_pb2.GetVersionResponse(version=self.version)


@contextmanager
def odd(**given):
    serving = grpc.server(futures.ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Odd(**given), serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield f"http://127.0.0.1:{port}"
    serving.stop(0).wait()


BROKEN = {
    "silent": (lambda: listening(silent), "milvus_seconds = 1.5"),
    "refusing": (refusing, "cannot be reached"),
    "web": (lambda: listening(web), "no Milvus server"),
    "old": (lambda: odd(version="v2.2.9"), "version v2.2.9, expected 2.4"),
    "strangers": (lambda: odd(knows=False), "ASSISTANT_MILVUS_TOKEN"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_cannot_serve_is_named_at_the_start_with_what_to_do(settings, kind, capsys):
    built(settings, OLD)
    broken, words = BROKEN[kind]
    with broken() as uri, pytest.MonkeyPatch.context() as patch:
        place = uri.removeprefix("http://")
        patch.setenv("ASSISTANT_STORE", "milvus")
        patch.setenv("ASSISTANT_MILVUS_URI", f"http://root:CANARY@{place}")
        patch.setenv("ASSISTANT_MILVUS_TOKEN", "CANARY")
        patch.setenv("ASSISTANT_MILVUS_SECONDS", "1.5")
        patch.setattr("assistant.cli.open_encoder", lambda _: CharacterEncoder())
        patch.setattr("assistant.desk.open_encoder", lambda _: CharacterEncoder())
        where = ["--corpus", str(settings.corpus), "--index", str(settings.index)]
        started = time.monotonic()
        assert main(["ask", "提现手续费是多少", *where]) == 3
        assert time.monotonic() - started < 6
    said = capsys.readouterr().err
    assert f"Milvus at {place}" in said
    assert words in said
    assert len(said.splitlines()) == 1
    assert "CANARY" not in said


def test_a_build_that_cannot_reach_the_server_leaves_all_as_it_was(settings):
    generation = built(settings, OLD)
    with refusing() as uri:
        away = settings.model_copy(update={"milvus_uri": uri})
        write_guide(settings.corpus.parent, NEW)
        with pytest.raises(StoreDown, match=r"cannot be reached.*index in use is unchanged"):
            build(away, CharacterEncoder())
    assert generations.pointer(settings.index) == generation
    assert told(settings) == OLD
    built(settings, NEW)
    assert not list((settings.index / "generations").glob("*.tmp"))


@pytest.mark.parametrize(
    ("uri", "seen"),
    [(None, "not set"), ("localhost:19530", "localhost:19530"), ("ftp://u:CANARY@host", "host")],
)
def test_a_setting_that_names_no_server_is_wrong_use(settings, uri, seen):
    with pytest.raises(UsageError, match=f"milvus_uri' is .*{seen}.*http://HOST:19530") as caught:
        build(settings.model_copy(update={"milvus_uri": uri}), CharacterEncoder())
    assert caught.value.exit_code == 2
    assert "CANARY" not in str(caught.value)


def test_without_the_extra_it_is_named(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    milvus.library.cache_clear()
    with pytest.raises(UsageError, match=r"pip install '\.\[milvus\]'") as caught:
        build(settings, CharacterEncoder())
    assert caught.value.exit_code == 2
    monkeypatch.undo()
    milvus.library.cache_clear()


def test_a_local_file_that_cannot_be_opened_is_named(settings, tmp_path):
    nowhere = settings.model_copy(update={"milvus_uri": str(tmp_path / "none" / "m.db")})
    with pytest.raises(StoreDown, match=r"the Milvus file .*m\.db cannot be opened"):
        build(nowhere, CharacterEncoder())


# --- A server that fails while it serves ---------------------------------------------------------

WORRIED = "我的账号被盗了，有人在转我的币"


def unsearched(answer):
    """Tell whether an answer says that it could not search, and hands over."""
    return (
        answer.verdict == "unanswered"
        and answer.quotes == ()
        and "查不了" in answer.message
        and answer.handoff is not None
        and "提现手续费是多少" in answer.handoff.ticket_draft
    )


def soon(desk, seconds=20):
    """Ask until it answers again, and return what it quotes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = desk.ask("提现手续费是多少")
        if not unsearched(answer):
            return answer.quotes[0].text
        time.sleep(0.2)
    raise AssertionError("it did not recover")


def test_while_the_server_is_frozen_questions_are_handed_over_in_time_and_then_answered(
    settings, server
):
    built(settings, OLD)
    desk = Desk(settings, CharacterEncoder())
    server.freeze()
    try:
        for patience in (settings.milvus_seconds + 2, 1):  # none waits where it is known to be down
            with futures.ThreadPoolExecutor(16) as people:
                started = time.monotonic()
                asked = list(people.map(desk.ask, ["提现手续费是多少"] * 16))
                assert time.monotonic() - started < patience
            assert all(map(unsearched, asked))
        assert desk.ask(WORRIED).handoff.reason == "urgent_account_security"
    finally:
        server.thaw()
    assert OLD in soon(desk)


def test_a_server_that_dies_and_comes_back_answers_without_a_restart_here(tmp_path, settings):
    own = MilvusServer(tmp_path / "data")
    try:
        settings = settings.model_copy(update={"milvus_uri": own.uri})
        built(settings, OLD)
        desk = Desk(settings, CharacterEncoder())
        own.kill()
        assert unsearched(desk.ask("提现手续费是多少"))
        assert unsearched(desk.ask("提现手续费是多少"))
        own.start()
        assert OLD in soon(desk)
    finally:
        own.kill()


def test_a_build_that_is_switched_to_while_the_server_is_down_is_taken_up_when_it_is_back(
    settings, server
):
    built(settings, OLD)
    desk = Desk(settings, CharacterEncoder())
    second = built(settings, NEW)
    server.freeze()
    try:
        assert unsearched(desk.ask("提现手续费是多少"))
    finally:
        server.thaw()
    assert NEW in soon(desk)
    assert desk.generation == second
