//! Whether this is the controller that its files say, on the data that they say, at a possible time. It repairs nothing.

use dotmac_domain::{
    calendar,
    command::{Genesis, NodeCard},
};
use dotmac_protocol::{keys::PublicKey, time::Timestamp};

use super::{AppError, display, store_directory};
use crate::{
    bootstrap::{self, Beginning, Keys},
    config::Config,
    log::Log as _,
    raft::RaftLog,
    storage::directory::Directory,
};

/// Milliseconds by which this machine's clock may be before the cluster's beginning.
const CLOCK_TOLERANCE_MS: u64 = 30_000;

/// This controller's card among those it starts from, if it is this very controller: a wiped disk is another one.
pub(super) fn own_card(
    config: &Config,
    keys: &Keys,
    members: &[NodeCard],
) -> Result<NodeCard, AppError> {
    let stranger = |what, advice| AppError::Stranger {
        path: display(&config.genesis),
        node: config.node,
        what,
        advice,
    };
    let card = members.iter().find(|card| card.node == config.node);
    let card = card.ok_or_else(|| {
        stranger(
            "number",
            "its number is not in the cluster: check `node` in the configuration",
        )
    })?;
    let advice = "the disk was wiped or belongs to another controller: it cannot come back under this \
                  number, replace the node";
    if card.incarnation != keys.incarnation {
        return Err(stranger("incarnation", advice));
    }
    if card.signing_key != PublicKey::of(&keys.signing) {
        return Err(stranger("signing key", advice));
    }
    if card.issuer != keys.issuer.certificate() {
        return Err(stranger("issuing certificate", advice));
    }
    Ok(card.clone())
}

/// Refuses to begin with an empty store where a restored one belongs: it would found the cluster anew, without what is in the
/// backup. A store that was there is another matter: its controller must not forget it.
pub(super) fn check_restored(config: &Config, beginning: &Beginning) -> Result<(), AppError> {
    let store = store_directory(config);
    let is_new =
        !Directory::is_there(&store) && !bootstrap::store_mark(&config.data_dir).is_there();
    match &beginning.backup {
        Some(backup) if is_new => Err(AppError::NotRestored {
            genesis: display(&config.genesis),
            backup: backup.name.clone(),
            store: display(&store),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a clock of before the cluster was made: it has never been set since this machine started, and nobody would accept
/// this controller's certificates.
pub(super) fn check_clock(genesis: &Genesis, now: Timestamp) -> Result<(), AppError> {
    if now.plus_millis(CLOCK_TOLERANCE_MS) >= genesis.created_at {
        return Ok(());
    }
    Err(AppError::Clock {
        now: calendar::moment(now),
        made: calendar::moment(genesis.created_at),
    })
}

/// Refuses data that was founded otherwise than the genesis file says, and closes it.
pub(super) async fn check_cluster(
    raft: &RaftLog,
    genesis: &Genesis,
    config: &Config,
) -> Result<(), AppError> {
    let state = raft.state();
    let found = match &state.genesis {
        Some(known) if known != genesis => known.cluster.clone(),
        _ => return Ok(()),
    };
    raft.shutdown().await;
    Err(AppError::OtherCluster {
        data: display(&store_directory(config)),
        found,
        genesis: display(&config.genesis),
    })
}
