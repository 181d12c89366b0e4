//! What one caller may take of one controller: requests a second, requests and streams at a time, connections. A caller
//! is the token he shows, or the address he comes from; never what a header says. Everything is bounded, the memory of
//! the limits too, and whatever is refused is told when it may be tried again.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    http::{HeaderName, HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use dotmac_protocol::ids::TokenId;
use dotmac_runtime::rate::whole_seconds;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    problem::{Problem, RATE_LIMITED},
    server::Peer,
};
use crate::{config::Limits, metrics::Limited};

mod buckets;

use buckets::Buckets;

/// Callers and addresses whose rate is remembered; beyond that whoever was longest silent is forgotten.
const REMEMBERED: usize = 16_384;
/// What a change costs: other controllers vouch for it, and all of them write it.
const CHANGE_COST: u32 = 2;
/// Items of a list that cost as much as one read.
const ITEMS_PER_COST: u32 = 100;
/// Bytes of an answer that cost as much as one read: a list of 100 deployments comes to about six.
const ANSWER_BYTES_PER_COST: u64 = 32 * 1024;
/// Items of a list at most; more are refused where the parameter is read.
const ITEMS_MAX: u32 = 1000;

/// The limits of one controller, and what is taken of them.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    streams: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    callers: Buckets<TokenId>,
    guests: Buckets<Peer>,
    guesses: Buckets<Peer>,
    accounts: BTreeMap<TokenId, Weak<Account>>,
}

/// What one caller holds at the moment. It is forgotten when he holds nothing.
#[derive(Debug)]
pub(super) struct Account {
    /// Places for connections on which he was the last to ask.
    pub(super) connections: Arc<Semaphore>,
    /// Places for requests that are being answered; who waits for one gets it in turn.
    pub(super) requests: Arc<Semaphore>,
    /// The place for a long list: making one keeps a core busy for milliseconds, in which all others would wait.
    pub(super) long_lists: Arc<Semaphore>,
    /// Places for streams.
    pub(super) streams: Arc<Semaphore>,
}

/// Why a request is not admitted, and when another one may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    what: &'static str,
    limit: u32,
    wait: Duration,
    closes: bool,
}

impl Gate {
    /// Nobody has taken anything.
    pub(super) fn new(limits: Limits) -> Self {
        let buckets = |rate: NonZeroU32, burst: NonZeroU32| Buckets::new(rate, burst, REMEMBERED);
        let taken = Taken {
            callers: buckets(limits.requests_per_second, limits.requests_burst),
            accounts: BTreeMap::new(),
            guests: Buckets::new(limits.guests_per_second, limits.guests_burst, REMEMBERED),
            guesses: Buckets::new(limits.guesses_per_second, limits.guesses_burst, REMEMBERED),
        };
        let streams = Arc::new(Semaphore::new(limits.streams.get() as usize));
        Self {
            limits,
            streams,
            taken: Mutex::new(taken),
        }
    }

    /// What was configured.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Places for streams of everybody.
    pub(super) fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    /// A request with a token that is known.
    pub(super) fn admit_caller(
        &self,
        token: &TokenId,
        cost: u32,
        now: Instant,
    ) -> Result<(), Refused> {
        let limit = self.limits.requests_per_second.get();
        let taken = self.taken(|taken| taken.callers.take(token, cost, now));
        taken.map_err(|wait| Refused::new("requests a second", limit, wait))
    }

    /// What an answer of so many bytes cost, beyond what was taken when its request was admitted.
    pub(super) fn charge_answer(&self, token: &TokenId, bytes: u64, admitted: u32, now: Instant) {
        let cost = u32::try_from(bytes / ANSWER_BYTES_PER_COST).unwrap_or(u32::MAX);
        let owed = cost.saturating_sub(admitted);
        if owed > 0 {
            self.taken(|taken| taken.callers.charge(token, owed, now));
        }
    }

    /// A request without a token.
    pub(super) fn admit_guest(&self, peer: Peer, now: Instant) -> Result<(), Refused> {
        let limit = self.limits.guests_per_second.get();
        let taken = self.taken(|taken| taken.guests.take(&peer, 1, now));
        taken.map_err(|wait| Refused::new("requests without a token a second", limit, wait))
    }

    /// A request with a token that this controller does not know: a guess, or one that was just made elsewhere.
    pub(super) fn admit_guess(&self, peer: Peer, now: Instant) -> Result<(), Refused> {
        let limit = self.limits.guesses_per_second.get();
        let taken = self.taken(|taken| taken.guesses.take(&peer, 1, now));
        taken.map_err(|wait| Refused::new("unknown tokens a second", limit, wait))
    }

    /// What a caller holds.
    pub(super) fn account(&self, token: &TokenId) -> Arc<Account> {
        self.taken(|taken| {
            let known = taken.accounts.get(token).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                // Whoever holds something has a connection: so there are never many more than connections.
                if taken.accounts.len() >= 2 * self.limits.connections.get() as usize {
                    taken
                        .accounts
                        .retain(|_, account| account.strong_count() > 0);
                }
                let account = Arc::new(Account::new(&self.limits));
                let weak = Arc::downgrade(&account);
                taken.accounts.insert(token.clone(), weak);
                account
            })
        })
    }

    fn taken<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Account {
    fn new(limits: &Limits) -> Self {
        let places = |count: NonZeroU32| Arc::new(Semaphore::new(count.get() as usize));
        Self {
            connections: places(limits.connections_per_caller),
            requests: places(limits.requests_at_once_per_caller),
            long_lists: places(NonZeroU32::MIN),
            streams: places(limits.streams_per_caller),
        }
    }
}

