//! What there is to say about a thing, from what the API shows of it. Whatever is missing is left out.

use serde_json::Value;

use crate::cli::{
    licenses,
    output::duration,
    view::{age, items, lines, millis, text, time},
};

/// Blanks before each further line of what others wrote.
const BLANKS: usize = 2;

/// A thing in sentences.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sentences {
    /// What it is, how it is and what it waits for.
    pub(super) says: Vec<String>,
    /// What to do about it: commands.
    pub(super) next: Vec<String>,
    /// What happened to it last.
    pub(super) events: Vec<Value>,
}

impl Sentences {
    fn say(&mut self, sentence: String) {
        self.says.push(sentence);
    }

    /// A sentence that has a place for this text, if there is some.
    fn say_if(&mut self, text: &str, sentence: impl FnOnce(&str) -> String) {
        if !text.is_empty() {
            self.say(sentence(text));
        }
    }
}

impl Sentences {
    /// Phase of the licence and what is used of it.
    fn licensed(&mut self, one: &Value, now_ms: u64) {
        self.say_if(&licenses::short(one), |phase| {
            format!("Its license: {phase}.")
        });
        self.say_if(&licenses::usage(one, now_ms), |usage| {
            format!("By its own count it has {usage}.")
        });
        let id = text(one, "id");
        match text(&one["license"], "status").as_str() {
            "grace" | "restricted" => {
                let renewal = format!("dotmac licenses update {id} --expires-at TIME --wait");
                self.next.push(renewal);
            }
            "suspended" | "revoked" => {
                self.next
                    .push(format!("dotmac licenses reinstate {id} --wait"));
            }
            _ => {}
        }
    }
}

impl Sentences {
    /// What it is, and how healthy. What its agent says of that may have several lines, and then comes last.
    fn healthy(&mut self, one: &Value, status: &str) {
        let copies = format!(
            "{} of {} copies are ready",
            text(one, "ready_pods"),
            text(one, "pod_count")
        );
        let reason = lines(one, "health_reason", BLANKS);
        self.say(match text(one, "health_status") {
            health if health.is_empty() => format!("It is {status}; {copies}."),
            health if reason.is_empty() => {
                format!("It is {status}, and its health is {health}; {copies}.")
            }
            health if reason.contains('\n') => {
                format!("It is {status}; {copies}, and its health is {health}: {reason}")
            }
            health => format!("It is {status}, and its health is {health}: {reason}; {copies}."),
        });
    }

    /// What it waits for, since when and who can change that.
    fn waiting(&mut self, waiting: &Value, now_ms: u64) {
        let since = age(waiting, "since", now_ms);
        let who = match text(waiting, "who") {
            who if who.is_empty() => String::new(),
            who => format!("; who can change that: {who}"),
        };
        self.say_if(&lines(waiting, "reason", BLANKS), |reason| {
            match reason.contains('\n') {
                true => format!("It waits for {since} now{who}, because {reason}"),
                false => format!("It waits for {since} now, because {reason}{who}."),
            }
        });
    }
}

/// A deployment.
pub(super) fn deployment(one: &Value, now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let (id, status) = (text(one, "id"), text(one, "status"));
    let release = &one["release"];
    told.say(format!(
        "{id} is the {} deployment of the tenant {} in {}: release {} {}, tier {}.",
        text(one, "environment"),
        text(one, "tenant_id"),
        text(one, "region"),
        text(release, "name"),
        text(release, "version"),
        text(one, "resource_tier"),
    ));
    told.say_if(&text(one, "agent"), |agent| {
        format!("The agent {agent} runs it.")
    });
    told.licensed(one, now_ms);
    told.healthy(one, &status);
    told.waiting(&one["waiting"], now_ms);
    told.say_if(&text(one, "suspended_reason"), |why| {
        format!("It was suspended: {why}.")
    });
    if let Some(due) = millis(&one["delete_after"]) {
        let left = duration(due.saturating_sub(now_ms));
        told.say(format!(
            "It will be removed with its data in {left}, unless it is undeleted."
        ));
    }
    if status == "failed" {
        told.say(way_out(one));
    }
    let is_withdrawn = status == "suspended"
        && ["suspended", "revoked"].contains(&text(&one["license"], "status").as_str());
    if is_withdrawn {
        // Only the license starts it again, which was said.
        return told;
    }
    told.next.push(match status.as_str() {
        "destroying" => format!("dotmac deployments undelete {id}"),
        "suspended" => format!("dotmac deployments resume {id}"),
        "failed" | "degraded" => format!("dotmac logs {id}"),
        "active" | "destroyed" => format!("dotmac deployments show {id}"),
        _ => format!("dotmac deployments watch {id}"),
    });
    told
}

