"""Every fault that is tried, by the name that `--only` takes."""

from tests.faults import (
    clocks,
    conformance,
    crashes,
    disk_use,
    great_amounts,
    guesses,
    malformed,
    outages,
    pressure,
    sessions,
    stopping,
    surges,
)
from tests.faults.figures import Fault

__all__ = ["FAULTS"]

FAULTS: dict[str, Fault] = {
    "kill-gateway": crashes.killed_gateway,
    "freeze-gateway": crashes.frozen_gateway,
    "cut-connections": crashes.broken_connections,
    "kill-profile": crashes.killed_profile_service,
    "kill-during-refresh": sessions.killed_during_refresh,
    "parallel-refreshes": sessions.parallel_refreshes,
    "replayed-token": sessions.replayed_token,
    "log-out-everywhere": sessions.logged_out_everywhere,
    "profile-down": outages.profile_service_down,
    "disk-full": outages.full_disk,
    "database-locked": outages.locked_database,
    "disk-use": disk_use.disk_use,
    "slow-readers": pressure.slow_readers,
    "floods": pressure.floods,
    "half-open": pressure.half_open,
    "malformed-input": malformed.malformed_input,
    "reconnect-storm": surges.reconnect_storm,
    "sigterm-stuck": stopping.stopped_while_stuck,
    "operations": stopping.operations_under_load,
    "great-amounts": great_amounts.great_amounts,
    "clock-jumps": clocks.clock_jumps,
    "login-timing": guesses.login_timing,
    "autobahn": conformance.autobahn,
    "schemathesis": conformance.schemathesis,
}
