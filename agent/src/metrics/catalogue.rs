//! Every metric that an agent has besides those of its process. docs/operations/metrics.md shows the same list.

use dotmac_runtime::{
    catalogue,
    metrics::{
        Kind::{Counter, Gauge, Histogram},
        SECONDS, SYNC_SECONDS,
    },
};

catalogue! {
    CONNECTED = "dotmac_agent_connected" Gauge, [], "1 while the agent has a session with a controller, otherwise 0.";
    SIGNED_CLOCK_AGE_SECONDS = "dotmac_agent_signed_clock_age_seconds" Gauge, [], "Age of the newest signed clock.";
    CERTIFICATE_REMAINING_SECONDS = "dotmac_agent_certificate_remaining_seconds" Gauge, [], "Time until the agent's certificate ends; 0 afterwards.";
    CERTIFICATE_LIFETIME_SECONDS = "dotmac_agent_certificate_lifetime_seconds" Gauge, [], "From when the agent's certificate came to its end.";
    ORDERS = "dotmac_agent_orders" Counter, ["verdict"], "Orders that arrived; accepted ones are in the journal.";
    TAKES_WORK = "dotmac_agent_takes_new_work" Gauge, [], "1 while new orders are taken, 0 when too many records wait for acknowledgement.";

    OUTBOX_RECORDS = "dotmac_agent_outbox_records" Gauge, [], "Records that wait for acknowledgement.";
    OUTBOX_BYTES = "dotmac_agent_outbox_bytes" Gauge, [], "Bytes of them.";
    OUTBOX_LIMIT_BYTES = "dotmac_agent_outbox_limit_bytes" Gauge, [], "Bytes above which no new work is taken.";
    RECORDS = "dotmac_agent_records" Counter, [], "Records written to the signed chain in the life of this agent.";
    CHAIN_SYNC_SECONDS = "dotmac_agent_chain_sync_seconds" Histogram(SYNC_SECONDS), [], "Time of the disk to make records durable.";
    CHAIN_SYNC_FAILURES = "dotmac_agent_chain_sync_failures" Counter, [], "Syncs of the chain that the disk did not confirm.";

    UNITS = "dotmac_agent_units" Gauge, ["health"], "Units by health: unknown, starting, healthy, degraded, failed, or stopped.";
    LICENSES = "dotmac_agent_licenses" Gauge, ["phase"], "Licences of units by phase: valid, grace, restricted, suspended, or revoked.";
    INSTANCE_STARTS = "dotmac_agent_instance_starts" Counter, ["kind"], "Processes of instances started: first, again (after a crash), or refused.";
    INSTANCE_ENDS = "dotmac_agent_instance_ends" Counter, ["kind"], "Processes of instances that ended: stopped, done (a task), or crashed.";
    PROBES = "dotmac_agent_probes" Counter, ["result"], "Questions to instances about their health: good or bad.";
    PROBE_SECONDS = "dotmac_agent_probe_seconds" Histogram(SECONDS), [], "Time of an instance to answer a probe, or to fail it.";

    PLATFORM_REQUESTS = "dotmac_agent_platform_requests" Counter, ["route", "status"], "Requests of instances to the platform API, by the template of their path and the class of their status: 1xx, 2xx, 3xx, 4xx, or 5xx.";
    PLATFORM_SECONDS = "dotmac_agent_platform_request_duration_seconds" Histogram(SECONDS), ["route"], "Time to answer them.";
    CLOSED_FOR_ROOM = "dotmac_agent_connections_closed" Counter, ["listener"], "Connections closed to make room for others, by what listens: platform (the platform API), or status (the status address).";
}