/// What can be done about a deployment that has failed.
fn way_out(one: &Value) -> String {
    let id = text(one, "id");
    let restart = format!(
        "`dotmac deployments restart {id}` tries it again, once what it failed of is mended"
    );
    if one["rollback_to"].is_null() {
        return format!(
            "No release of it was ever healthy: {restart}; else `dotmac deployments delete {id}`, and create it with \
             another release."
        );
    }
    format!(
        "{restart}; `dotmac deployments rollback {id}` brings back {}, which was healthy.",
        version(&one["rollback_to"])
    )
}

/// A version as people write it.
fn version(one: &Value) -> String {
    let release = &one["release"];
    match (text(release, "name"), text(release, "version")) {
        (name, version) if name.is_empty() || version.is_empty() => "the version before".to_owned(),
        (name, version) => format!("{name} {version}"),
    }
}

/// A tenant.
pub(super) fn tenant(one: &Value, now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let id = text(one, "id");
    let deployments = items(one, "deployments");
    let name = text(one, "tenant_name");
    told.say(format!(
        "{id} is the tenant {name}; it is {}.",
        text(one, "status")
    ));
    told.say_if(&text(one, "reseller_id"), |reseller| {
        format!("It belongs to the reseller {reseller}.")
    });
    told.say_if(&age(one, "created_at", now_ms), |age| {
        format!("It was made {age} ago.")
    });
    let names: Vec<String> = deployments
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match names.len() {
        // Those that the API names are of one of them alone.
        2.. => told.next.push(format!("dotmac tenants show {id}")),
        _ => told.licensed(one, now_ms),
    }
    match names.as_slice() {
        [] => {
            told.say("It has no deployment.".into());
            told.next.push(format!("dotmac audit --tenant {id}"));
        }
        names => {
            told.say(format!("Its deployments: {}.", names.join(", ")));
            told.next.push(format!("dotmac explain {}", names[0]));
        }
    }
    told
}

/// An agent.
pub(super) fn agent(one: &Value, now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let (id, status) = (text(one, "id"), text(one, "status"));
    let software = match text(one, "software") {
        unknown if unknown.is_empty() => String::new(),
        software => format!("; its software is {software}"),
    };
    told.say(format!(
        "{id} is an agent in {} with {} deployments{software}.",
        text(one, "region"),
        text(one, "units"),
    ));
    let since = age(one, "since", now_ms);
    match (status.as_str(), text(one, "node")) {
        ("connected", node) if !node.is_empty() => {
            told.say(format!(
                "It is connected to controller {node}, for {since} now."
            ));
        }
        _ => told.say(format!("It is {status}, for {since} now.")),
    }
    if status == "disconnected" {
        told.say("Its instances run on; it takes no new orders until it is connected again. Who can change that: whoever \
            operates its machine and the network between it and the controllers.".into());
    }
    told.say_if(&time(one, "certificate_not_after"), |time| {
        format!("Its certificate counts until {time}; the agent renews it by itself.")
    });
    told.next.push(if status == "connected" {
        format!(
            "dotmac deployments list  # those in {}",
            text(one, "region")
        )
    } else {
        "dotmac cluster status".to_owned()
    });
    told
}

