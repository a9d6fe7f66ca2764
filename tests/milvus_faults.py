"""Break a build at every call that changes something in Milvus, and look at what is left.

Run as a program: `milvus_faults.py FOLDER URI NAME MODE` prints what `faults.py` prints. MODE is
`kill` (SIGKILL before the call) or `down` (this call and all later ones find no server).
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fakes import CharacterEncoder
from faults import FEW, NEW, OLD, forked, write_guide
from milvus_server import impatient

import assistant.calibrate
from assistant.build import build
from assistant.collection import _alias, _read_card
from assistant.desk import Desk
from assistant.errors import AssistantError, StoreDown
from assistant.milvus import Server, server_of
from assistant.settings import Settings

_CHANGES = {
    "create_collection",
    "insert",
    "flush",
    "create_index",
    "load_collection",
    "create_alias",
    "alter_alias",
    "drop_collection",
}


def trap(at: int, mode: str, count: list[int]) -> None:
    """Let the chosen change be the last."""
    real = Server.call

    def call(self, method, *given, **named):
        count[0] += method in _CHANGES
        if count[0] >= at > 0 and (method in _CHANGES or mode == "down"):
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise StoreDown("nobody is there")
        return real(self, method, *given, **named)

    Server.call = call


def run(settings: Settings, at: int, mode: str) -> int:
    """Build; exit 0 done, 3 refused politely, 9 a traceback; killed: -9."""
    count = [0]
    trap(at, mode, count)
    try:
        build(settings, CharacterEncoder())
        code = 0
    except AssistantError:
        code = 3
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        code = 9
    (settings.corpus.parent / "steps").write_text(str(count[0]))
    return code


def state(settings: Settings) -> str:
    """Tell what a reader finds, and what is odd about the collections."""
    desk = Desk(settings, CharacterEncoder())
    text = desk.ask("提现手续费是多少").quotes[0].text
    asked = server_of(settings)
    mine = {one for one in asked.call("list_collections") if settings.milvus_name in one}
    whole = {folder.name for folder in (settings.index / "generations").glob("*[!p]")}
    folders = (settings.index / "generations").iterdir()
    known = {_read_card(one).name for one in folders if (one / "collection.json").exists()}
    odd = [f"nobody knows {one}" for one in mine - known]
    alias = _alias(asked, settings.milvus_name)
    kept = [_read_card(settings.index / "generations" / one).name for one in whole]
    odd += [] if alias in kept else [f"the alias names {alias}"]
    found = "old" if OLD in text else "new" if NEW in text else f"mixed: {text}"
    return "; ".join([found, *desk.notes, *odd])


def loop(settings: Settings, mode: str) -> dict:
    """Fail at change 1, 2, 3 … until a build runs through untouched; build again after each.

    What finds no server from a step on fails much like from the step before: every third one.
    """
    found: dict = {"steps": 0, "states": {}, "problems": []}
    folder = settings.corpus.parent
    for at in range(0, 100, 3 if mode == "down" else 1):
        write_guide(folder, OLD)
        again, _ = forked(lambda: run(settings, 0, mode))
        _, repaired = forked(lambda: state(settings))
        drafts = list((settings.index / "generations").glob("*.tmp"))
        if again != 0 or repaired != "old" or drafts:
            found["problems"].append(f"change {at}, then: {again}, {repaired}, {drafts}")
        write_guide(folder, NEW)
        code, _ = forked(lambda at=at: run(settings, at, mode))
        if code == 0 and at and int((folder / "steps").read_text()) < at:
            found["steps"] = at - 1
            return found
        _, left = forked(lambda: state(settings))
        found["states"][left] = found["states"].get(left, 0) + 1
        if left not in ("old", "new") or code not in (0, 3, -9) or (code == 0 and left != "new"):
            found["problems"].append(f"change {at}: exit {code}, {left}")
    found["problems"].append("never ran through")
    return found


if __name__ == "__main__":
    for name, few in FEW.items():
        setattr(assistant.calibrate, name, few)
    impatient()  # and imported once, before the forks
    base, uri, called, how = Path(sys.argv[1]), *sys.argv[2:]
    given = {"store": "milvus", "milvus_uri": uri, "milvus_name": called, "milvus_seconds": 20}
    tried = Settings(corpus=base / "corpus", index=base / "index", **given)
    print(json.dumps(loop(tried, how), ensure_ascii=False))
