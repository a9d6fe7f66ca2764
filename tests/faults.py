"""Break a build at every step and look at what is left, as SQLite's test suite does.

Run as a program, so that every try is a fork of one small process: `faults.py FOLDER SCENARIO MODE`
prints {"steps": n, "states": {"old": n, "new": n, ...}, "problems": [...]}. A step is a call that
opens a file for writing, makes, renames or removes something, or syncs. MODE is `kill` (SIGKILL
before the step), `once` (the step fails for lack of space) or `sticky` (it and all later ones do).
"""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# What a build imports late: here once, not once a fork.
import markdown_it  # noqa: F401
import numpy.ma
import numpy.random  # noqa: F401
from fakes import CharacterEncoder

import assistant.calibrate
from assistant import generations
from assistant.build import build
from assistant.errors import AssistantError, NoIndex
from assistant.search import Index
from assistant.settings import Settings

FEW = {
    "out_of_guide": lambda: ["今天天气如何", "推荐一部电影", "what is love"],
    "asked_anywhere": list,
    "practice": list,
}
"""What calibration asks in these tests, so that hundreds of builds take minutes."""

OLD, NEW = "提现手续费是一元。", "提现手续费是两元。"
_STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
_real_fsync = os.fsync


class Trap:
    """Count steps; at the chosen one kill the process or fail."""

    def __init__(self, at: int, mode: str) -> None:
        self.at, self.mode, self.count, self.armed = at, mode, 0, False

    def step(self) -> None:
        if not self.armed:
            return
        self.count += 1
        if self.mode == "kill" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.count == self.at or (self.mode == "sticky" and self.count > self.at > 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def audit(self, event: str, arguments: tuple) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if writing or event in _STEPS:
            self.step()

    def fsync(self, file: int) -> None:
        self.step()
        _real_fsync(file)


def settings_of(folder: Path) -> Settings:
    return Settings(corpus=folder / "corpus", index=folder / "index")


def write_guide(folder: Path, sentence: str) -> None:
    (folder / "corpus").mkdir(exist_ok=True)
    text = f"# 费用\n\n{sentence}另见说明。\n\n# 其他\n\n这里是别的内容。还有一句话。\n"
    path = folder / "corpus" / "guide.md"
    path.write_text(text, "utf-8")
    os.utime(path, (0, 0))  # long at rest: hundreds of builds do not wait for its writer


def run(folder: Path, at: int, mode: str) -> int:
    """Build with a trap; exit 0 done, 3 refused politely, 9 a traceback; killed: -9."""
    trap = Trap(at, mode)
    sys.addaudithook(trap.audit)
    os.fsync = trap.fsync
    encoder = CharacterEncoder()
    try:
        trap.armed = True
        build(settings_of(folder), encoder)
        code = 0
    except AssistantError:
        code = 3
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        code = 9
    trap.armed = False
    (folder / "steps").write_text(str(trap.count))
    return code


def state(folder: Path) -> str:
    """Tell what a reader finds: none, old or new; anything else is a problem."""
    settings, encoder = settings_of(folder), CharacterEncoder()
    try:
        opened = generations.current(settings.index)
    except NoIndex:
        return "none"
    except AssistantError as error:
        return f"unusable: {error}"
    index = Index(opened.generation.folder, encoder, settings)
    text = index.search("提现手续费", 1).hits[0].chunk.text
    found = "old" if OLD in text else "new" if NEW in text else f"mixed: {text}"
    return f"{found}, with a note" if opened.notes else found


def forked(action) -> tuple[int, str]:
    """Run an action in a fork; return its exit code and what it returned as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result = action()
        os.write(writing, str(result).encode()[:4000])
        os._exit(result if isinstance(result, int) else 0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return os.waitstatus_to_exitcode(status), pipe.read().decode("utf-8", "replace")


def loop(folder: Path, scenario: str, mode: str) -> dict:
    """Fail at step 1, 2, 3 … until a build runs through untouched."""
    found: dict = {"steps": 0, "states": {}, "problems": []}
    base = folder / "base"
    base.mkdir()
    # Between the first generation and the first pointer a reader may find the whole new index.
    allowed = {"none", "new", "new, with a note"} if scenario == "first" else {"old", "new"}
    if scenario != "first":
        write_guide(base, OLD)
        forked(lambda: run(base, -1, "none"))
        if scenario == "second":  # so that the sweep has something to remove
            forked(lambda: run(base, -1, "none"))
    write_guide(base, NEW)
    # What fails for good from a step on fails much like from the step before: every second one.
    for at in range(1, 1000, 2 if mode == "sticky" else 1):
        here = folder / "try"
        shutil.copytree(base, here)
        code, _ = forked(lambda at=at, here=here: run(here, at, mode))
        _, left = forked(lambda here=here: state(here))
        found["states"][left] = found["states"].get(left, 0) + 1
        if left not in allowed or code not in (0, 3, -9) or (code == 0 and left != "new"):
            found["problems"].append(f"step {at}: exit {code}, {left}")
        again, _ = forked(lambda here=here: run(here, -1, "none"))
        _, repaired = forked(lambda here=here: state(here))
        drafts = list((here / "index" / "generations").glob("*.tmp"))
        if again != 0 or repaired != "new" or drafts:
            found["problems"].append(
                f"step {at}: the same build again: {again}, {repaired}, {drafts}"
            )
        untouched = code == 0 and int((here / "steps").read_text()) < at if code == 0 else False
        shutil.rmtree(here)
        if untouched:
            found["steps"] = at - 1
            return found
    found["problems"].append("never ran through")
    return found


if __name__ == "__main__":
    for name, few in FEW.items():
        setattr(assistant.calibrate, name, few)
    print(json.dumps(loop(Path(sys.argv[1]), sys.argv[2], sys.argv[3]), ensure_ascii=False))