/// A region.
pub(super) fn region(one: &Value, _now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let id = text(one, "id");
    let agents = &one["agents"];
    let default = if one["default"] == true {
        ", the one of requests that name none"
    } else {
        ""
    };
    told.say(format!("{id} is a region{default}."));
    told.say_if(&text(one, "description"), |text| {
        format!("It is described as: {text}")
    });
    let (connected, total) = (text(agents, "connected"), text(agents, "total"));
    // Not everybody may see them.
    if !connected.is_empty() && !total.is_empty() {
        told.say(format!("{connected} of its {total} agents are connected."));
    }
    told.say_if(&text(one, "deployments"), |count| {
        format!("It has {count} deployments.")
    });
    if one["accepts_deployments"] == false {
        told.say("It takes no new deployments.".into());
    }
    match (agents["connected"].as_u64(), agents["total"].as_u64()) {
        (_, Some(0)) => {
            told.say("Nothing can run there until an agent is started.".into());
            told.next.push(format!("dotmac agents token --region {id}"));
        }
        (None, None) => told.next.push("dotmac regions list".into()),
        _ => told.next.push("dotmac agents list".into()),
    }
    told
}

/// An access token.
pub(super) fn token(one: &Value, now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let tenant = match text(one, "tenant_id") {
        none if none.is_empty() => String::new(),
        tenant => format!(" of the tenant {tenant}"),
    };
    let (id, name, role) = (text(one, "id"), text(one, "name"), text(one, "role"));
    told.say(format!("{id} is the access token {name}: {role}{tenant}."));
    let is_over = millis(&one["expires_at"]).is_some_and(|end| end <= now_ms);
    match (time(one, "revoked_at"), time(one, "expires_at")) {
        (revoked, _) if !revoked.is_empty() => {
            told.say(format!(
                "It was revoked at {revoked}; what it had ordered before stays ordered."
            ));
        }
        (_, end) if is_over => told.say(format!("It expired at {end}.")),
        (_, end) if end.is_empty() => told.say("It counts and does not expire.".into()),
        (_, end) => told.say(format!("It counts until {end}.")),
    }
    match age(one, "last_used_at", now_ms) {
        never if never.is_empty() => told.say("Nobody has used it yet.".into()),
        age => told.say(format!("It was used last about {age} ago.")),
    }
    told.next.push("dotmac tokens list".into());
    told
}

/// A release.
pub(super) fn release(one: &Value, _now_ms: u64) -> Sentences {
    let mut told = Sentences::default();
    let (name, version) = (text(one, "name"), text(one, "version"));
    told.say(format!(
        "{name} {version} is a release in the channel {}.",
        text(one, "channel")
    ));
    told.say_if(&text(one, "description"), |text| {
        format!("It says of itself: {text}")
    });
    told.say_if(&text(one, "digest"), |digest| {
        format!("It never changes; its digest is {digest}.")
    });
    match (one["retired"] == true, one["default"] == true) {
        (true, _) => {
            told.say("It is retired: no new deployment gets it, those that have it keep it.".into())
        }
        (false, true) => told.say("A deployment that names no release gets it.".into()),
        (false, false) => told.say("Deployments that name it get it.".into()),
    }
    told.next
        .push(format!("dotmac releases show {name} {version}"));
    told
}

/// A request.
pub(super) fn request(id: &str, events: Vec<Value>) -> Sentences {
    let mut told = Sentences::default();
    let first = events.first().cloned().unwrap_or_default();
    told.say(format!(
        "{id} is a request of {}, made {}; the audit has {} records of it.",
        text(&first, "actor"),
        time(&first, "at"),
        events.len()
    ));
    told.next.push(match text(&first, "tenant") {
        none if none.is_empty() => "dotmac audit".into(),
        tenant => format!("dotmac audit --tenant {tenant}"),
    });
    told.events = events;
    told
}

#[cfg(test)]
mod tests;
