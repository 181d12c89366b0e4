//! `dotmac explain`: what something is, what it waits for and what to do next, in sentences. Codes of errors are
//! explained without a network; everything else is looked up by its id, whatever kind of thing it is.

mod history;
mod instances;
mod page;
mod sentences;

use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{
    client::{Client, encode, is_entity},
    deployments,
    failure::{Failure, Problem},
    find::Context,
    output::clean_line,
    releases, suggest,
};
use crate::error_pages;
use sentences::Sentences;

/// Where the other things live in the API.
const TENANTS: &str = "/api/v1/tenants";
const REGIONS: &str = "/api/v1/regions";
const TOKENS: &str = "/api/v1/tokens";
const AGENTS: &str = "/api/v1/agents";
/// Milliseconds to try in all and one controller, for a word that is close to the code of an error.
const PATIENCE_MS: (u64, u64) = (1_500, 1_000);

#[derive(Args)]
pub(crate) struct Explain {
    /// The code of an error, or the id of a deployment, tenant, agent, region, token or request, or NAME:VERSION of a release
    thing: String,
}

/// A kind of thing: how it is looked up, and how it is explained.
struct Kind {
    name: &'static str,
    path: fn(&str) -> Option<String>,
    explain: fn(&Value, u64) -> Sentences,
}

/// In the order in which an id is tried.
const KINDS: [Kind; 6] = [
    Kind {
        name: "deployment",
        path: |id| Some(deployments::path_of(id)),
        explain: sentences::deployment,
    },
    Kind {
        name: "tenant",
        path: |id| Some(format!("{TENANTS}/{}", encode(id))),
        explain: sentences::tenant,
    },
    Kind {
        name: "agent",
        path: |id| Some(format!("{AGENTS}/{}", encode(id))),
        explain: sentences::agent,
    },
    Kind {
        name: "region",
        path: |id| Some(format!("{REGIONS}/{}", encode(id))),
        explain: sentences::region,
    },
    Kind {
        name: "token",
        path: |id| Some(format!("{TOKENS}/{}", encode(id))),
        explain: sentences::token,
    },
    Kind {
        name: "release",
        path: |id| {
            let (name, version) = id.split_once([':', '/', '@'])?;
            Some(format!(
                "{}/{}/{}",
                releases::PATH,
                encode(name),
                encode(version)
            ))
        },
        explain: sentences::release,
    },
];

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let thing = self.thing.trim();
        if let Some(error) = Error::of(thing.trim_start_matches("/docs/errors/")) {
            return error.tell(context, thing);
        }
        // Who misspelt a code needs no cluster to learn that, and does not wait long for one.
        let misspelt = self.unknown_code();
        let client = match &misspelt {
            Some(_) => context.client_within(PATIENCE_MS.0, PATIENCE_MS.1),
            None => context.client(),
        };
        let found = match &client {
            Ok(client) => look_up(client, thing).await,
            Err(_) => Ok(None),
        };
        let (client, found) = match (client, found, misspelt) {
            (Err(_), _, Some(failure)) | (_, Err(Failure::Unreachable { .. }), Some(failure)) => {
                return Err(failure);
            }
            (client, found, _) => (client?, found?),
        };
        if let Some((kind, value)) = found {
            let now = context.clock.now().0;
            let mut told = (kind.explain)(&value, now);
            told.events = history::of(&client, kind.name, &value).await;
            return tell(context, kind.name, thing, &told);
        }
        let events = history::of_request(&client, thing).await?;
        if !events.is_empty() {
            return tell(
                context,
                "request",
                thing,
                &sentences::request(thing, events),
            );
        }
        Err(unknown(&client, thing).await)
    }

    /// A failure if this is close to a code and nothing else can be found out.
    fn unknown_code(&self) -> Option<Failure> {
        let meant = suggest::closest(&self.thing, codes());
        (!meant.is_empty()).then(|| nothing(&self.thing, meant))
    }
}

/// Every code: of the platform's API, and of that which an agent serves to instances.
fn codes() -> impl Iterator<Item = &'static str> {
    error_pages::codes().chain(instances::codes())
}

/// What is known of a code without asking anybody.
#[derive(Debug, PartialEq)]
struct Error {
    /// The page about an error of the platform's API.
    page: Option<&'static str>,
    /// The same code as an agent's answer to an instance.
    instance: Option<String>,
}

impl Error {
    fn of(code: &str) -> Option<Self> {
        let (page, instance) = (error_pages::page(code), instances::says(code));
        (page.is_some() || instance.is_some()).then_some(Self { page, instance })
    }

