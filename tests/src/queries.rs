//! Every query that is checked in: of both dashboards and of the alert rules, with where it stands.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::promql::{self, Needs};

/// Labels that whoever scrapes adds.
const SCRAPED: [&str; 2] = ["instance", "job"];
/// What Prometheus itself tells of a scrape.
const UP: &str = "up";

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

impl Query {
    fn new(place: String, text: &str, legend: &str) -> Self {
        let (needs, legend) = (promql::needs(text), promql::legend(legend));
        Self {
            place,
            needs,
            legend,
        }
    }

    /// Compares it with what is told: `labels` gives the labels of a series, if there is one.
    ///
    /// # Errors
    /// When it asks for a series or a label that is not told.
    pub fn check<'l>(&self, labels: impl Fn(&str) -> Option<BTreeSet<&'l str>>) -> Result<()> {
        ensure!(
            !self.needs.series.is_empty(),
            "{} asks for nothing",
            self.place
        );
        let mut known: BTreeSet<&str> = SCRAPED.into();
        for (series, matched) in &self.needs.series {
            if series == UP {
                continue;
            }
            let place = &self.place;
            let told = labels(series).with_context(|| format!("{place}: {series} is not told"))?;
            for label in matched {
                let is_known = told.contains(label.as_str()) || SCRAPED.contains(&label.as_str());
                ensure!(is_known, "{place}: {series} has no label {label}");
            }
            known.extend(told);
        }
        for label in self.needs.grouped.iter().chain(&self.legend) {
            let is_known = known.contains(label.as_str());
            ensure!(is_known, "{}: nothing has a label {label}", self.place);
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
