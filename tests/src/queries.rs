//! Every query that is checked in: of both dashboards and of the alert rules, with where it stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    openmetrics::Exposition,
    promql::{self, Matcher, Needs, Pattern},
};

/// The jobs of scrape.yml.
pub const JOBS: [&str; 2] = ["dotmac-controller", "dotmac-agent"];
/// Labels that whoever scrapes adds, and the values of them that are known.
const SCRAPED: [(&str, &[&str]); 2] = [("instance", &[]), ("job", &JOBS)];
/// What Prometheus itself tells of a scrape.
const UP: &str = "up";
/// What Prometheus itself tells of its alerts.
const ALERTS: &str = "ALERTS";
/// Labels of alerts besides those of what they are about, and the words in their values.
const OF_ALERTS: [&str; 3] = ["alertname", "alertstate", "severity"];
const IN_ALERTS: &str = "Dotmac, pending, firing, page, ticket";

/// One query.
#[derive(Debug, Clone)]
pub struct Query {
    /// File and panel or rule.
    pub place: String,
    /// What it needs.
    pub needs: Needs,
    /// Labels that its legend shows.
    pub legend: BTreeSet<String>,
}

/// What is told under one name.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The labels, each with the values that are seen.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// What the metric says of itself; the words in it are values that it may have.
    pub help: String,
}

impl Told {
    /// Whether a label has such a value, or may have it by what the metric says of itself.
    fn has(&self, label: &str, pattern: &Pattern) -> bool {
        let mut seen = self.labels.get(label).into_iter().flatten();
        let mut words = self
            .help
            .split(|one: char| !(one.is_ascii_alphanumeric() || one == '_'));
        seen.any(|value| pattern.fits(value)) || words.any(|word| pattern.fits(word))
    }
}

impl Query {
    fn new(place: String, text: &str, legend: &str) -> Self {
        let (needs, legend) = (promql::needs(text), promql::legend(legend));
        Self {
            place,
            needs,
            legend,
        }
    }

    /// Compares it with what is told under a name, if anything is. Values of `open` labels are not judged: nobody knows
    /// them beforehand.
    ///
    /// # Errors
    /// When it asks for a series, a label or a value that is not told.
    pub fn check(&self, told: impl Fn(&str) -> Option<Told>, open: &[&str]) -> Result<()> {
        let place = &self.place;
        ensure!(!self.needs.series.is_empty(), "{place} asks for nothing");
        let mut known: BTreeSet<String> = SCRAPED.map(|(label, _)| label.to_owned()).into();
        for (series, matchers) in &self.needs.series {
            let mut told = match series.as_str() {
                UP => Told::default(),
                ALERTS => Told {
                    labels: OF_ALERTS
                        .map(|one| (one.to_owned(), BTreeSet::new()))
                        .into(),
                    help: IN_ALERTS.to_owned(),
                },
                _ => told(series).with_context(|| format!("{place}: {series} is not told"))?,
            };
            for (label, values) in SCRAPED {
                let values = values.iter().map(|one| (*one).to_owned()).collect();
                told.labels.insert(label.to_owned(), values);
            }
            for Matcher { label, values } in matchers {
                let has_label = told.labels.contains_key(label);
                ensure!(has_label, "{place}: {series} has no label {label}");
                let wrong = values.iter().find(|value| !told.has(label, value));
                let wrong = wrong.filter(|_| !open.contains(&label.as_str()));
                ensure!(
                    wrong.is_none(),
                    "{place}: {series} never has {label} {wrong:?}"
                );
            }
            known.extend(told.labels.into_keys());
        }
        for label in self.needs.grouped.iter().chain(&self.legend) {
            let is_known = known.contains(label);
            ensure!(is_known, "{place}: nothing has a label {label}");
        }
        Ok(())
    }
}

/// All of them.
///
/// # Errors
/// When a file is not there, or not what its program reads.
pub fn all(checkout: &Path) -> Result<Vec<Query>> {
    let config = checkout.join("config");
    let json = |name: &str| -> Result<Value> {
        let text = fs::read_to_string(config.join(name)).with_context(|| name.to_owned())?;
        serde_json::from_str(&text).with_context(|| name.to_owned())
    };
    let mut found = Vec::new();
    let grafana = json("grafana/dotmac.json")?;
    for panel in list(&grafana["panels"])? {
        for target in list(&panel["targets"])? {
            let place = format!("grafana: {}", panel["title"]);
            found.push(query(place, &target["expr"], &target["legendFormat"])?);
        }
    }
    let signoz = json("signoz/dotmac.json")?;
    for widget in list(&signoz["widgets"])? {
        for one in list(&widget["query"]["promql"])? {
            let place = format!("signoz: {}", widget["title"]);
            found.push(query(place, &one["query"], &one["legend"])?);
        }
    }
    let rules = fs::read_to_string(config.join("prometheus/alerts.yml"))?;
    let rules: Value = serde_saphyr::from_str(&rules).context("alerts.yml")?;
    for group in list(&rules["groups"])? {
        for rule in list(&group["rules"])? {
            let place = format!("alert: {}", rule["alert"]);
            found.push(query(place, &rule["expr"], &Value::from(""))?);
        }
    }
    Ok(found)
}

/// What all of them tell under one name; `None` when nothing is told.
#[must_use]
pub fn told(all: &[Exposition], series: &str) -> Option<Told> {
    let mut found: Option<Told> = None;
    for (help, all) in all.iter().filter_map(|one| one.of(series)) {
        let told = found.get_or_insert_default();
        help.clone_into(&mut told.help);
        for (label, value) in all.into_iter().flat_map(|one| &one.labels) {
            let values = told.labels.entry(label.clone()).or_default();
            values.insert(value.clone());
        }
    }
    found
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("a list is missing")
}

fn query(place: String, text: &Value, legend: &Value) -> Result<Query> {
    let text = text
        .as_str()
        .with_context(|| format!("{place} has no query"))?;
    let legend = legend
        .as_str()
        .with_context(|| format!("{place} has no legend"))?;
    Ok(Query::new(place, text, legend))
}

#[cfg(test)]
mod tests {
    use super::{Query, Told};

    #[test]
    fn a_value_that_a_metric_never_has_is_found() {
        let told = |series: &str| {
            let labels = [("status".to_owned(), ["2xx".to_owned()].into())].into();
            let help = "By class of status: 2xx, or 5xx.".to_owned();
            (series == "a_total").then_some(Told { labels, help })
        };
        let check = |text: &str, legend: &str, open: &[&str]| {
            let query = Query::new("test".into(), text, legend);
            query.check(told, open).is_ok()
        };
        for good in [
            "a_total{status=\"5xx\"}",
            "a_total{status=~\"2.*|5xx\",job=\"dotmac-agent\"}",
            "up{job=\"dotmac-controller\"}",
            "ALERTS{alertstate=\"firing\"}",
        ] {
            assert!(check(good, "{{instance}}", &[]), "{good}");
        }
        for wrong in [
            "b_total",
            "a_total{status=\"500\"}",
            "a_total{status!~\"2xx|6.*\"}",
            "a_total{code=\"5xx\"}",
            "a_total{job=\"dotmac\"}",
            "ALERTS{alertstate=\"fires\"}",
        ] {
            assert!(!check(wrong, "", &[]), "{wrong}");
        }
        assert!(!check("a_total", "{{route}}", &[]));
        assert!(check("a_total{status=\"500\"}", "", &["status"]));
    }
}
