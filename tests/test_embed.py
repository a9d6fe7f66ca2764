"""Encoders: unit vectors, one law for both, and no damaged or foreign model is ever used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from assistant.embed import StaticEncoder, TransformerEncoder, open_encoder
from assistant.errors import ModelUnusable
from assistant.fold import simplify
from assistant.settings import SHIPPED_MODEL, Settings

TEXTS = [
    "充值没到账怎么办",
    "How do I reset my password?",
    "儲值失敗怎麼辦",
    "，。！",
    "",
    "在线客服 abc 123 Two-Factor",
    "钱包" * 500,
]


@pytest.fixture
def model(tmp_path):
    """A copy of the shipped model to damage."""
    return Path(shutil.copytree(SHIPPED_MODEL, tmp_path / "model"))


def refresh_sums(model):
    """Drop the checksum list, so that the deeper checks are reached."""
    (model / "SHA256SUMS").unlink()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_rows_are_unit_or_zero_and_do_not_depend_on_company(encoder, texts):
    rows = encoder.encode_passages(texts)
    assert rows.shape == (len(texts), encoder.dimensions)
    lengths = np.linalg.norm(rows, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
    for text, row in zip(texts, rows, strict=True):
        assert np.array_equal(encoder.encode_passages([text])[0], row)


def test_a_text_without_known_tokens_is_a_zero_row(encoder):
    assert not encoder.encode_queries(["", "，。！", "☃"]).any()


def test_traditional_and_simplified_writing_are_one(encoder):
    one, other = encoder.encode_queries(["儲值失敗，請聯絡客服", "储值失败，请联络客服"])
    assert np.array_equal(one, other)


def test_the_static_encoder_gives_sentence_transformers_vectors(encoder):
    assert isinstance(encoder, StaticEncoder)
    reference = TransformerEncoder(str(SHIPPED_MODEL), Settings())
    ours, theirs = encoder.encode_passages(TEXTS), reference.encode_passages(TEXTS)
    assert np.abs(ours - theirs).max() < 1e-5
    assert reference.fingerprint == encoder.fingerprint


class Reference:
    """Encode by the tokenizer's own tokens of a whole text."""

    def __init__(self, folder):
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tensors = load_file(folder / "model.safetensors")
        self._rows, self._factors = tensors["embeddings"], tensors["weights"]

    def encode(self, text):
        ids = self._tokenizer.encode(simplify(text), add_special_tokens=False).ids
        row = self._factors[ids] @ self._rows[ids].astype(np.float32)
        return row / (np.linalg.norm(row) or 1.0)


@pytest.fixture(scope="module")
def reference():
    return Reference(SHIPPED_MODEL)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(codec="utf-8") | st.sampled_from("充值abc12 ，Ａ①㎏İΣſé-'"), max_size=30)
)
def test_a_text_has_the_tokens_that_its_tokenizer_gives(encoder, reference, text):
    assert np.abs(encoder.encode_queries([text])[0] - reference.encode(text)).max() < 1e-6


