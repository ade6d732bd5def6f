"""Runs the tests of clients/web/duet.js, which are Node's own: `node --test`."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "node" / "duet.test.mjs"
MIN_NODE = 20


def _node() -> str | None:
    """Node.js, if it is there."""
    return shutil.which("node")


@pytest.mark.skipif(_node() is None, reason=f"Node.js is not installed ({MIN_NODE} or newer)")
async def test_javascript_module_keeps_its_promises() -> None:
    process = await asyncio.create_subprocess_exec(
        "node",
        "--experimental-websocket",  # Node.js 20 has no WebSocket without it
        "--test",
        "--test-force-exit",
        "--test-timeout=60000",
        "--test-reporter=tap",
        str(TESTS),
        env={**os.environ, "DUET_TEST_PYTHON": sys.executable},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert re.search(r"^# fail 0$", output, re.MULTILINE), output
