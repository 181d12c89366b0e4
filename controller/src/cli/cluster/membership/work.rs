//! The steps themselves: each looks first whether it is done already, and says what it waits for.

use std::{path::Path, time::Duration};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::NodeId,
    keys::PublicKey,
    trust::{ControllerIdentity, SignedTrustRoot, TrustRoot},
};
use dotmac_runtime::disk;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Patience,
    known::{Known, is_written, require_same},
};
use crate::{
    bootstrap::CardFile,
    cli::{
        client::{Client, elapsed_ms},
        cluster::{CONTROLLERS, PATH as STATUS, controllers, explain, trust_root as roots},
        failure::Failure,
        find::Context,
        output::duration,
        plan::Plan,
        view,
    },
    trust_root,
};

/// Entries that a controller may lack when it is promoted.
const BEHIND_MAX: u64 = 256;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What the steps work with.
pub(super) struct Work<'a> {
    context: &'a Context,
    client: Client,
    patience: Duration,
}

impl<'a> Work<'a> {
    pub(super) fn new(context: &'a Context, patience: Patience) -> Result<Self, Failure> {
        Ok(Self {
            context,
            client: context.client()?,
            patience: Duration::from_secs(patience.timeout),
        })
    }

    fn say(&self, text: &str) {
        self.context.output.note(text);
    }

    /// The controllers that there are and were.
    pub(super) async fn known(&self) -> Result<Known, Failure> {
        Ok(Known(controllers(&self.client).await?))
    }

    /// Asks whether a card would be admitted, unless it is.
    ///
    /// # Errors
    /// What the API refuses: an address of another controller, an incarnation that was used, and the like.
    pub(super) async fn rehearse(&self, known: &Known, card: &NodeCard) -> Result<(), Failure> {
        rehearse(&self.client, known, card).await
    }

    /// Admits a controller unless it is, and writes what it starts from unless that is there.
    pub(super) async fn admit(&self, card: &NodeCard, join_file: &Path) -> Result<(), Failure> {
        let node = card.node;
        match self.known().await?.find(node) {
            Some(known) => {
                require_same(known, card)?;
                self.say(&format!("controller {node} is admitted already"));
            }
            None => {
                let admission = admission(card)?;
                admission.commit(&self.client, &self.client.key()).await?;
                self.say(&format!("controller {node} is admitted"));
            }
        }
        if !is_written(join_file, card)? {
            let file: Value = self.client.get(&format!("{CONTROLLERS}/join")).await?;
            let text = serde_json::to_string_pretty(&file).map_err(|error| explain(&error))?;
            disk::write_atomic(join_file, text.as_bytes(), 0o600)
                .map_err(|cause| Failure::io("write", join_file, &cause))?;
        }
        self.say(&format!("it starts from {}", join_file.display()));
        Ok(())
    }

    /// Waits until a controller has nearly everything.
    pub(super) async fn caught_up(&self, node: NodeId) -> Result<(), Failure> {
        self.until(&format!("controller {node} has caught up"), async || {
            let status: Value = self.client.get(STATUS).await?;
            let known = view::items(&status, "nodes").iter();
            let mut known = known.filter(|one| one["id"] == node.0);
            Ok(match known.next() {
                None => Err(format!("controller {node} is not admitted")),
                Some(one) if one["state"] == "unreachable" => {
                    Err(format!("controller {node} does not answer: is it started?"))
                }
                Some(one) => match one["behind"].as_u64() {
                    Some(behind) if behind <= BEHIND_MAX => Ok(()),
                    behind => Err(format!("it lacks {} entries", behind.unwrap_or_default())),
                },
            })
        })
        .await
    }

