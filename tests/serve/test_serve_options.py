"""The options of a server: where the token comes from, and what their import costs."""

import subprocess
import sys

import pytest

from dreamer_hf.options import flags_of
from dreamer_hf.serve import ServeOptions


def token_of(**options):
    options = ServeOptions(model="tiny", **options)
    options.check()
    return options.token


def test_a_token_comes_from_the_command_line_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DREAMER_TOKEN", raising=False)
    assert token_of() is None
    monkeypatch.setenv("DREAMER_TOKEN", "from the environment")
    assert token_of() == "from the environment"
    (tmp_path / "token").write_text("from a file\n")
    assert token_of(token_file=str(tmp_path / "token")) == "from a file"
    assert token_of(token="given", token_file=str(tmp_path / "token")) == "given"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_refused(tmp_path, content):
    """A server that was meant to have a token must not start without one."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ValueError, match="token"):
        token_of(token_file=str(tmp_path / "token"))
    with pytest.raises(ValueError, match="cannot read a token"):
        token_of(token_file=str(tmp_path))


def test_every_option_is_a_flag_with_help_and_their_import_is_light():
    assert {"model", "host", "token_file", "allowed_host"} <= {flag.name for flag in flags_of(ServeOptions)}
    assert all(flag.help.endswith(".") for flag in flags_of(ServeOptions))
    code = "import sys, dreamer_hf.serve; print({'torch', 'numpy', 'starlette', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
