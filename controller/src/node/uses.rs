//! When tokens were used last, as far as this controller saw: in memory, bounded, and told to the log at most once a
//! minute. It is for people who look for tokens that nobody needs; nothing is decided by it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dotmac_domain::{
    Command, State,
    access::{LIVE_TOKENS_MAX, TOKEN_USES_MAX, minute_of},
    envelope::Actor,
};
use dotmac_protocol::{ids::TokenId, time::Timestamp};
use tokio::time::MissedTickBehavior;

use super::Node;

/// How often uses are told.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long that may take.
const TELL_DEADLINE: Duration = Duration::from_secs(5);

/// The newest use of each token that is not told yet. As many as there can be tokens that count; further ones are left
/// out.
#[derive(Debug, Default)]
pub struct TokenUses(Mutex<BTreeMap<TokenId, Timestamp>>);

impl TokenUses {
    /// Notes that a token was used.
    pub fn note(&self, token: &TokenId, now: Timestamp) {
        let minute = minute_of(now);
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uses.get_mut(token) {
            *known = minute.max(*known);
        } else if uses.len() < LIVE_TOKENS_MAX {
            uses.insert(token.clone(), minute);
        }
    }

    /// Takes what the State does not know yet.
    fn take_news(&self, state: &State) -> Vec<(TokenId, Timestamp)> {
        let uses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        uses.into_iter()
            .filter(|(id, at)| {
                let known = state.tokens.get(id);
                known.is_some_and(|token| token.last_used_at < Some(*at))
            })
            .collect()
    }
}

/// Tells the log of uses once a minute, until the process ends.
pub async fn run_token_uses(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TELL_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        tell(&node).await;
    }
}

/// Tells the log of the uses since the last time; those that do not get through are told the next time.
async fn tell(node: &Node) {
    let news = node.uses.take_news(&node.state());
    for uses in news.chunks(TOKEN_USES_MAX) {
        let command = Command::NoteTokenUse {
            uses: uses.to_vec(),
        };
        let told = node.propose(Actor::Planner, command, TELL_DEADLINE).await;
        if let Err(error) = told {
            tracing::debug!(%error, "the use of tokens was not noted");
            for (token, at) in uses {
                node.uses.note(token, *at);
            }
        }
    }
}
