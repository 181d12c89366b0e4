//! `dotmac deployments watch`: rows that follow the deployments where somebody looks, one line a change elsewhere. A
//! controller that goes away is not noticed.

use std::{collections::BTreeMap, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use dotmac_domain::tenancy::Status;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::{
    client::{Client, Entity, Follow, Told, encode},
    failure::Failure,
    find::Context,
    view,
};

/// Rows that are written over at most; further deployments are followed as lines.
const ROWS_MAX: usize = 200;

#[derive(Args)]
#[command(after_help = "Exit codes with --until:
  0  it is in that state
  1  it will not get there: it is destroyed, or failed and nothing else was waited for
  6  it was not within --timeout
Without --until it goes on until it is stopped.")]
pub(crate) struct Watch {
    /// Deployment or tenant; all that you may see if not given
    id: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    tenant: Option<String>,
    /// End as soon as it is in this state
    #[arg(long, value_name = "STATUS", requires = "id", value_parser = statuses())]
    until: Option<Status>,
    /// Seconds to wait for it at most
    #[arg(long, value_name = "SECONDS", requires = "until")]
    timeout: Option<u64>,
}

impl Watch {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let Some(seconds) = self.timeout else {
            return self.follow(context, client).await;
        };
        let limit = Duration::from_secs(seconds);
        let followed = tokio::time::timeout(limit, self.follow(context, client)).await;
        followed.unwrap_or_else(|_| {
            let (id, word) = (self.id.as_deref().unwrap_or_default(), self.word());
            Err(Failure::TimedOut(format!(
                "{id} is not {word} after {seconds} s"
            )))
        })
    }

    async fn follow(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let mut query = "types=deployment".to_owned();
        for (name, value) in [("deployment", &self.id), ("tenant_id", &self.tenant)] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let mut follow = Follow::new(client, &query);
        let mut rows = Rows::new(context);
        loop {
            let told = follow.next().await?;
            rows.tell(&told)?;
            let standing = match &told {
                Told::Is(entity) => self.standing(&view::text(&entity.data, "status")),
                Told::Gone(_) => self.standing("destroyed"),
                Told::Synced => Standing::OnTheWay,
            };
            match standing {
                Standing::OnTheWay => {}
                Standing::Reached => {
                    rows.end();
                    return Ok(());
                }
                Standing::Lost(status) => {
                    rows.end();
                    let (id, word) = (self.id.as_deref().unwrap_or_default(), self.word());
                    return Err(Failure::Failed(format!(
                        "{id} is {status} and will not be {word}"
                    )));
                }
            }
        }
    }

    fn standing(&self, status: &str) -> Standing {
        match self.until {
            None => Standing::OnTheWay,
            Some(_) if status == self.word() => Standing::Reached,
            Some(_) if status == "destroyed" => Standing::Lost("destroyed"),
            Some(Status::Active | Status::Degraded) if status == "failed" => {
                Standing::Lost("failed")
            }
            Some(_) => Standing::OnTheWay,
        }
    }

    fn word(&self) -> &'static str {
        self.until.map_or("", Status::as_str)
    }
}

/// Reads a state by the word that the API writes.
fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|word| {
        let mut all = Status::ALL.into_iter();
        all.find(|status| status.as_str() == word)
            .ok_or("no such state")
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Reached,
    OnTheWay,
    Lost(&'static str),
}

/// What has been shown: rows on a terminal, or lines.
struct Rows<'a> {
    context: &'a Context,
    all: Option<MultiProgress>,
    rows: BTreeMap<String, ProgressBar>,
}

