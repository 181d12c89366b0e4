//! Every metric that a controller has besides those of its process. docs/operations/metrics.md shows the same list.

use dotmac_runtime::{
    catalogue,
    metrics::{
        BATCH,
        Kind::{Counter, Gauge, Histogram},
        SECONDS, SYNC_SECONDS,
    },
};

catalogue! {
    RAFT_LEADER = "dotmac_raft_leader" Gauge, [], "1 while this controller leads and a majority has confirmed that within the leader's lease, otherwise 0.";
    RAFT_LEADER_KNOWN = "dotmac_raft_leader_known" Gauge, [], "1 while this controller knows a leader (another one, or itself with a majority's word), otherwise 0.";
    RAFT_TERM = "dotmac_raft_term" Gauge, [], "The Raft term; each election begins a new one.";
    RAFT_LAST_LOG_INDEX = "dotmac_raft_last_log_index" Gauge, [], "Index of the last entry in this controller's log.";
    RAFT_COMMITTED_INDEX = "dotmac_raft_committed_index" Gauge, [], "Index of the last entry that this controller knows to be committed.";
    RAFT_APPLIED_INDEX = "dotmac_raft_applied_index" Gauge, [], "Index of the last entry applied to this controller's State.";
    RAFT_SNAPSHOT_INDEX = "dotmac_raft_snapshot_index" Gauge, [], "Index of the last entry in the newest snapshot.";
    RAFT_PEERS_CONNECTED = "dotmac_raft_peers_connected" Gauge, [], "Other controllers that this one has a connection to.";
    RAFT_MEMBERS = "dotmac_raft_members" Gauge, [], "Controllers of the cluster, this one too.";
    RAFT_LEADER_CHANGES = "dotmac_raft_leader_changes" Counter, [], "How often this controller learned of another leader, or of none.";
    RAFT_PROPOSALS = "dotmac_raft_proposals" Counter, ["result"], "Proposals made to this controller: answered, refused, or timed_out.";
    RAFT_COMMIT_SECONDS = "dotmac_raft_commit_seconds" Histogram(SECONDS), [], "From an entry's start until it was committed and applied, on the leader.";
    RAFT_BATCH_PROPOSALS = "dotmac_raft_batch_proposals" Histogram(BATCH), [], "Proposals that shared one entry, on the leader.";

    HTTP_REQUESTS = "dotmac_http_requests" Counter, ["route", "method", "status"], "Requests answered, by the template of their path and the class of their status: 1xx, 2xx, 3xx, 4xx, or 5xx.";
    HTTP_SECONDS = "dotmac_http_request_duration_seconds" Histogram(SECONDS), ["route", "method"], "From a request's head until its answer began.";
    HTTP_IN_FLIGHT = "dotmac_http_requests_in_flight" Gauge, [], "Requests whose answer has not begun yet.";
    HTTP_PROBLEMS = "dotmac_http_problems" Counter, ["code"], "Requests answered with a problem, by its code.";
    HTTP_RATE_LIMITED = "dotmac_http_rate_limited" Counter, ["limit"], "Requests refused because their caller took too much, by the limit.";

    STORAGE_SYNC_SECONDS = "dotmac_storage_sync_seconds" Histogram(SYNC_SECONDS), [], "Time of the disk to make writes durable.";
    STORAGE_SYNC_FAILURES = "dotmac_storage_sync_failures" Counter, [], "Syncs that the disk did not confirm.";
    STORAGE_SLOW = "dotmac_storage_slow" Gauge, [], "1 while the median of the last 32 syncs is 100 ms or more, otherwise 0.";
    STORAGE_WRITABLE = "dotmac_storage_writable" Gauge, [], "1 while the disk takes new writes, otherwise 0.";
    STORAGE_FREE_BYTES = "dotmac_storage_free_bytes" Gauge, [], "Bytes that are free on the disk of the store.";
    STORAGE_RESERVE_BYTES = "dotmac_storage_reserve_bytes" Gauge, [], "Free bytes below which no new writes are taken.";
    STORAGE_USED_BYTES = "dotmac_storage_used_bytes" Gauge, [], "Bytes of log, ledger and snapshots on the disk.";
    LEDGER_STREAMS = "dotmac_ledger_streams" Gauge, [], "Streams of facts.";

    AGENTS = "dotmac_agents" Gauge, ["region", "presence"], "Agents by region, as all controllers know them: connected, disconnected, or unknown.";
    AGENT_SESSIONS = "dotmac_agent_sessions" Gauge, [], "Agents connected to this very controller.";
    TENANTS = "dotmac_tenants" Gauge, [], "Tenants.";
    DEPLOYMENTS = "dotmac_deployments" Gauge, ["status"], "Deployments by status: pending, provisioning, active, degraded, upgrading, rolling_back, suspended, failed, destroying, or destroyed.";
    LICENSES = "dotmac_licenses" Gauge, ["phase"], "Licences of deployments by phase (valid, grace, restricted, suspended, revoked); destroyed ones do not count.";
    WAVES_SEALED = "dotmac_waves_sealed" Counter, [], "Waves of orders sealed since the cluster began.";
    ORDERS_OPEN = "dotmac_orders_open" Gauge, [], "Orders that their agents have not acknowledged.";
    SIGNED_CLOCK_AGE_SECONDS = "dotmac_signed_clock_age_seconds" Gauge, [], "Age of the newest sealed clock.";

    BACKUP_SCHEDULED = "dotmac_backup_scheduled" Gauge, [], "1 while this controller's configuration has a backup target and a schedule, otherwise 0.";
    BACKUP_AGE_SECONDS = "dotmac_backup_age_seconds" Gauge, [], "Age of the newest good backup; without one since the cluster began.";
    BACKUP_FAILURES = "dotmac_backup_failures_in_a_row" Gauge, [], "Backups that failed since the newest good one.";
    BACKUP_BYTES = "dotmac_backup_bytes" Gauge, [], "Bytes of the newest good backup.";
    BACKUP_SECONDS = "dotmac_backup_duration_seconds" Gauge, [], "How long the newest good backup took.";

    EVENT_WATCHERS = "dotmac_event_watchers" Gauge, [], "Watchers of events.";
    FEED_LAG_ENTRIES = "dotmac_feed_lag_entries" Gauge, [], "Applied entries that the feed has not told of yet.";
    ANSWERS_KEPT = "dotmac_answers_kept" Gauge, [], "Answers kept for retries with the same idempotency key.";
}
