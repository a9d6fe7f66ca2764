"""The river flows one way: a room imports only rooms above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "assistant"
RIVER = """
errors records settings metrics fold sound screen formats load split embed cluster store lexical
generations vocabulary milvus collection search turns price confidence questions calibrate answer
evaluate report contacts triage handoff build shards desk examples kept schema rows postgres
database writer history webhook frontdesk workers access gaps proposals stock terminal web.wording
web.render web.thread web.problems web.plain web.guard web.shell web.live web.office_words
web.office web.login web.limits web.passing web.protocol web.samples web.bodies web.page web.facts
web.api web.docs web.telemetry web.mcp web.widget web.rebuild web.maintain_words web.maintain
web.evidence web.agent_words web.agent_page web.agent_tickets web.agent web.app web cli
""".split()
# Imports inside a function: heavy or optional libraries, each in the one place that needs it.
LAZY = {
    "formats": {"markdown_it", "selectolax.lexbor", "pypdf", "pypdf.errors", "docx"},
    "split": {"langchain_text_splitters"},
    "embed": {"sentence_transformers"},
    "cluster": {"ray", "ray.data"},
    "milvus": {"pymilvus", "grpc"},
    "postgres": {"psycopg"},
    "gaps": {"sklearn.cluster"},
    "web.mcp": {
        "mcp",
        "mcp.server.lowlevel",
        "mcp.server.streamable_http_manager",
        "mcp.server.transport_security",
    },
    "cli": {"assistant.web"},
}


def rooms() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__")
        if name:
            found[name.rstrip(".")] = path
    return found


def imported(path: Path) -> list[tuple[str, bool]]:
    """Return (module, inside a function) of every import."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = (
                [f"{module}.{a.name}" for a in node.names] if module == "assistant" else [module]
            )
            found += [(name, id(node) in inside) for name in names]
    return found


def test_every_room_stands_in_the_river():
    assert sorted(rooms()) == sorted(RIVER)


@pytest.mark.parametrize("room", RIVER)
def test_a_room_imports_only_rooms_above_it(room):
    above = set(RIVER[: RIVER.index(room)])
    for module, inside in imported(rooms()[room]):
        if module.startswith("assistant."):
            assert module.removeprefix("assistant.") in above
        if inside:
            assert module in LAZY.get(room, set())
