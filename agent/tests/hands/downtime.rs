//! What is counted where nothing answers: time without a process is time in which probes fail.

use dotmac_protocol::time::Timestamp;
use serde_json::json;

use super::fleet::{Fleet, unit, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_crashing_is_down_between_its_starts_and_while_it_starts_again() {
    let mut fleet = Fleet::new();
    let probe =
        json!({"http": {"port": "http", "path": "/"}, "period_ms": 100, "grace_ms": 60_000});
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", "sleep 0.4; exit 3"]}, "ports": ["http"],
            "probes": {"ready": probe}}}),
    );
    fleet.start();
    let sums = std::cell::Cell::new((0, 0));
    until("failed probes of many starts", || {
        for minute in fleet.tally.take(&unit(), Timestamp(u64::MAX), |_| true) {
            let (probes, failed) = sums.get();
            sums.set((probes + minute.probes, failed + minute.failed));
        }
        sums.get().0 >= 30
    })
    .await;
    let (probes, failed) = sums.get();
    assert_eq!(failed, probes);
    fleet.end().await;
}
