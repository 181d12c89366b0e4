//! What was answered once is so for good: every controller knows every answered request with the answer that was given
//! first, whatever lost its power or its disk since (laws 1 and 8).

use std::collections::BTreeMap;

use dotmac_domain::Reply;
use dotmac_protocol::ids::RequestId;

use super::{Invariant, Verdict, View};

pub(super) struct AcknowledgedIsDurable;

impl Invariant for AcknowledgedIsDurable {
    fn name(&self) -> &'static str {
        "acknowledged_is_durable"
    }

    fn conclude(&mut self, view: &View<'_>) -> Verdict {
        let mut given: BTreeMap<&RequestId, &Reply> = BTreeMap::new();
        for one in view.acknowledged {
            let first = given.entry(&one.request).or_insert(&one.reply);
            if **first != one.reply {
                return Err(format!(
                    "{} {} was answered with {first:?} and then with {:?}",
                    one.what, one.request, one.reply
                ));
            }
        }
        for controller in view.members() {
            for one in view.acknowledged {
                let kept = controller.state.answers.get(&one.request);
                let kept = kept.map(|answer| &answer.reply);
                if kept != Some(&one.reply) {
                    return Err(format!(
                        "{} {} was answered with {:?}, controller {} knows {kept:?}",
                        one.what, one.request, one.reply, controller.place
                    ));
                }
            }
        }
        Ok(())
    }
}
