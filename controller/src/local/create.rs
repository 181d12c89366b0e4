//! The first start of a local fleet, offline: directories and configurations, the controllers' own keys, the genesis.
//! Each step is skipped where its result exists, so that an interrupted first start goes on where it ended.

use dotmac_runtime::{causes, clock::Clock, disk, entropy::Entropy};

use super::{
    layout::{Layout, Settings},
    member::Member,
    ports::REGIONS,
};
use crate::{
    backup::recipient::{Identity, Recipient},
    bootstrap,
    cli::{
        cluster::{Create, explain},
        failure::Failure,
    },
    config::Config,
};

/// Removals an hour that a local fleet allows, in all and for one tenant: enough for a day of trying out.
const REMOVALS_PER_HOUR: (u32, u32) = (1_000, 100);

/// Writes the configurations, and makes keys and genesis if there are none.
pub(crate) fn create(
    layout: &Layout,
    settings: &Settings,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<(), Failure> {
    let directory = |path: &std::path::Path| {
        disk::create_private_dir(path).map_err(|cause| Failure::io("make", path, &cause))
    };
    directory(&layout.home().join("keys"))?;
    directory(&layout.backups())?;
    let recipient = recipient(layout, entropy)?;
    let members = Member::all(layout);
    for member in &members {
        directory(&member.directory)?;
        let text = member.render(layout, settings, &recipient);
        disk::write_atomic(&member.config(), text.as_bytes(), 0o600)
            .map_err(|cause| Failure::io("write", &member.config(), &cause))?;
    }
    directory(&layout.process("supervisor"))?;
    layout.keep(settings)?;
    if layout.genesis().is_file() {
        return Ok(());
    }
    let mut cards = Vec::new();
    for member in members.iter().filter(|member| member.is_controller()) {
        let config = Config::load(&member.config()).map_err(|error| explain(&error))?;
        cards.push(bootstrap::init(&config, clock, entropy).map_err(|error| explain(&error))?);
    }
    let regions: Result<Vec<_>, _> = REGIONS.iter().map(|region| region.parse()).collect();
    let create = Create {
        cards: Vec::new(),
        root_key_file: layout.root_key(),
        approver_key_file: layout.approver_key(),
        admin_token_file: layout.admin_token(),
        out: layout.genesis(),
        cluster: "dotmac".parse().expect("a label"),
        regions: regions.expect("all of them are labels"),
        default_region: None,
        default_channel: "stable".into(),
        grace_ms: settings.grace_ms,
        window_ms: 3_600_000,
        removals_per_hour: REMOVALS_PER_HOUR.0,
        removals_per_tenant_hour: REMOVALS_PER_HOUR.1,
    };
    create.make(cards, clock, entropy).map(|_| ())
}

/// Whom backups are sealed to: a key that is made once, beside the other offline ones.
fn recipient(layout: &Layout, entropy: &Entropy) -> Result<Recipient, Failure> {
    let path = layout.backup_identity();
    let identity = if path.is_file() {
        Identity::read(&path)
    } else {
        Identity::create(&path, entropy)
    };
    let identity = identity.map_err(|error| Failure::Failed(causes::in_full(&error)))?;
    Ok(identity.recipient())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dotmac_runtime::{clock::Clock, entropy::Entropy};

    use super::create;
    use crate::{
        bootstrap::read_beginning,
        config::Config,
        local::{
            layout::{Layout, Settings},
            member::Member,
        },
    };

    #[test]
    fn a_first_start_makes_a_cluster_of_three_and_a_second_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        let settings = Settings {
            port_base: 9000,
            grace_ms: 7,
            otlp_endpoint: None,
        };
        let (clock, entropy) = (Clock::system(), Entropy::system());
        layout.prepare().unwrap();
        create(&layout, &settings, &clock, &entropy).unwrap();
        let genesis = read_beginning(&layout.genesis()).unwrap().genesis;
        assert_eq!(
            (genesis.nodes.len(), genesis.regions.len(), genesis.grace_ms),
            (3, 5, 7)
        );
        assert_eq!(genesis.nodes[1].link_address, "127.0.0.1:9011");
        let token = std::fs::metadata(layout.admin_token())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(token & 0o777, 0o600);
        for member in Member::all(&layout)
            .iter()
            .filter(|member| member.is_controller())
        {
            Config::load(&member.config()).unwrap();
        }

        create(&layout, &settings, &clock, &entropy).unwrap();
        assert_eq!(read_beginning(&layout.genesis()).unwrap().genesis, genesis);
    }
}
