"""The README's example does what it says."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from duet_client import NewMessage, Tokens
from tests.client_python.services import PASSWORD, Duet, expect

_README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


async def test_example_runs(duet: Duet, ann: Tokens, bob: Tokens, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.+?)```", _README.read_text(), re.DOTALL)
    for written, real in [
        ("http://127.0.0.1:8000", duet.profile_url),
        ("ws://127.0.0.1:8765/v1/ws", duet.gateway.url),
        ('"ann"', repr(ann.username)),
        ('"bob"', repr(bob.username)),
        ("correct horse battery staple", PASSWORD),
    ]:
        assert written in example
        example = example.replace(written, real)
    inherited = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    paths = os.pathsep.join(path for path in sys.path if path)
    async with duet.connect(bob, tmp_path / "b") as b:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-W", "error", "-c", example),
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": paths},
            stdout=PIPE,
        )
        try:
            assert (await expect(b, NewMessage)).text == "hi"
            await b.send(ann.username, "hello")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"hello\n"
            assert (await expect(b, NewMessage)).text == "You said: hello"
        finally:
            process.kill()
            await process.communicate()