impl<'a> Rows<'a> {
    fn new(context: &'a Context) -> Self {
        let is_live = context.output.is_terminal() && !context.output.is_data();
        Self {
            context,
            all: is_live.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout())),
            rows: BTreeMap::new(),
        }
    }

    fn tell(&mut self, told: &Told) -> Result<(), Failure> {
        let (entity, row) = match told {
            Told::Is(entity) => (entity, row(&entity.data)),
            Told::Gone(entity) => (entity, format!("{}  gone", entity.id)),
            Told::Synced => return Ok(()),
        };
        match (&self.all, told) {
            (Some(all), _) if self.rows.contains_key(&entity.id) || self.rows.len() < ROWS_MAX => {
                let place = self.rows.range(entity.id.clone()..).next();
                let shown = self.rows.get(&entity.id).cloned().unwrap_or_else(|| {
                    let bar = ProgressBar::new_spinner();
                    bar.set_style(ProgressStyle::with_template("{wide_msg}").expect("a template"));
                    match place {
                        Some((_, next)) => all.insert_before(next, bar),
                        None => all.add(bar),
                    }
                });
                shown.set_message(row);
                shown.tick();
                self.rows.insert(entity.id.clone(), shown);
                Ok(())
            }
            (Some(all), _) => {
                // Written above the rows.
                let _ = all.println(row);
                Ok(())
            }
            (None, _) => self.line(entity, &row, matches!(told, Told::Gone(_))),
        }
    }

    fn line(&self, entity: &Entity, row: &str, is_gone: bool) -> Result<(), Failure> {
        if !self.context.output.is_data() {
            return self.context.output.line(row);
        }
        if is_gone {
            let gone = serde_json::json!({"id": entity.id, "status": "gone"});
            return self.context.output.record(&gone);
        }
        self.context.output.record(&entity.data)
    }

    /// Leaves the rows where they are.
    fn end(&self) {
        for row in self.rows.values() {
            row.abandon();
        }
    }
}

/// One deployment in one line.
fn row(deployment: &Value) -> String {
    let text = |name: &str| view::text(deployment, name);
    let (ready, all) = (text("ready_pods"), text("pod_count"));
    let release = &deployment["release"];
    let (name, version) = (view::text(release, "name"), view::text(release, "version"));
    let reason = view::text(&deployment["waiting"], "reason");
    let row = format!(
        "{:32}  {:12}  {:>7}  {:16}  {:20}  {reason}",
        text("id"),
        text("status"),
        format!("{ready}/{all}"),
        text("region"),
        format!("{name}:{version}"),
    );
    row.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Standing, Status, Watch, row};

    #[test]
    fn it_ends_when_the_state_is_reached_or_out_of_reach() {
        let is = |until: Option<Status>, status: &str| {
            let watch = Watch {
                id: Some("a".into()),
                tenant: None,
                until,
                timeout: None,
            };
            watch.standing(status)
        };
        assert_eq!(is(None, "active"), Standing::OnTheWay);
        assert_eq!(is(Some(Status::Active), "active"), Standing::Reached);
        assert_eq!(is(Some(Status::Active), "provisioning"), Standing::OnTheWay);
        assert_eq!(is(Some(Status::Active), "failed"), Standing::Lost("failed"));
        assert_eq!(is(Some(Status::Failed), "failed"), Standing::Reached);
        assert_eq!(is(Some(Status::Suspended), "failed"), Standing::OnTheWay);
        assert_eq!(
            is(Some(Status::RollingBack), "rolling_back"),
            Standing::Reached
        );
        assert_eq!(
            is(Some(Status::Active), "destroyed"),
            Standing::Lost("destroyed")
        );
        assert_eq!(is(Some(Status::Destroyed), "destroyed"), Standing::Reached);
    }

    #[test]
    fn a_row_has_what_a_watcher_looks_for() {
        let deployment = json!({"id": "demo-isp-1", "status": "active", "ready_pods": 2, "pod_count": 3,
            "region": "do-fra1", "release": {"name": "demo-isp", "version": "1.0.0"}, "waiting": null});
        let row = row(&deployment);
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["demo-isp-1", "active", "2/3", "do-fra1", "demo-isp:1.0.0"]
        );
    }
}
