"""Every fault that is tried across nodes, by the name that `--only` takes."""

from tests.faults.figures import Fault
from tests.scale import conflicts, engines, networks, nodes

__all__ = ["FAULTS"]

FAULTS: dict[str, Fault] = {
    "kill-gateway": nodes.killed_gateway,
    "freeze-gateway": nodes.frozen_gateway,
    "rolling-restart": nodes.rolling_restart,
    "kill-profile": nodes.killed_profile_service,
    "nats-gone": engines.lost_nats,
    "postgres-restarted": engines.restarted_postgres,
    "postgres-frozen": engines.frozen_postgres,
    "postgres-slow": engines.slow_postgres,
    "cut-from-nats": networks.cut_from_nats,
    "cut-from-postgres": networks.cut_from_postgres,
    "one-conversation": conflicts.one_conversation,
    "same-client-id": conflicts.same_client_id,
    "log-out-everywhere": conflicts.logged_out_everywhere,
}
