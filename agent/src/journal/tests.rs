//! The journal's claims, on a real directory and with fixture waves.

use std::collections::BTreeSet;

use dotmac_protocol::{ids::Generation, unit::Payload, wave::Verb};

use super::{Journal, TakeError, Taken};
use crate::{
    fixture::{
        NOW, agent, apply, instance, leaf, remove, sign_intent, sign_trust, tenant, trust_root,
        unit,
    },
    trust::TrustStore,
    unit::Order,
};

struct Site {
    directory: tempfile::TempDir,
    trust: TrustStore,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = sign_trust(&trust_root(1), &[10]);
        let trust =
            TrustStore::pin(&directory.path().join("trust"), root.digest(), &[root]).unwrap();
        Self { directory, trust }
    }

    fn journal(&self) -> Journal {
        let tenants = BTreeSet::from([tenant("demo"), tenant("other")]);
        let path = self.directory.path().join("journal");
        let (journal, damages) = Journal::open(&path, agent(), tenants, &self.trust).unwrap();
        assert_eq!(damages, vec![]);
        journal
    }

    fn take(
        &self,
        journal: &mut Journal,
        intent: &dotmac_protocol::wave::SignedIntent,
    ) -> Result<Taken, String> {
        let now = NOW.plus_millis(1_000);
        journal
            .take(intent, &self.trust.current(), now, Some(now))
            .map_err(|error| match error {
                TakeError::Refused { reason, .. } => format!("refused: {reason}"),
                TakeError::Unverified(cause) => format!("unverified: {cause}"),
                TakeError::Disk { source, .. } => format!("disk: {source}"),
            })
    }
}

#[test]
fn an_accepted_order_survives_a_restart_and_a_repeat_changes_nothing() {
    let site = Site::new();
    let mut journal = site.journal();
    let Ok(Taken::Accepted(wanted)) = site.take(&mut journal, &apply("demo", 1, 1)) else {
        panic!("the first order is accepted");
    };
    assert_eq!(
        site.take(&mut journal, &apply("demo", 1, 1)),
        Ok(Taken::Held)
    );
    let mut reopened = site.journal();
    assert_eq!(reopened.desired(), journal.desired());
    assert_eq!(reopened.last_accepted(), Some(&wanted));
    assert_eq!(
        site.take(&mut reopened, &apply("demo", 1, 1)),
        Ok(Taken::Held)
    );
    assert!(matches!(wanted.order, Order::Keep(kept) if *kept == instance("demo")));
}

#[test]
fn neither_an_older_sequence_nor_an_older_generation_is_taken_even_after_a_restart() {
    let site = Site::new();
    let mut journal = site.journal();
    site.take(&mut journal, &apply("demo", 2, 1)).unwrap();
    site.take(&mut journal, &apply("demo", 3, 2)).unwrap();
    drop(journal);
    let mut journal = site.journal();
    let older = site.take(&mut journal, &apply("demo", 2, 1)).unwrap_err();
    assert_eq!(older, "refused: sequence 1 is not newer than 2");
    let older = site.take(&mut journal, &apply("demo", 2, 3)).unwrap_err();
    assert_eq!(older, "refused: generation 2 is older than 3");
    assert_eq!(journal.desired()[&unit("demo")].generation, Generation(3));
}

#[test]
fn orders_for_another_agent_or_an_unserved_tenant_are_refused() {
    let site = Site::new();
    let mut journal = site.journal();
    let mut foreign = leaf("demo", Verb::Apply, 1, 1);
    foreign.agent = "byov-abuja-1".parse().unwrap();
    let payload = Payload::Instance(Box::new(instance("demo")));
    let foreign = sign_intent(foreign, &payload, &[1, 2]);
    let error = site.take(&mut journal, &foreign).unwrap_err();
    assert_eq!(error, "unverified: the intent is for agent byov-abuja-1");
    let error = site
        .take(&mut journal, &apply("stranger", 1, 1))
        .unwrap_err();
    assert!(
        error.starts_with("refused: this agent does not serve tenant"),
        "{error}"
    );
    assert!(journal.desired().is_empty());
}

#[test]
fn a_wave_that_one_controller_signed_alone_is_not_believed() {
    let site = Site::new();
    let mut journal = site.journal();
    let payload = Payload::Instance(Box::new(instance("demo")));
    for signers in [&[1][..], &[1, 1], &[1, 9], &[]] {
        let forged = sign_intent(leaf("demo", Verb::Apply, 1, 1), &payload, signers);
        let error = site.take(&mut journal, &forged).unwrap_err();
        assert_eq!(
            error, "unverified: the wave lacks signatures",
            "{signers:?}"
        );
    }
    assert!(journal.desired().is_empty());
}

#[test]
fn a_tombstone_stays_and_keeps_the_unit_from_coming_back_by_an_old_order() {
    let site = Site::new();
    let mut journal = site.journal();
    site.take(&mut journal, &apply("demo", 1, 1)).unwrap();
    site.take(&mut journal, &remove("demo", 2, 2)).unwrap();
    let mut journal = site.journal();
    assert_eq!(journal.desired()[&unit("demo")].order, Order::Remove);
    let error = site.take(&mut journal, &apply("demo", 2, 3)).unwrap_err();
    assert_eq!(error, "refused: the unit was removed at generation 2");
    assert!(
        matches!(site.take(&mut journal, &apply("demo", 3, 4)), Err(error) if error.contains("builds on sequence 3"))
    );
}

#[test]
fn a_clock_that_was_set_back_opens_no_window_again() {
    let site = Site::new();
    let mut journal = site.journal();
    let mut late = leaf("other", Verb::Apply, 1, 1);
    late.window.not_before = NOW.plus_millis(3_600_000);
    late.window.not_after = NOW.plus_millis(7_200_000);
    let late = sign_intent(
        late,
        &Payload::Instance(Box::new(instance("other"))),
        &[1, 3],
    );
    let clock = NOW.plus_millis(3_600_001);
    assert!(
        journal
            .take(&late, &site.trust.current(), clock, Some(clock))
            .is_ok()
    );
    let error = site
        .take(&mut site.journal(), &apply("demo", 1, 1))
        .unwrap_err();
    assert!(error.starts_with("refused: outside its window"), "{error}");
}

#[test]
fn a_changed_byte_on_disk_is_reported_and_its_unit_left_alone() {
    let site = Site::new();
    let mut journal = site.journal();
    site.take(&mut journal, &apply("demo", 1, 1)).unwrap();
    site.take(&mut journal, &apply("other", 1, 1)).unwrap();
    let path = site.directory.path().join("journal");
    let file = path.join(format!("instance.{}.intent", tenant("demo")));
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (journal, damages) = Journal::open(&path, agent(), BTreeSet::new(), &site.trust).unwrap();
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].file, file);
    assert_eq!(
        journal.desired().into_keys().collect::<Vec<_>>(),
        vec![unit("other")]
    );
}
