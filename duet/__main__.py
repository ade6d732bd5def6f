"""Run both services in this terminal: `python -m duet`, which is what `make run` does.

They write straight to the terminal. Each has a session of its own, so that Ctrl-C does not reach it
twice: this process turns Ctrl-C, SIGTERM or a closed terminal into one SIGTERM for each, and waits
while they drain. A second one kills them. If a service stops by itself, the other is stopped too.

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
STOPPED_AS_ASKED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)


async def main() -> int:
    """Run until a signal or the first exit of a service, and return the exit status."""
    stop, kill = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: (kill if stop.is_set() else stop).set()
        )
    services = {name: await _start(name) for name in SERVICES}
    exits = {asyncio.create_task(one.wait()): name for name, one in services.items()}
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait([asked, *exits], return_when=asyncio.FIRST_COMPLETED)
    failed = [name for task, name in exits.items() if task.done() and not asked.done()]
    for name in failed:
        _say(f"{name} stopped (exit status {services[name].returncode}), see above; stopping too")
    if not failed:
        _say("stopping; once more to stop at once")
    stop.set()
    for service in services.values():
        _send(service, signal.SIGTERM)
    killed = not await _all_exit(list(exits), kill)
    for name, service in services.items():
        if service.returncode is None:
            _say(f"{name} killed: it had not stopped")
            _send(service, signal.SIGKILL)
            await service.wait()
    clean = all(service.returncode in STOPPED_AS_ASKED for service in services.values())
    return 0 if clean and not failed and not killed else 1


async def _start(name: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", name, stdin=DEVNULL, start_new_session=True
    )


async def _all_exit(exits: list[asyncio.Task[int]], kill: asyncio.Event) -> bool:
    """Wait for every exit; False when the deadline or a second signal came first."""
    everyone = asyncio.create_task(asyncio.wait(exits))
    impatient = asyncio.create_task(kill.wait())
    await asyncio.wait(
        [everyone, impatient], timeout=STOP_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED
    )
    return everyone.done()


def _send(service: Process, number: signal.Signals) -> None:
    if service.returncode is None:
        service.send_signal(number)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"duet: {line}\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