    fn tell(&self, context: &Context, thing: &str) -> Result<(), Failure> {
        if context.output.is_data() {
            return context.output.data(&json!({
                "kind": "error", "id": thing, "page": self.page, "instance": self.instance,
            }));
        }
        let page = self.page.map(page::plain);
        let texts: Vec<String> = page.into_iter().chain(self.instance.clone()).collect();
        context.output.line(&texts.join("\n\n"))
    }
}

/// Asks for a thing of every kind at the same time; the first kind that knows it counts. A kind that this token may
/// not see is as good as none.
async fn look_up(client: &Client, thing: &str) -> Result<Option<(&'static Kind, Value)>, Failure> {
    let kinds = KINDS
        .iter()
        .filter_map(|kind| Some((kind, (kind.path)(thing)?)));
    let asked = kinds.map(|(kind, path)| async move { (kind, client.get::<Value>(&path).await) });
    for (kind, answer) in join_all(asked).await {
        match answer {
            Ok(value) if is_entity(&value) => return Ok(Some((kind, value))),
            // Words such as `tokens` lead to a list, which is nothing to explain.
            Ok(value) if value["items"].is_array() => {}
            Ok(_) => return Err(Failure::foreign(thing, "it has no id")),
            Err(Failure::NotFound(_) | Failure::Refused(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

fn tell(context: &Context, kind: &str, id: &str, told: &Sentences) -> Result<(), Failure> {
    let output = context.output;
    if output.is_data() {
        return output.data(&json!({
            "kind": kind, "id": id, "says": told.says, "next": told.next, "events": told.events,
        }));
    }
    for sentence in &told.says {
        output.line(sentence)?;
    }
    if !told.events.is_empty() {
        output.line("\nwhat happened last:")?;
        let header = ["at", "action", "actor", "detail"];
        output.table(&header, told.events.iter().map(history::row).collect(), "")?;
    }
    for next in &told.next {
        output.line(&format!("\nnext: {}", clean_line(next)))?;
    }
    Ok(())
}

/// Nothing has this id; what may have been meant is looked for everywhere.
async fn unknown(client: &Client, thing: &str) -> Failure {
    let lists = [
        deployments::PATH,
        TENANTS,
        AGENTS,
        REGIONS,
        TOKENS,
        releases::PATH,
    ];
    let found = lists.map(|list| suggest::similar(client, list, thing));
    let mut meant = suggest::closest(thing, codes());
    meant.extend(join_all(found).await.into_iter().flatten());
    meant.dedup();
    meant.truncate(5);
    nothing(thing, meant)
}

fn nothing(thing: &str, meant: Vec<String>) -> Failure {
    let thing: String = thing.chars().take(80).collect();
    Failure::NotFound(Box::new(Problem {
        status: 404,
        code: "not-found".into(),
        detail: format!(
            "{thing} is neither the code of an error nor the id of anything that you may see"
        ),
        meant,
        ..Problem::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::{Error, Explain, KINDS};

    #[test]
    fn a_misspelt_code_gets_a_suggestion_without_a_cluster() {
        let explain = |thing: &str| {
            Explain {
                thing: thing.into(),
            }
            .unknown_code()
        };
        let failure = explain("domain-inuse").unwrap();
        assert_eq!(failure.code(), 3);
        assert!(
            failure.to_string().contains("did you mean domain-in-use?"),
            "{failure}"
        );
        assert!(explain("something-else-entirely").is_none());
    }

    #[test]
    fn codes_of_the_instance_api_are_known_beside_those_of_the_platform() {
        let known = |code: &str| {
            let error = Error::of(code).unwrap();
            (error.page.is_some(), error.instance.is_some())
        };
        assert_eq!(known("reports-full"), (false, true));
        assert_eq!(known("domain-in-use"), (true, false));
        assert_eq!(known("unavailable"), (true, true));
        assert_eq!(Error::of("reports-ful"), None);
        let thing = "too-many-report".into();
        let failure = Explain { thing }.unknown_code().unwrap().to_string();
        assert!(
            failure.contains("did you mean too-many-reports"),
            "{failure}"
        );
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_an_address() {
        let paths: Vec<String> = KINDS
            .iter()
            .filter_map(|kind| (kind.path)("a/../x?y@1"))
            .collect();
        assert_eq!(paths.len(), KINDS.len());
        assert!(
            paths
                .iter()
                .all(|path| !path.contains("/../") && !path.contains('?')),
            "{paths:?}"
        );
    }
}