def test_a_tokenizer_that_cuts_in_another_way_gives_its_tokens_too(model):
    refresh_sums(model)
    path = model / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    values["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    path.write_text(json.dumps(values), "utf-8")
    encoder, reference = open_encoder(Settings(model=str(model))), Reference(model)
    for text in TEXTS:
        assert np.abs(encoder.encode_queries([text])[0] - reference.encode(text)).max() < 1e-6


def test_the_shipped_folder_is_plain_sentence_transformers(encoder):
    from sentence_transformers import SentenceTransformer

    texts = [simplify(text) for text in TEXTS]  # which the model leaves to those who call it
    rows = SentenceTransformer(str(SHIPPED_MODEL), device="cpu").encode(texts)
    assert np.abs(rows - encoder.encode_queries(texts)).max() < 1e-6


def test_prompts_of_the_model_and_of_the_settings_are_put_before(model):
    refresh_sums(model)
    config = model / "config_sentence_transformers.json"
    values = json.loads(config.read_text("utf-8"))
    values["prompts"] = {"query": "查询 ", "document": "文档 "}
    config.write_text(json.dumps(values), "utf-8")
    plain = open_encoder(Settings())
    own = open_encoder(Settings(model=str(model)))
    assert np.array_equal(own.encode_queries(["退款"]), plain.encode_queries(["查询 退款"]))
    assert np.array_equal(own.encode_passages(["退款"]), plain.encode_queries(["文档 退款"]))
    given_ = open_encoder(Settings(model=str(model), query_prompt="问 "))
    assert np.array_equal(given_.encode_queries(["退款"]), plain.encode_queries(["问 退款"]))
    assert len({plain.fingerprint, own.fingerprint, given_.fingerprint}) == 3
    reference = TransformerEncoder(str(model), Settings())
    assert np.abs(reference.encode_queries(["退款"]) - own.encode_queries(["退款"])).max() < 1e-5


def cut(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def append(path):
    path.write_bytes(path.read_bytes() + b"x")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 22478944\n"
DAMAGE = {
    "weights missing": lambda m: (m / "model.safetensors").unlink(),
    "weights empty": lambda m: (m / "model.safetensors").write_bytes(b""),
    "weights cut": lambda m: cut(m / "model.safetensors", 0.5),
    "weights one byte short": lambda m: cut(m / "model.safetensors", 0.9999999),
    "weights an LFS pointer": lambda m: (m / "model.safetensors").write_bytes(LFS),
    "weights with trailing bytes": lambda m: append(m / "model.safetensors"),
    "tokenizer missing": lambda m: (m / "tokenizer.json").unlink(),
    "tokenizer cut": lambda m: cut(m / "tokenizer.json", 0.5),
    "tokenizer an LFS pointer": lambda m: (m / "tokenizer.json").write_bytes(LFS),
    "modules missing": lambda m: (m / "modules.json").unlink(),
    "modules no list": lambda m: (m / "modules.json").write_text("{}"),
    "modules no JSON": lambda m: (m / "modules.json").write_text("<html>"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("listed", [True, False], ids=["with checksums", "without"])
def test_a_damaged_model_is_refused_with_the_file_and_the_repair(model, damage, listed):
    if not listed:
        refresh_sums(model)
    DAMAGE[damage](model)
    with pytest.raises(
        ModelUnusable, match=r"(?s)(safetensors|tokenizer|modules).*[Cc]opy the model"
    ):
        open_encoder(Settings(model=str(model)))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_one_changed_bit_of_the_model_is_refused(model, name):
    flip(model / name)
    with pytest.raises(ModelUnusable, match="sha256"):
        open_encoder(Settings(model=str(model)))


def test_a_tokenizer_of_another_model_is_refused(model):
    refresh_sums(model)
    path = model / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    values["model"]["vocab"].pop()
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(ModelUnusable, match="different models"):
        open_encoder(Settings(model=str(model)))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./missing", "some/unknown-model"])
def test_a_missing_model_is_an_error_at_once_and_nothing_is_fetched(name):
    with pytest.raises(ModelUnusable, match="ASSISTANT_"):
        open_encoder(Settings(model=name))


def test_code_that_a_model_brings_is_never_run(tmp_path):
    """A folder whose modules name its own Python file is refused, and the file is not executed."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text("{}")
    with pytest.raises(ModelUnusable):
        open_encoder(Settings(model=str(folder)))
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_read(model, tmp_path):
    """A folder with pytorch_model.bin in place of safetensors is refused unread."""
    refresh_sums(model)
    (model / "model.safetensors").unlink()
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    (model / "pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(ModelUnusable):
        open_encoder(Settings(model=str(model)))
    assert not (tmp_path / "ran").exists()


def test_our_package_never_unpickles_or_evaluates():
    import ast

    package = SHIPPED_MODEL.parent.parent
    banned = {"pickle", "marshal", "shelve", "dill", "joblib"}
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not banned & {a.name for a in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in banned, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "trust_remote_code"}:
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, path


def test_the_serving_path_imports_nothing_heavy():
    code = (
        "import sys; from assistant.settings import Settings;"
        "from assistant.embed import open_encoder;"
        "open_encoder(Settings()).encode_queries(['退款']);"
        "print([m for m in ('torch', 'sentence_transformers', 'transformers', 'gradio', 'sklearn') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
