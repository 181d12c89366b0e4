//! Whatever is not done yet says what it waits for, since when, and who can change it (law 10).

use dotmac_domain::tenancy::Status;

use super::{Invariant, Verdict, View};

pub(super) struct EveryWaitHasAReason;

impl Invariant for EveryWaitHasAReason {
    fn name(&self) -> &'static str {
        "every_wait_has_a_reason"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        for one in view.members() {
            for (id, deployment) in &one.state.deployments {
                let is_done = matches!(
                    deployment.status,
                    Status::Active | Status::Suspended | Status::Destroyed
                );
                let says = deployment.waiting.as_ref();
                let has_reason =
                    says.is_some_and(|one| !one.reason.is_empty() && !one.who.is_empty());
                if !is_done && !has_reason {
                    return Err(format!(
                        "{id} is {} and does not say what it waits for",
                        deployment.status.as_str()
                    ));
                }
            }
        }
        Ok(())
    }
}
