"""What docs/deploy.md tells is so: behind nginx, under systemd, with settings that there are."""

import re
import shutil
import subprocess
import sys

import pytest
from server import REPOSITORY

from assistant.settings import Settings

DEPLOY = REPOSITORY / "docs" / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx")
@pytest.mark.skipif(sys.platform != "linux", reason="asks from several addresses of the loopback")
def test_behind_nginx_as_it_is_written_down_all_is_as_it_should_be():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "try_nginx.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tried = [line.partition(":")[0] for line in done.stdout.splitlines() if ": " in line]
    assert set(tried) >= {
        "the page",
        "plain http",
        "http 2",
        "rest",
        "signing in",
        "the event stream",
        "large bodies",
        "foreign hosts",
        "client addresses",
        "while it is away",
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit_and_finds_it_well_shut_in(tmp_path):
    unit = (DEPLOY / "assistant.service").read_text()
    for old, new in (
        ("/opt/assistant/.venv/bin/assistant ", "/bin/true "),
        ("EnvironmentFile=/", "EnvironmentFile=-/"),
    ):
        assert unit.count(old) == 1
        unit = unit.replace(old, new)
    (tmp_path / "assistant.service").write_text(unit)
    verified = run("systemd-analyze", "verify", "--man=no", tmp_path / "assistant.service")
    assert verified.returncode == 0, verified.stderr
    assert "assistant.service" not in verified.stderr
    judged = run("systemd-analyze", "security", "--offline=true", tmp_path / "assistant.service")
    exposed = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
    if exposed is None:
        pytest.skip(f"this systemd judges no file: {judged.stderr}")
    assert float(exposed[1]) < 2


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_settings_and_the_streams_that_are_named_exist():
    told = (REPOSITORY / "docs" / "deploy.md").read_text("utf-8")
    unit = (DEPLOY / "assistant.service").read_text()
    names = set(re.findall(r"ASSISTANT_([A-Z_]+)", told + unit))
    assert {name.lower() for name in names} <= set(Settings.model_fields)
    default = Settings.model_fields["max_body_kb"].default
    assert f"ASSISTANT_MAX_BODY_KB` ({default})" in told
    assert default < 1024  # nginx's own limit, client_max_body_size 1m
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", told):
        assert (REPOSITORY / "docs" / target).exists(), target