    /// Lets a controller vote, and then sign.
    pub(super) async fn promote(
        &self,
        node: NodeId,
        card: Option<&NodeCard>,
        root_key: &Path,
    ) -> Result<(), Failure> {
        let known = self.require(node).await?;
        let own =
            identity_of(&known).ok_or_else(|| Failure::foreign(CONTROLLERS, "it has no keys"))?;
        if let Some(card) = card {
            require_same(&known, card)?;
        }
        if known["standing"] != "voter" {
            let path = format!("{CONTROLLERS}/{node}/promote");
            self.client.post(&path, Some(&json!({}))).await?;
            self.until(&format!("controller {node} votes"), async || {
                let known = self.require(node).await?;
                Ok(reached(&known, "voter"))
            })
            .await?;
        }
        self.sign(root_key, |root| {
            let signs = root.controllers.contains(&own);
            (!signs).then(|| {
                let mut controllers = root.controllers.clone();
                controllers.retain(|one| one.node != node);
                controllers.push(own.clone());
                controllers.sort_by_key(|one| one.node);
                trust_root::next(root, controllers, root.epoch)
            })
        })
        .await
    }

    /// Takes a controller's key out of the trust root, and then its vote.
    pub(super) async fn remove(&self, node: NodeId, root_key: &Path) -> Result<(), Failure> {
        let known = self.require(node).await?;
        if known["standing"] == "retired" {
            self.say(&format!("controller {node} has left already"));
            return Ok(());
        }
        self.sign(root_key, |root| {
            let signs = root.controllers.iter().any(|one| one.node == node);
            signs.then(|| trust_root::without(root, node))
        })
        .await?;
        let path = format!("{CONTROLLERS}/{node}/remove");
        self.client.post(&path, Some(&json!({}))).await?;
        self.until(&format!("controller {node} has left"), async || {
            let known = self.require(node).await?;
            Ok(reached(&known, "retired"))
        })
        .await
    }

    /// Signs the next trust root, if one is needed, and takes it in force.
    async fn sign(
        &self,
        root_key: &Path,
        next: impl FnOnce(&TrustRoot) -> Option<TrustRoot>,
    ) -> Result<(), Failure> {
        let (_, current) = roots::in_force(&self.client).await?;
        let Some(next) = next(&current) else {
            return Ok(());
        };
        let signed = trust_root::sign(&current, &next, root_key);
        let signed: SignedTrustRoot = signed.map_err(|error| explain(&error))?;
        let document = codec::encode(&signed).map_err(|error| explain(&error))?;
        let body = json!({"document": hex::encode(document)});
        self.client.post(roots::PATH, Some(&body)).await?;
        let (version, k, n) = (
            next.version,
            next.controller.threshold,
            next.controllers.len(),
        );
        self.say(&format!(
            "trust root {version} is in force: {k} of {n} controllers"
        ));
        Ok(())
    }

    async fn require(&self, node: NodeId) -> Result<Value, Failure> {
        self.known().await?.require(node).cloned()
    }

