//! `dotmac cluster trust-root`: the chain of trust roots; the next one is signed where the root key is, which may be a
//! machine without any network, and handed in from anywhere.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dotmac_protocol::{
    codec,
    ids::{Epoch, NodeId},
    trust::{SignedTrustRoot, TrustRoot},
};
use dotmac_runtime::disk;
use serde_json::{Value, json};

use super::{explain, node_number, read_card};
use crate::{
    cli::{
        client::Client,
        failure::Failure,
        find::Context,
        list::Paging,
        plan::{Consent, Outcome, Plan},
        view,
    },
    trust_root,
};

/// Where trust roots are in the API.
pub(crate) const PATH: &str = "/api/v1/cluster/trust-roots";
/// Trust roots that are read at most.
const ROOTS_MAX: usize = 10_000;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Every version, and whose signatures count
    Show {
        #[command(flatten)]
        paging: Paging,
        /// Write the one in force to a file, for a machine without network
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make and sign the next version with the root key
    Sign(Sign),
    /// Take the next version in force
    Follow {
        /// The signed trust root
        file: PathBuf,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args)]
pub(crate) struct Sign {
    /// The key that signs trust roots
    #[arg(long, value_name = "FILE")]
    root_key_file: PathBuf,
    /// Where the signed trust root goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The version in force, as `show --out` wrote it; without it the cluster is asked
    #[arg(long, value_name = "FILE")]
    current: Option<PathBuf>,
    #[command(flatten)]
    difference: Difference,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Difference {
    /// Card of a controller that is to sign, too
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// Number of a controller that is to sign no more
    #[arg(long, value_name = "NODE", value_parser = node_number)]
    remove: Option<u64>,
    /// A higher epoch
    #[arg(long)]
    epoch: Option<u64>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Show { out: None, paging } => show(context, paging).await,
            Self::Show { out: Some(out), .. } => {
                let (signed, root) = in_force(&context.client()?).await?;
                write(&out, &signed)?;
                let (version, file) = (root.version, out.display());
                context
                    .output
                    .line(&format!("trust root {version}  {file}"))
            }
            Self::Sign(sign) => sign.run(context).await,
            Self::Follow { file, consent } => {
                let signed = read(&file)?;
                let client = context.client()?;
                follow(context, &client, &signed, consent).await
            }
        }
    }
}

impl Sign {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let current = match &self.current {
            Some(file) => open(&read(file)?)?,
            None => in_force(&context.client()?).await?.1,
        };
        let next = self.difference.after(&current)?;
        let signed = trust_root::sign(&current, &next, &self.root_key_file);
        let signed = signed.map_err(|error| explain(&error))?;
        write(&self.out, &signed)?;
        let (version, epoch, file) = (next.version, next.epoch, self.out.display());
        let (k, n) = (next.controller.threshold, next.controllers.len());
        context.output.line(&format!(
            "trust root {version}, epoch {epoch}, {k} of {n} controllers: {file}"
        ))?;
        context
            .output
            .note(&format!("next: dotmac cluster trust-root follow {file}"));
        Ok(())
    }
}

impl Difference {
    fn after(&self, current: &TrustRoot) -> Result<TrustRoot, Failure> {
        match self {
            Self {
                add: Some(card), ..
            } => {
                let card = read_card("--add", card)?;
                Ok(trust_root::with(current, &card))
            }
            Self {
                remove: Some(node), ..
            } => {
                let node = NodeId(*node);
                if current.controllers.iter().all(|one| one.node != node) {
                    let version = current.version;
                    let text = format!("--remove {node}: it does not sign in trust root {version}");
                    return Err(Failure::Usage(text));
                }
                Ok(trust_root::without(current, node))
            }
            Self { epoch, .. } => {
                let epoch = epoch.map_or(current.epoch, Epoch);
                if epoch <= current.epoch {
                    let text = format!("--epoch {epoch}: it is {} already", current.epoch);
                    return Err(Failure::Usage(text));
                }
                let controllers = current.controllers.clone();
                Ok(trust_root::next(current, controllers, epoch))
            }
        }
    }
}

async fn show(context: &Context, paging: Paging) -> Result<(), Failure> {
    let header = [
        "version",
        "epoch",
        "since",
        "signatures",
        "controllers",
        "digest",
    ];
    let row = |root: &Value| {
        let controllers = view::items(root, "controllers");
        let names: Vec<String> = controllers
            .iter()
            .map(|one| view::text(one, "id"))
            .collect();
        let needed = format!("{} of {}", view::text(root, "threshold"), names.len());
        let is_in_force = root["in_force"] == true;
        let version = view::text(root, "id") + if is_in_force { " *" } else { "" };
        let (epoch, digest) = (view::text(root, "epoch"), view::text(root, "digest"));
        let since = view::time(root, "since");
        vec![version, epoch, since, needed, names.join(" "), digest]
    };
    let client = context.client()?;
    paging
        .show(
            context,
            &client,
            (PATH, &[]),
            (&header, &row),
            "no trust roots",
        )
        .await
}

/// Hands a signed trust root in.
pub(super) async fn follow(
    context: &Context,
    client: &Client,
    signed: &SignedTrustRoot,
    consent: Consent,
) -> Result<(), Failure> {
    let root = open(signed)?;
    let body = json!({"document": encoded(signed)});
    let title = format!("take trust root {} in force", root.version);
    let plan = Plan::create(title, PATH, body);
    match plan.run(context, client, consent).await? {
        Outcome::Done(body) | Outcome::Same(body) if context.output.is_data() => {
            context.output.data(&body)
        }
        Outcome::Done(_) | Outcome::Same(_) => context.output.line(&format!(
            "trust root {} is in force: {} of {} controllers",
            root.version,
            root.controller.threshold,
            root.controllers.len()
        )),
        Outcome::Shown => Ok(()),
    }
}

/// The trust root in force: as it was signed, and what it says.
pub(super) async fn in_force(client: &Client) -> Result<(SignedTrustRoot, TrustRoot), Failure> {
    let roots = client
        .list(&format!("{PATH}?limit=1000"), ROOTS_MAX)
        .await?;
    let newest = roots.iter().find(|root| root["in_force"] == true);
    let newest = newest.ok_or_else(|| Failure::foreign(PATH, "no trust root is in force"))?;
    let signed = decode(&view::text(newest, "document"));
    let signed = signed.ok_or_else(|| Failure::foreign(PATH, "it is no trust root"))?;
    let root = open(&signed)?;
    Ok((signed, root))
}

fn open(signed: &SignedTrustRoot) -> Result<TrustRoot, Failure> {
    signed.self_signed().map_err(|error| explain(&error))
}

fn read(file: &Path) -> Result<SignedTrustRoot, Failure> {
    let text = std::fs::read_to_string(file).map_err(|cause| Failure::io("read", file, &cause))?;
    let wrong = || Failure::Failed(format!("{} is no signed trust root", file.display()));
    decode(&text).ok_or_else(wrong)
}

fn decode(text: &str) -> Option<SignedTrustRoot> {
    let bytes = hex::decode(text.trim()).ok()?;
    codec::decode(&bytes).ok()
}

fn write(file: &Path, signed: &SignedTrustRoot) -> Result<(), Failure> {
    let text = format!("{}\n", encoded(signed));
    disk::write_atomic(file, text.as_bytes(), 0o644)
        .map_err(|cause| Failure::io("write", file, &cause))
}

fn encoded(signed: &SignedTrustRoot) -> String {
    let bytes =
        codec::encode(signed).expect("a document that was decoded or signed can be encoded");
    hex::encode(bytes)
}
