"""One `Settings`: defaults that work, then `assistant.toml`, then `ASSISTANT_*` variables."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from assistant.errors import UsageError

# A mistyped name of a secret is a likely one, and its value is none to print.
_SECRET = re.compile("tok|secret|pass|key", re.IGNORECASE)
# A scheme and a host, as browsers send them; what else a policy could hold is none.
_ORIGIN = r"^https?://(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
SHIPPED_MODEL = Path(__file__).parent / "models" / "support-zh-en"


def _listed(given: object) -> object:
    """Read a list that was given as text: parted by commas, or as JSON."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        return json.loads(given)
    return [one.strip() for one in given.split(",") if one.strip()]


One = TypeVar("One")
Several = Annotated[tuple[One, ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """Hold every choice an operator can make; README.md has the same table (a test compares)."""

    model_config = SettingsConfigDict(
        env_prefix="ASSISTANT_", toml_file="assistant.toml", extra="forbid", frozen=True
    )

    corpus: Path = Field(Path("corpus"), description="folder of guide files")
    index: Path = Field(Path("index"), description="folder of the built index")
    model: str = Field(
        str(SHIPPED_MODEL), description="embedding model: a folder, or a sentence-transformers name"
    )
    allow_downloads: bool = Field(False, description="let a named model be fetched from its hub")
    query_prompt: str | None = Field(
        None, description="text put before a query for the model; unset: what the model itself says"
    )
    document_prompt: str | None = Field(
        None, description="text put before a passage for the model; unset: what the model says"
    )
    chunk_chars: int = Field(
        400, ge=50, le=4000, description="most characters of a passage; longer sections are split"
    )
    max_file_mb: float = Field(
        50.0, gt=0, description="largest corpus file that is read, in megabytes"
    )
    max_files: int = Field(100_000, ge=1, description="most files a corpus may have")
    precision: Literal["float32", "float16", "int8"] = Field(
        "float32", description="how vectors are kept; float16 halves memory, int8 quarters it"
    )
    store: Literal["faiss", "milvus"] = Field(
        "faiss", description="where vectors and words are kept: in the index folder, or in Milvus"
    )
    milvus_uri: str | None = Field(
        None, description="address of the Milvus server, or a local file ending in .db to try it"
    )
    milvus_token: SecretStr | None = Field(
        None, description="token for Milvus, or user:password; unset: none"
    )
    milvus_name: str = Field(
        "guide",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$",
        description="what collections' names begin with, and the alias of the one in use",
    )
    milvus_seconds: float = Field(
        2.0, gt=0, le=600, description="seconds that Milvus has for each step of a search"
    )
    passage_weight: float = Field(
        0.25,
        ge=0,
        le=1,
        description="weight of the whole-passage cosine; the best views have the rest",
    )
    lexical_weight: float = Field(
        0.4,
        ge=0,
        description="weight of BM25 (as a share of the query's own weight) in the ranking",
    )
    top_k: int = Field(3, ge=1, le=20, description="most quotes an answer shows")
    max_question_chars: int = Field(
        2000, ge=10, le=20_000, description="longest question taken, in characters"
    )
    answered_risk: float = Field(
        0.03, gt=0, lt=1, description="share of `answered` that may be wrong; sets the upper cut"
    )
    refused_risk: float = Field(
        0.05, gt=0, lt=1, description="share of `unanswered` that may be answerable; the lower cut"
    )
    quality_drop: float = Field(
        0.02,
        ge=0,
        le=1,
        description="most that recall@1 on the labelled questions may drop in a build",
    )
    keep_generations: int = Field(
        2, ge=2, le=50, description="index generations kept on disk, the one in use included"
    )
    host: str = Field("127.0.0.1", description="address the page is served on")
    port: int = Field(7860, ge=0, le=65535, description="port the page is served on")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that serve, on Linux and macOS; rates hold across them",
    )
    allowed_hosts: Several[str] = Field(
        (), description="more host names that requests may name, for use behind a proxy"
    )
    max_body_kb: int = Field(256, ge=16, description="largest request body taken, in kilobytes")
    users: Path = Field(
        Path("var/users.toml"), description="file of the people who may sign in, passwords hashed"
    )
    agent_token: SecretStr | None = Field(
        None, description="token that signs an agent in; unset: none, or a new one at each start"
    )
    maintainer_token: SecretStr | None = Field(
        None,
        description="token that signs a maintainer in; unset: none, or a new one at each start",
    )
    session_hours: float = Field(12.0, gt=0, le=8760, description="hours a sign-in lasts")
    rate_per_minute: int = Field(
        120,
        ge=0,
        description="requests a minute taken from one client, an address or one who is signed in "
        "there; 0: no limit",
    )
    rate_login_per_minute: int = Field(
        10, ge=0, description="sign-ins a minute tried by one client; 0: no limit"
    )
    max_at_once: int = Field(
        32, ge=1, description="requests at work at once in one worker; others wait"
    )
    max_waiting: int = Field(
        512, ge=0, description="requests that may wait; more are told to come back (503)"
    )
    request_seconds: float = Field(
        10.0,
        gt=0,
        description="seconds until a request must be answered, or sent; streams are free",
    )
    trusted_proxies: Several[IPvAnyNetwork] = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-For is believed"
    )
    history: str = Field(
        "sqlite:///var/history.db",
        description="database of conversations and tickets: sqlite:/// or postgresql+psycopg://",
    )
    retention_days: float = Field(
        30, ge=0, description="days that conversations and closed tickets are kept; 0: for ever"
    )
    tickets: bool = Field(
        True, description="give tickets numbers and keep them; off: a draft to copy"
    )
    webhook_url: str | None = Field(
        None, pattern=r"^https?://[^\s/]", description="address that is told of every new ticket"
    )
    webhook_secret: SecretStr | None = Field(
        None, description="key that signs what the webhook is told (HMAC-SHA256); unset: unsigned"
    )
    widget_origins: Several[Annotated[str, Field(pattern=_ORIGIN)]] = Field(
        (), description="sites whose pages may show the ask page in a frame (the widget)"
    )
    metrics_open: bool = Field(
        False, description="give /metrics to anyone; else to this machine and maintainers alone"
    )
    api_docs: bool = Field(True, description="serve /docs and /openapi.json")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `overrides` (command line flags) win, None means not given."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(_explain(error)) from None
    except (ValueError, OSError) as error:  # a source that is no TOML, or not to be read at all
        where = "ASSISTANT_* variables and assistant.toml"
        raise UsageError(f"the settings in {where} cannot be read: {error}") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        value = "'…'" if _SECRET.search(name) else repr(problem.get("input"))
        lines.append(f"setting {name!r} is {value}: {problem['msg']}")
    return (
        "; ".join(lines) + ". Settings come from flags, ASSISTANT_* variables and assistant.toml."
    )
