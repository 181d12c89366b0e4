//! `dotmac cluster`: how the controllers are, the making of a new cluster from their node cards, and who belongs to it.

mod health;
mod membership;
mod status;
mod trust_root;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dotmac_domain::{
    access::Role,
    command::{CreateToken, Genesis, NodeCard},
};
use dotmac_protocol::ids::{ClusterId, RegionId};
use dotmac_runtime::{causes, clock::Clock, disk, entropy::Entropy};
use serde_json::Value;

use super::{
    client::Client,
    failure::Failure,
    find::Context,
    plan::{Consent, Outcome, Plan},
    view,
};
use crate::{
    access_token::AccessToken,
    bootstrap::{self, NewCluster},
};

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Leader, nodes, how far each has come, and which rules are in force
    Status(status::Status),
    /// Whether the whole is well; if not, what is the matter, since when and who can change it (exit codes 9 and 1)
    Health,
    /// End the time in which an upgrade can be taken back: put the newest rules into force
    Finalize {
        #[command(flatten)]
        consent: Consent,
    },
    /// Make the genesis of a new cluster from the cards of its controllers
    Create(Box<Create>),
    /// Let a further controller learn what is replicated
    AddNode(membership::AddNode),
    /// Let a controller that learned vote and sign
    Promote(membership::Promote),
    /// Take a controller out for ever
    RemoveNode(membership::RemoveNode),
    /// Put a new controller in the place of another one
    ReplaceNode(membership::ReplaceNode),
    /// Whose signatures count: every version, and the next one
    #[command(subcommand)]
    TrustRoot(trust_root::Verb),
}

#[derive(Args)]
pub(crate) struct Create {
    /// Card of a controller, as `dotmac-controller init` writes it (once for each controller)
    #[arg(long = "card", required = true, value_name = "FILE")]
    pub(crate) cards: Vec<PathBuf>,
    /// Where the key that signs trust roots goes; keep it offline
    #[arg(long, value_name = "FILE")]
    pub(crate) root_key_file: PathBuf,
    /// Where the key that approves the most dangerous verbs goes; keep it away from controllers
    #[arg(long, value_name = "FILE")]
    pub(crate) approver_key_file: PathBuf,
    /// Where the first operator's token goes
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: PathBuf,
    /// Where the genesis goes, which every controller gets
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Name of the cluster
    #[arg(long, default_value = "dotmac")]
    pub(crate) cluster: ClusterId,
    /// Where workloads may run (repeat it, or separate them by commas)
    #[arg(long = "region", required = true, value_delimiter = ',')]
    pub(crate) regions: Vec<RegionId>,
    /// The region of requests that name none [default: the first]
    #[arg(long)]
    pub(crate) default_region: Option<RegionId>,
    /// Channel whose release a deployment gets that names none
    #[arg(long, default_value = "stable")]
    pub(crate) default_channel: String,
    /// Milliseconds between a deletion and the removal
    #[arg(long, default_value_t = 24 * 3_600_000)]
    pub(crate) grace_ms: u64,
    /// Milliseconds in which an agent may accept an order
    #[arg(long, default_value_t = 3_600_000)]
    pub(crate) window_ms: u64,
    /// Removals an hour at most
    #[arg(long, default_value_t = 100)]
    pub(crate) removals_per_hour: u32,
    /// Removals an hour at most for one tenant
    #[arg(long, default_value_t = 10)]
    pub(crate) removals_per_tenant_hour: u32,
}

impl Cluster {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Status(asked) => asked.run(context).await,
            Self::Health => health::run(context).await,
            Self::Finalize { consent } => finalize(context, consent).await,
            Self::Create(create) => create.run(context),
            Self::AddNode(add) => add.run(context).await,
            Self::Promote(promote) => promote.run(context).await,
            Self::RemoveNode(remove) => remove.run(context).await,
            Self::ReplaceNode(replace) => replace.run(context).await,
            Self::TrustRoot(verb) => verb.run(context).await,
        }
    }
}

impl Create {
    /// Makes the genesis; files that exist are kept, so that a second try goes on where the first one ended.
    pub(crate) fn run(&self, context: &Context) -> Result<(), Failure> {
        if self.out.exists() {
            return Err(Failure::Usage(format!(
                "{} exists: a cluster is made only once",
                self.out.display()
            )));
        }
        let cards = self.cards.iter().map(|card| read_card("--card", card));
        let cards: Vec<_> = cards.collect::<Result<_, _>>()?;
        let genesis = self.make(cards, &context.clock, &context.entropy)?;
        context.output.line(&format!(
            "cluster {} of {} controllers",
            genesis.cluster,
            genesis.nodes.len()
        ))?;
        context
            .output
            .line(&format!("trust root   {}", genesis.trust_root.digest()))?;
        context.output.line(&format!(
            "genesis      {}  (to every controller)",
            self.out.display()
        ))?;
        context
            .output
            .line(&format!("admin token  {}", self.admin_token_file.display()))?;
        context.output.line(&format!(
            "root key     {}  (take it offline)",
            self.root_key_file.display()
        ))?;
        let approver = self.approver_key_file.display();
        context.output.line(&format!(
            "approver key {approver}  (keep it away from controllers)"
        ))
    }

