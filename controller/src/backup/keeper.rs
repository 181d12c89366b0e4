//! What the leader does for backups: makes one when it is due or asked for, tells the State how far it is and how it
//! ended, and removes those that are too many. A failed one is tried again later and later. Nothing else waits for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dotmac_domain::{Command, State, backups::BackupNews, envelope::Actor};
use dotmac_protocol::{ids::Epoch, time::Timestamp};
use dotmac_runtime::causes;
use tokio::sync::watch;

use super::{
    Settings, began,
    listing::{self, Listed},
    manifest::{MANIFEST, Manifest},
    name_at,
    origin::Origin,
    read::{self, ReadError},
    retention::{Retention, UNFINISHED_KEPT_MS},
    target::{Target, TargetError},
    write::{self, Order, WriteError},
};
use crate::node::Node;

/// How often the leader looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// How long the State may take to learn of a backup.
const NOTE_DEADLINE: Duration = Duration::from_secs(5);
/// How often the State learns how far a backup is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long a backup may make no progress before it is given up.
const STUCK: Duration = Duration::from_secs(300);
/// How long a directory may take to be opened: a network file system that is away answers never.
const OPEN: Duration = Duration::from_secs(10);
/// How long a target may take to tell what it holds.
const LIST: Duration = Duration::from_secs(60);
/// Trust roots in a manifest at most, the newest ones.
const TRUST_ROOTS_MAX: usize = 256;
/// Attempts to tell the State how a backup ended; afterwards it is taken for lost and made again.
const TELL_ATTEMPTS: u32 = 20;

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("controller {0} leads and has no backup.target in its configuration")]
    NoTarget(u64),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("backup target {0} does not answer within {OPEN:?}")]
    Silent(String),
    #[error("backup target {0} took nothing for {STUCK:?}")]
    Stuck(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("backup target {target} did not {action} within {limit:?}: see whether it answers")]
    Slow {
        target: String,
        action: &'static str,
        limit: Duration,
    },
}

