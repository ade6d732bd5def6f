"""Run both services in this terminal: `python -m shared.launcher`, which is what `make run` does.

They write straight to the terminal. Each has a session of its own, so that Ctrl-C does not reach it
twice: this process turns Ctrl-C, Ctrl-\\, SIGTERM or a closed terminal into one SIGTERM for each
and waits while they drain. Another Ctrl-C or Ctrl-\\ kills them. If a service stops by itself, the
other is stopped too.

Exit status: 0 after a stop that was asked for; 1 when a service failed or had to be killed.
"""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import DEVNULL, Process

SERVICES = ("profile_service", "ws_gateway")
STOP_DEADLINE_S = 20.0
"""Longer than the gateway takes at most to drain its connections."""
FROM_THE_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
"""Ctrl-C and Ctrl-\\."""
STOPPED_AS_ASKED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)


async def main() -> int:
    """Run until a signal or the first exit of a service, and return the exit status."""
    stop, kill = asyncio.Event(), asyncio.Event()

    def receive(number: signal.Signals) -> None:
        if stop.is_set() and number in FROM_THE_KEYBOARD:
            kill.set()
        stop.set()

    # A signal that ended this process alone would leave the services running unseen.
    for number in (*FROM_THE_KEYBOARD, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, receive, number)
    services = {name: await _start(name) for name in SERVICES}
    exits = [asyncio.create_task(service.wait()) for service in services.values()]
    await _first(asyncio.create_task(stop.wait()), *exits)
    if stop.is_set():
        _say("stopping; Ctrl-C again stops at once")
    for name, service in services.items():
        if service.returncode is None:
            service.send_signal(signal.SIGTERM)
        elif not stop.is_set():
            _say(f"{name} stopped with exit status {service.returncode}; stopping the other too")
    failed = not stop.is_set()
    stop.set()

    everyone = asyncio.create_task(asyncio.wait(exits))
    await _first(everyone, asyncio.create_task(kill.wait()), timeout_s=STOP_DEADLINE_S)
    for name, service in services.items():
        if service.returncode is None:
            _say(f"{name} did not stop in time: killing it")
            service.kill()
    await everyone
    clean = all(service.returncode in STOPPED_AS_ASKED for service in services.values())
    return 0 if clean and not failed else 1


async def _start(name: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", name, stdin=DEVNULL, start_new_session=True
    )


async def _first(*tasks: asyncio.Task[object], timeout_s: float | None = None) -> None:
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"duet: {line}\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