    /// Makes keys, token and genesis from the cards, and writes them; the genesis last.
    pub(crate) fn make(
        &self,
        cards: Vec<NodeCard>,
        clock: &Clock,
        entropy: &Entropy,
    ) -> Result<Genesis, Failure> {
        let token = admin_token(&self.admin_token_file, entropy)?;
        let region = self
            .default_region
            .clone()
            .or_else(|| self.regions.first().cloned());
        let new = NewCluster {
            cluster: self.cluster.clone(),
            cards,
            admin: CreateToken {
                id: token.id().clone(),
                secret_digest: token.digest(),
                name: "admin".into(),
                role: Role::PlatformAdmin,
                tenant: None,
                expires_at: None,
            },
            regions: self.regions.clone(),
            default_region: region.ok_or_else(|| Failure::Usage("no region is named".into()))?,
            default_channel: self.default_channel.clone(),
            grace_ms: self.grace_ms,
            window_ms: self.window_ms,
            removals_per_hour: self.removals_per_hour,
            removals_per_tenant_hour: self.removals_per_tenant_hour,
        };
        let made = bootstrap::create(
            new,
            &self.root_key_file,
            &self.approver_key_file,
            clock,
            entropy,
        );
        let genesis = made.map_err(|error| explain(&error))?;
        bootstrap::write_genesis(&self.out, &genesis, None).map_err(|error| explain(&error))?;
        Ok(genesis)
    }
}

/// An error with its causes in one line.
pub(crate) fn explain(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(causes::in_full(error))
}

/// The card in the file that an option names.
pub(crate) fn read_card(option: &str, path: &Path) -> Result<NodeCard, Failure> {
    let wrong = |error| {
        let why = causes::in_full(&error);
        Failure::Usage(format!(
            "{option}: {why}: give the file with the card that `dotmac-controller init` printed on the controller's machine"
        ))
    };
    bootstrap::read_card(path).map_err(wrong)
}

/// A controller's number, as an argument.
pub(crate) fn node_number(text: &str) -> Result<u64, String> {
    let wrong = "a controller's number is wanted, such as 2: `dotmac cluster status` shows them";
    text.parse().map_err(|_| wrong.to_owned())
}

/// The token in a file; made there first if there is none.
fn admin_token(path: &Path, entropy: &Entropy) -> Result<AccessToken, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let wrong = |error| Failure::Failed(format!("{}: {error}", path.display()));
            return AccessToken::parse(&text).map_err(wrong);
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(Failure::io("read", path, &cause)),
    }
    let token = AccessToken::generate(entropy);
    disk::write_atomic(path, format!("{}\n", token.reveal()).as_bytes(), 0o600)
        .map_err(|cause| Failure::io("write", path, &cause))?;
    Ok(token)
}

/// Where an upgrade is finalized.
const FINALIZE: &str = "/api/v1/cluster/finalize";

async fn finalize(context: &Context, consent: Consent) -> Result<(), Failure> {
    let client = context.client()?;
    let title = "finalize the upgrade, after which no older program starts on this data";
    let plan = Plan {
        body: None,
        typed: Some("finalize".to_owned()),
        ..Plan::create(title.to_owned(), FINALIZE, Value::Null)
    };
    let (rules, words) = match plan.run(context, &client, consent).await? {
        Outcome::Done(rules) => (rules, "in force from now on"),
        Outcome::Same(rules) => (rules, "in force already, and no newer ones are known"),
        Outcome::Shown => return Ok(()),
    };
    if context.output.is_data() {
        return context.output.data(&rules);
    }
    let version = view::text(&rules, "rules");
    context.output.line(&format!("rules {version}: {words}"))
}

/// Where controllers are in the API.
const CONTROLLERS: &str = "/api/v1/cluster/controllers";
/// Controllers that are read at most; a cluster has no more in its life.
const CONTROLLERS_MAX: usize = 1_000;

/// The controllers that there are and were.
pub(crate) async fn controllers(client: &Client) -> Result<Vec<Value>, Failure> {
    let path = format!("{CONTROLLERS}?limit=1000");
    client.list(&path, CONTROLLERS_MAX).await
}

/// The cluster as one controller sees it.
pub(crate) const PATH: &str = "/api/v1/cluster/status";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dotmac_runtime::entropy::Entropy;

    use clap::Parser;

    use super::{Cluster, Failure, admin_token, read_card};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        _verb: Cluster,
    }

    #[test]
    fn a_card_that_cannot_be_used_is_told_by_its_option_with_where_cards_come_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("card.json");
        let said = |path| match read_card("--card", path) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        let missing = said(&path);
        std::fs::write(&path, "my diary").unwrap();
        for (text, why) in [
            (missing, "cannot be used"),
            (said(&path), "is not a node card"),
        ] {
            let start = format!("--card: {} {why}: ", path.display());
            assert!(text.starts_with(&start), "{text}");
            assert!(text.contains("`dotmac-controller init` printed"), "{text}");
        }
    }

    #[test]
    fn what_is_no_controllers_number_is_refused_with_where_the_numbers_are() {
        let key = ["--root-key-file", "root.key"];
        let replace = ["--card", "card.json", "--join-file", "join.json"];
        let sign = ["sign", "--out", "next.hex", "--remove", "abc"];
        let lines = [
            [&["promote", "abc"][..], &key].concat(),
            [&["remove-node", "abc"][..], &key].concat(),
            [&["replace-node", "abc"][..], &replace, &key].concat(),
            [&["trust-root"][..], &sign, &key].concat(),
        ];
        for words in lines {
            let parsed = Line::try_parse_from([&["cluster"][..], &words].concat());
            let said = parsed.map(|_| ()).unwrap_err().to_string();
            assert!(said.contains("a controller's number is wanted"), "{said}");
            assert!(said.contains("`dotmac cluster status`"), "{said}");
        }
    }

    #[test]
    fn the_admin_token_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let token = admin_token(&path, &Entropy::seeded(1)).unwrap();
        assert_eq!(admin_token(&path, &Entropy::seeded(2)).unwrap(), token);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&path, "my diary").unwrap();
        assert!(admin_token(&path, &Entropy::seeded(1)).is_err());
    }
}