impl Refused {
    /// More than `limit` of something; after `wait` there may be room.
    pub(super) fn new(what: &'static str, limit: u32, wait: Duration) -> Self {
        Self {
            what,
            limit,
            wait,
            closes: false,
        }
    }

    /// The same, and the connection is closed.
    pub(super) fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// What the caller is told: with `Retry-After` and, as draft-ietf-httpapi-ratelimit-headers writes it, the policy.
    pub(super) fn into_response(self) -> Response {
        let Self {
            what,
            limit,
            wait,
            closes,
        } = self;
        let detail = format!("there are at most {limit} {what}");
        let mut response = Problem::new(&RATE_LIMITED, detail).into_response();
        let seconds = whole_seconds(wait);
        response.extensions_mut().insert(Limited(what));
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        if closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let policy = format!("\"{what}\";q={limit}");
        let state = format!("\"{what}\";r=0;t={seconds}");
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            let value = HeaderValue::try_from(value).expect("words and digits are a header value");
            headers.insert(HeaderName::from_static(name), value);
        }
        response
    }
}

/// What a request costs, by what is known before anything is read or looked up.
pub(super) fn cost(method: &Method, query: Option<&str>) -> u32 {
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return CHANGE_COST;
    }
    let parameters = query.unwrap_or_default().split('&');
    let limits = parameters.filter_map(|one| one.strip_prefix("limit=")?.parse::<u32>().ok());
    let items = limits.max().unwrap_or(0).min(ITEMS_MAX);
    items.div_ceil(ITEMS_PER_COST).max(1)
}

/// Whether a request of this cost is a long list, of which a caller has one at a time.
pub(super) fn is_long(cost: u32) -> bool {
    cost > CHANGE_COST
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc, time::Duration};

    use axum::http::Method;
    use dotmac_protocol::ids::TokenId;
    use tokio::time::Instant;

    use super::{Gate, Refused, cost};
    use crate::{api::server::Peer, config::Limits};

    fn token(text: &str) -> TokenId {
        text.repeat(16).parse().unwrap()
    }

    #[test]
    fn a_caller_who_has_used_his_share_takes_nothing_from_others() {
        let gate = Gate::new(Limits::default());
        let now = Instant::now();
        let admitted = (0..5_000)
            .take_while(|_| gate.admit_caller(&token("a"), 1, now).is_ok())
            .count();
        assert_eq!(admitted, 1000);
        assert_eq!(gate.admit_caller(&token("b"), 1, now), Ok(()));
        let later = now + Duration::from_millis(10);
        let admitted = (0..5_000)
            .take_while(|_| gate.admit_caller(&token("a"), 1, later).is_ok())
            .count();
        assert_eq!(admitted, 5);
    }

    #[test]
    fn guessing_is_slow_and_counted_by_address() {
        let gate = Gate::new(Limits::default());
        let now = Instant::now();
        let [guesser, other] =
            ["10.0.0.1", "10.0.0.2"].map(|text| Peer::from(text.parse::<IpAddr>().unwrap()));
        let hour = (0..3600).map(|second| now + Duration::from_secs(second));
        let guesses: usize = hour
            .map(|now| {
                (0..1000)
                    .take_while(|_| gate.admit_guess(guesser, now).is_ok())
                    .count()
            })
            .sum();
        assert_eq!(guesses, 100 + 3599 * 10);
        assert_eq!(gate.admit_guess(other, now), Ok(()));
        assert_eq!(gate.admit_guest(guesser, now), Ok(()));
    }

    #[tokio::test]
    async fn whoever_waits_is_told_how_long_in_whole_seconds() {
        for (millis, seconds) in [(0, "1"), (2, "1"), (1000, "1"), (1001, "2"), (59_500, "60")] {
            let wait = Duration::from_millis(millis);
            let response = Refused::new("requests a second", 500, wait).into_response();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], seconds);
            let expected = format!("\"requests a second\";r=0;t={seconds}");
            assert_eq!(response.headers()["ratelimit"], expected.as_str());
        }
    }

    #[test]
    fn changes_and_long_lists_cost_more() {
        assert_eq!(cost(&Method::GET, None), 1);
        assert_eq!(cost(&Method::GET, Some("limit=100")), 1);
        assert_eq!(cost(&Method::GET, Some("a=b&limit=101")), 2);
        assert_eq!(cost(&Method::GET, Some("limit=1&limit=4000000000")), 10);
        assert_eq!(cost(&Method::POST, None), 2);
        assert_eq!(cost(&Method::DELETE, Some("limit=1000")), 2);
    }

    #[test]
    fn what_a_caller_holds_is_forgotten_when_he_holds_nothing() {
        let gate = Gate::new(Limits::default());
        let held = gate.account(&token("a"));
        assert!(Arc::ptr_eq(&held, &gate.account(&token("a"))));
        for number in 0..20_000_u64 {
            drop(gate.account(&format!("{number:016x}").parse().unwrap()));
        }
        assert!(Arc::ptr_eq(&held, &gate.account(&token("a"))));
        let known = gate.taken(|taken| taken.accounts.len());
        assert!(
            known <= 2 * Limits::default().connections.get() as usize,
            "{known}"
        );
    }
}