/// Makes backups whenever this controller leads, until the process ends.
pub async fn run(node: Arc<Node>) {
    let mut applied = node.log.applied();
    let mut leadership = node.log.leadership();
    loop {
        if node.is_leader() && is_due(&node) {
            make(&node).await;
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

fn is_due(node: &Node) -> bool {
    let state = node.state();
    let schedule = node.backup.as_ref().and_then(|one| one.schedule.as_ref());
    let now = node.clock.now().max(state.now);
    let is_known = state.rules >= Command::RequestBackup.rules_needed();
    is_known && state.genesis.is_some() && state.backups.due(schedule).is_some_and(|due| due <= now)
}

async fn make(node: &Arc<Node>) {
    let name = name_at(node.clock.now(), &node.entropy);
    // Who is no leader any more finds out here, before anything is written.
    if !tell(node, &name, BackupNews::Wrote { bytes: 0 }, 1).await {
        return;
    }
    let news = match attempt(node, &name).await {
        Ok(manifest) => {
            let (index, bytes) = (manifest.index, manifest.bytes());
            tracing::info!(backup = name, index, bytes, "backup made");
            BackupNews::Made { index, bytes }
        }
        Err(error) => {
            let reason = causes::in_full(&error);
            tracing::error!(backup = name, reason, "backup failed");
            BackupNews::Failed { reason }
        }
    };
    let is_made = matches!(news, BackupNews::Made { .. });
    tell(node, &name, news, TELL_ATTEMPTS).await;
    if is_made && let Err(error) = tidy(node, &name).await {
        tracing::warn!(
            error = causes::in_full(&error),
            "old backups stay at the target"
        );
    }
}

async fn attempt(node: &Arc<Node>, name: &str) -> Result<Manifest, KeepError> {
    let settings = node.backup.as_ref();
    let settings = settings.ok_or(KeepError::NoTarget(node.card.node.0))?;
    let target = open(settings).await?;
    let moment = node.log.moment();
    let trust_roots = moment.state.newest_trust_roots(TRUST_ROOTS_MAX);
    let order = Order {
        name: name.to_owned(),
        recipients: settings.recipients.clone(),
        moment,
        trust_roots,
        node: node.card.node,
        key: node.signing_key.clone(),
    };
    let (written, progress) = watch::channel(0);
    let log = Arc::clone(&node.log);
    let writing = write::create(&target, order, log, &node.entropy, &written);
    tokio::select! {
        made = writing => Ok(made?),
        () = follow(node, name, progress) => Err(KeepError::Stuck(settings.target.clone())),
    }
}

/// Tells how far it is; returns when it does not get on.
async fn follow(node: &Arc<Node>, name: &str, mut progress: watch::Receiver<u64>) {
    let mut told = 0;
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let bytes = *progress.borrow_and_update();
        if bytes != told {
            (told, since) = (bytes, tokio::time::Instant::now());
        } else if since.elapsed() >= STUCK {
            return;
        }
        tell(node, name, BackupNews::Wrote { bytes }, 1).await;
    }
}

/// Tells the State; says whether it is in it.
async fn tell(node: &Arc<Node>, name: &str, news: BackupNews, attempts: u32) -> bool {
    for _ in 0..attempts {
        let command = Command::NoteBackup {
            name: name.to_owned(),
            news: news.clone(),
        };
        match node.propose(Actor::Planner, command, NOTE_DEADLINE).await {
            Ok(Ok(_)) => return true,
            Ok(Err(rejection)) => {
                tracing::warn!(detail = rejection.detail, "backup not noted");
                return false;
            }
            Err(error) => tracing::debug!(%error, "backup not noted yet"),
        }
        tokio::time::sleep(TICK).await;
    }
    false
}

/// Opens the target away from the threads that serve.
///
/// # Errors
/// When it cannot be used, or does not answer in time.
async fn open(settings: &Settings) -> Result<Target, KeepError> {
    let (address, reach) = (settings.target.clone(), settings.reach.clone());
    let opening = tokio::task::spawn_blocking(move || Target::open(&address, &reach));
    match tokio::time::timeout(OPEN, opening).await {
        Ok(Ok(opened)) => Ok(opened?),
        Ok(Err(_)) => Err(WriteError::Interrupted.into()),
        Err(_) => Err(KeepError::Silent(settings.target.clone())),
    }
}

/// What a target does within a time: one that never answers would hold up every later backup.
async fn within<T, E>(
    (settings, action, limit): (&Settings, &'static str, Duration),
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, KeepError>
where
    KeepError: From<E>,
{
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(KeepError::Slow {
            target: settings.target.clone(),
            action,
            limit,
        }),
    }
}

/// All backups at a target, those of `origin` and others.
async fn listed(
    settings: &Settings,
    target: &Target,
    origin: &Origin,
) -> Result<Vec<Listed>, KeepError> {
    let listing = listing::list(target, Some(origin));
    within((settings, "tell its backups", LIST), listing).await
}

/// Removes what the policy does not keep, and what was never finished; `made` is the one that was made just now.
pub(crate) async fn tidy(node: &Node, made: &str) -> Result<(), KeepError> {
    let Some(settings) = &node.backup else {
        return Ok(());
    };
    let origin = Origin::of_state(&node.state(), &node.genesis);
    let target = open(settings).await?;
    let listed = listed(settings, &target, &origin).await?;
    let going = going(&listed, (made, &settings.retention), node.clock.now());
    let removing = async {
        let mut ended = Ok(());
        // One that cannot be removed keeps no other.
        for name in going {
            match target.remove(&name, MANIFEST).await {
                Ok(()) => tracing::info!(backup = name, "old backup removed"),
                Err(error) => ended = Err(error),
            }
        }
        ended
    };
    within((settings, "remove old backups", STUCK), removing).await
}

/// Names of the backups of a cluster that go. One that is damaged or foreign counts for nothing: it neither keeps its
/// place nor pushes a whole one out, and stays for people to look at. The one that was made just now stays, and the one
/// with the newest State, whatever the clocks say.
pub(crate) fn going(
    listed: &[Listed],
    (made, retention): (&str, &Retention),
    now: Timestamp,
) -> Vec<String> {
    let (mut whole, mut unfinished) = (Vec::new(), Vec::new());
    let mut newest: Option<(Epoch, u64, &str)> = None;
    for one in listed {
        match &one.manifest {
            Ok(manifest) => {
                whole.push((one.name.clone(), manifest.at));
                newest = newest.max(Some((manifest.epoch, manifest.index, &one.name)));
            }
            Err(ReadError::Unfinished(name)) => unfinished.push(name.clone()),
            // Somebody else's, or damaged.
            Err(_) => {}
        }
    }
    let is_old =
        |name: &String| began(name).is_some_and(|at| now.millis_since(at) > UNFINISHED_KEPT_MS);
    let stays = |name: &String| name == made || newest.is_some_and(|(_, _, newest)| name == newest);
    let gone = retention.expired(&whole).into_iter();
    let gone = gone.filter(|name| !stays(name));
    gone.chain(unfinished.into_iter().filter(is_old)).collect()
}

/// What the target was last found to hold, so that many who ask cost one look.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<Option<Look>>);

/// One look at the target.
#[derive(Debug, Clone)]
struct Look {
    at: Timestamp,
    /// The newest backup that the State knew of before it: with a newer one it counts no more.
    newest: Option<String>,
    listed: Arc<Vec<Listed>>,
}

/// Milliseconds for which a look at the target counts.
const SHELF_MS: u64 = 2_000;

impl Shelf {
    /// All backups at the target of this controller's configuration, that one too which this State knows to be made.
    ///
    /// # Errors
    /// When it cannot be asked: the reason, for people.
    pub async fn list(&self, node: &Node, state: &State) -> Result<Arc<Vec<Listed>>, String> {
        let at = node.clock.now();
        let newest = state.backups.good.as_ref().map(|good| good.name.clone());
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(known) = known
            && known.newest == newest
            && at.millis_since(known.at) < SHELF_MS
        {
            return Ok(known.listed);
        }
        let settings = node.backup.as_ref();
        let settings =
            settings.ok_or("this controller has no backup.target in its configuration")?;
        let origin = Origin::of_state(state, &node.genesis);
        let told = |error| causes::in_full(&error);
        let target = open(settings).await.map_err(told)?;
        let listed = listed(settings, &target, &origin).await.map_err(told)?;
        let listed = Arc::new(listed);
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shelf = Some(Look {
            at,
            newest,
            listed: Arc::clone(&listed),
        });
        Ok(listed)
    }

    /// Checks one backup at the target without its key.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn verify(&self, node: &Node, name: &str) -> Result<Manifest, VerifyError> {
        let settings = node.backup.as_ref().ok_or(VerifyError::NoTarget)?;
        let target = open(settings).await;
        let target = target.map_err(|error| VerifyError::Target(causes::in_full(&error)))?;
        let origin = Origin::of_state(&node.state(), &node.genesis);
        let verified = read::verify(&target, name).await;
        let own = verified.and_then(|manifest| origin.check(manifest));
        own.map_err(|error| match error {
            ReadError::Missing { .. } => VerifyError::Missing,
            ReadError::Target(error) => VerifyError::Target(causes::in_full(&error)),
            error => VerifyError::Wrong(causes::in_full(&error)),
        })
    }
}

/// Why a backup was not found to be whole.
#[derive(Debug)]
pub enum VerifyError {
    /// No target is configured.
    NoTarget,
    /// There is no such backup.
    Missing,
    /// The target cannot be asked.
    Target(String),
    /// It is not whole.
    Wrong(String),
}

#[cfg(test)]
mod tests {
    use super::{Duration, ReadError, Retention, STUCK, Settings, within};
    use crate::backup::target::Reach;

    #[tokio::test(start_paused = true)]
    async fn a_target_that_never_ends_its_work_holds_nobody_up() {
        let settings = Settings {
            target: "s3://b/p".into(),
            reach: Reach::default(),
            recipients: Vec::new(),
            schedule: None,
            retention: Retention {
                last: 1,
                daily: 0,
                weekly: 0,
            },
        };
        let work = std::future::pending::<Result<(), ReadError>>();
        let limited = within((&settings, "remove old backups", STUCK), work);
        let ended = tokio::time::timeout(STUCK + Duration::from_secs(1), limited).await;
        let said = ended.unwrap().unwrap_err().to_string();
        assert!(
            said.contains("s3://b/p did not remove old backups within 300s"),
            "{said}"
        );
    }
}