    /// Looks until it is so, and says what it waits for whenever that changes.
    async fn until(
        &self,
        what: &str,
        look: impl AsyncFn() -> Result<Result<(), String>, Failure>,
    ) -> Result<(), Failure> {
        let (started, mut said) = (Instant::now(), String::new());
        loop {
            let reason = match look().await? {
                Ok(()) => {
                    let took = duration(elapsed_ms(started));
                    self.say(&format!("{what} (after {took})"));
                    return Ok(());
                }
                Err(reason) => reason,
            };
            if started.elapsed() >= self.patience {
                let text =
                    format!("still not: {what}: {reason}; the same command goes on from here");
                return Err(Failure::TimedOut(text));
            }
            if reason != said {
                self.say(&format!("waiting until {what}: {reason}"));
                said = reason;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(super) async fn show(&self, node: NodeId) -> Result<(), Failure> {
        let known = self.require(node).await?;
        if self.context.output.is_data() {
            return self.context.output.data(&known);
        }
        let standing = match known["signs"] == true {
            true => "votes and signs".to_owned(),
            false => view::text(&known, "standing"),
        };
        self.context
            .output
            .line(&format!("controller {node}  {standing}"))
    }
}

async fn rehearse(client: &Client, known: &Known, card: &NodeCard) -> Result<(), Failure> {
    if known.find(card.node).is_some() {
        return Ok(());
    }
    let admission = admission(card)?;
    admission.foresee(client, &client.key()).await.map(|_| ())
}

/// The change that admits the controller of a card.
fn admission(card: &NodeCard) -> Result<Plan, Failure> {
    let body = serde_json::to_value(CardFile::from(card.clone()));
    let body = body.map_err(|error| explain(&error))?;
    let title = format!("admit controller {}", card.node);
    Ok(Plan::create(title, CONTROLLERS, body))
}

/// Whether a controller stands where it should, or what it waits for.
fn reached(known: &Value, standing: &str) -> Result<(), String> {
    if known["standing"] == standing {
        return Ok(());
    }
    let waits_for = view::text(known, "waits_for");
    Err(format!(
        "it is {}: {waits_for}",
        view::text(known, "standing")
    ))
}

/// The keys of a controller as the API shows it.
fn identity_of(known: &Value) -> Option<ControllerIdentity> {
    let mut key = [0; 32];
    hex::decode_to_slice(known["signing_key"].as_str()?, &mut key).ok()?;
    let issuer: Digest = known["issuer"].as_str()?.parse().ok()?;
    Some(ControllerIdentity {
        node: NodeId(known["id"].as_u64()?),
        signing_key: PublicKey(key),
        issuer,
    })
}

#[cfg(test)]
mod tests {
    use axum::{
        Json, Router, extract::Request, http::StatusCode, response::IntoResponse as _,
        routing::post,
    };
    use dotmac_domain::command::NodeCard;
    use dotmac_protocol::{ids::NodeId, keys::PublicKey};
    use serde_json::json;

    use super::{CONTROLLERS, Known, identity_of, reached, rehearse};
    use crate::cli::{client_of, failure::Failure};

    fn card(node: u64, api_address: &str) -> NodeCard {
        NodeCard {
            node: NodeId(node),
            incarnation: format!("{node:032x}").parse().unwrap(),
            link_address: "10.0.0.4:8010".into(),
            api_address: api_address.into(),
            signing_key: PublicKey([1; 32]),
            issuer: vec![1],
        }
    }

    #[tokio::test]
    async fn a_card_that_would_not_be_admitted_is_refused_by_a_rehearsal() {
        let answer = post(async |request: Request| {
            assert_eq!(request.uri().query(), Some("dry_run=true"));
            let body = axum::body::to_bytes(request.into_body(), 65_536)
                .await
                .unwrap();
            match String::from_utf8(body.into()).unwrap().contains("foo") {
                true => {
                    let error =
                        json!({"field": "api_address", "value": "foo", "allowed": "HOST:PORT"});
                    let problem = json!({"status": 422, "code": "invalid", "errors": [error]});
                    (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response()
                }
                false => {
                    Json(json!({"dry_run": true, "changes": [], "result": {}})).into_response()
                }
            }
        });
        let client = client_of(Router::new().route(CONTROLLERS, answer)).await;
        let none = Known(Vec::new());
        rehearse(&client, &none, &card(4, "10.0.0.4:8000"))
            .await
            .unwrap();
        let failure = rehearse(&client, &none, &card(4, "foo")).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{failure}");
        assert!(failure.to_string().contains("api_address"), "{failure}");
        // One that is admitted already is not asked for again.
        let admitted = Known(vec![json!({"id": 4})]);
        rehearse(&client, &admitted, &card(4, "foo")).await.unwrap();
    }

    #[test]
    fn what_a_step_waits_for_is_said_in_the_words_of_the_cluster() {
        let known = json!({"standing": "leaving", "waits_for": "it is about to leave"});
        assert_eq!(reached(&known, "leaving"), Ok(()));
        let reason = "it is leaving: it is about to leave".to_owned();
        assert_eq!(reached(&known, "retired"), Err(reason));
    }

    #[test]
    fn keys_are_read_whole_or_not_at_all() {
        let issuer = format!("sha256:{}", "2".repeat(64));
        let mut known = json!({"id": 4, "signing_key": "01".repeat(32), "issuer": issuer});
        assert_eq!(identity_of(&known).unwrap().node.0, 4);
        known["signing_key"] = "01".into();
        assert_eq!(identity_of(&known), None);
    }
}
