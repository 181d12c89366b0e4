//! The way of every change: the API says what would change (`dry_run`), that is shown, somebody at a terminal is
//! asked, and only then it is sent, for the version that was shown and no other. It judges no value itself.

mod consent;
mod difference;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    consent::Consent,
    difference::{Difference, between},
};

use reqwest::Method;
use serde_json::Value;

use super::{
    client::{Answer, Change, Client},
    failure::Failure,
    find::Context,
    output::clean,
};

/// A change that somebody wants.
pub(crate) struct Plan {
    /// What is done to what, for people: `scale demo-isp-0190a1b2`.
    pub(crate) title: String,
    /// The method.
    pub(crate) method: Method,
    /// Path without a query.
    pub(crate) path: String,
    /// The body, if there is one.
    pub(crate) body: Option<Value>,
    /// What is changed, as it was; nothing for what is new.
    pub(crate) seen: Option<Seen>,
    /// What has to be typed before a change that is hard to take back.
    pub(crate) typed: Option<String>,
    /// Whether asking has an effect even if nothing is to change.
    pub(crate) is_renewal: bool,
}

/// An entity as it was when the plan was made.
pub(crate) struct Seen {
    /// Where it is.
    pub(crate) path: String,
    /// What it was, with its version.
    pub(crate) answer: Answer,
}

/// What the API says would happen.
#[derive(Debug)]
pub(crate) struct Foreseen {
    /// Member by member.
    pub(crate) changes: Vec<Difference>,
    /// The answer itself.
    pub(crate) answer: Value,
}

/// What became of a plan.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was done; the API's answer.
    Done(Value),
    /// It was so already; how it is.
    Same(Value),
    /// It was only shown.
    Shown,
}

impl Seen {
    /// Reads what is to be changed.
    pub(crate) async fn read(client: &Client, path: String) -> Result<Self, Failure> {
        let answer = client.entity(&path).await?;
        Ok(Self { path, answer })
    }
}

impl Plan {
    /// Something new: a POST there.
    pub(crate) fn create(title: String, path: &str, body: Value) -> Self {
        Self {
            title,
            method: Method::POST,
            path: path.to_owned(),
            body: Some(body),
            seen: None,
            typed: None,
            is_renewal: false,
        }
    }

    /// A change of what was seen.
    pub(crate) fn change(title: String, method: Method, path: String, seen: Seen) -> Self {
        Self {
            title,
            method,
            path,
            body: None,
            seen: Some(seen),
            typed: None,
            is_renewal: false,
        }
    }

    /// With this body.
    pub(crate) fn with_body(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// The removal of what was seen: its name has to be typed.
    pub(crate) fn delete(title: String, name: &str, seen: Seen) -> Self {
        let path = seen.path.clone();
        Self {
            typed: Some(name.to_owned()),
            is_renewal: true,
            ..Self::change(title, Method::DELETE, path, seen)
        }
    }

    /// What is changed as it was; null for what is new.
    pub(crate) fn before(&self) -> &Value {
        const NOTHING: &Value = &Value::Null;
        self.seen.as_ref().map_or(NOTHING, |seen| &seen.answer.body)
    }

    /// Shows what would change, asks at a terminal, and does it.
    ///
    /// # Errors
    /// What the API refuses; a no at the terminal; [`Failure::Changed`] when it is not any more what was shown;
    /// [`Failure::Ended`] when it is only to be shown and nothing would change.
    pub(crate) async fn run(
        &self,
        context: &Context,
        client: &Client,
        consent: Consent,
    ) -> Result<Outcome, Failure> {
        // The same key for both: what is named after the request has the name that was shown.
        let key = client.key();
        let foreseen = self.foresee(client, &key).await?;
        let is_same = foreseen.changes.is_empty();
        if consent.dry_run && context.output.is_data() {
            context.output.data(&foreseen.answer)?;
        } else {
            self.show(context, &foreseen);
        }
        match (consent.dry_run, is_same) {
            (true, true) => return Err(Failure::Ended(8)),
            (true, false) => return Ok(Outcome::Shown),
            (false, true) if !self.is_renewal => {
                return Ok(Outcome::Same(foreseen.answer["result"].clone()));
            }
            (false, _) => {}
        }
        consent.ask(self.typed.as_deref())?;
        Ok(Outcome::Done(self.commit(client, &key).await?))
    }

    /// Asks what would change; nothing does.
    pub(crate) async fn foresee(&self, client: &Client, key: &str) -> Result<Foreseen, Failure> {
        let path = format!("{}?dry_run=true", self.path);
        let answer = self.send(client, &path, key).await?;
        let (true, Some(changes)) = (answer["dry_run"] == true, answer["changes"].as_array())
        else {
            return Err(Failure::foreign(&self.path, "it is no plan"));
        };
        let changes = changes.iter().map(Difference::read).collect();
        Ok(Foreseen { changes, answer })
    }

    /// Does it. The same `key` again does it only once.
    pub(crate) async fn commit(&self, client: &Client, key: &str) -> Result<Value, Failure> {
        self.send(client, &self.path, key).await
    }

    async fn send(&self, client: &Client, path: &str, key: &str) -> Result<Value, Failure> {
        let version = self
            .seen
            .as_ref()
            .and_then(|seen| seen.answer.etag.as_deref());
        let change = Change {
            method: self.method.clone(),
            path,
            body: self.body.as_ref(),
            key,
            if_match: version,
        };
        match client.answer(&change).await {
            Ok(answer) => Ok(answer.body),
            Err(Failure::Changed(_)) => Err(self.changed_meanwhile(client).await),
            Err(failure) => Err(failure),
        }
    }

    /// What is different from what was shown.
    async fn changed_meanwhile(&self, client: &Client) -> Failure {
        let Some(seen) = &self.seen else {
            return Failure::Changed(format!("{}: it was changed meanwhile", self.title));
        };
        let now = match client.entity(&seen.path).await {
            Ok(answer) => answer.body,
            Err(Failure::NotFound(_)) => Value::Null,
            Err(failure) => return failure,
        };
        let mut text = format!(
            "{}: somebody else changed it meanwhile, so nothing was done",
            self.title
        );
        if now.is_null() {
            text.push_str("\n  it is gone");
        }
        let differences = between(&seen.answer.body, &now);
        for difference in differences.iter().filter(|one| one.is_told()) {
            text.push_str(&format!("\n{}", difference.line(false)));
        }
        text.push_str("\n  next: look at it, and ask again if it is still wanted");
        Failure::Changed(text)
    }

    fn show(&self, context: &Context, foreseen: &Foreseen) {
        let output = context.output;
        let title = clean(&self.title);
        if foreseen.changes.is_empty() {
            output.note(&format!("{title}: nothing to change"));
            return;
        }
        output.note(&format!("{title}:"));
        for difference in foreseen.changes.iter().filter(|one| one.is_told()) {
            difference.say();
        }
    }
}
