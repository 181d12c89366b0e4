//! The dashboards and alert rules against the metrics that the programs have: every series and label that a query asks for
//! exists, and both dashboards are whole. A story asks the same of a running fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use dotmac_runtime::metrics::{Kind, Metric, PROCESS, READINESS, SPANS};
use dotmac_tests::queries::{self, JOBS, Told};
use serde_json::Value;

use crate::checkout;

/// The labels of every series that a program of ours may tell, with what it says of itself.
fn known() -> BTreeMap<String, Told> {
    let ours = [
        dotmac_controller::metrics::catalogue::ALL,
        dotmac_agent::metrics::catalogue::ALL,
        &PROCESS[..],
        &READINESS[..],
        &SPANS[..],
    ];
    let mut known = BTreeMap::new();
    for metric in ours.into_iter().flatten() {
        for series in metric.series() {
            let bound = series.ends_with("_bucket").then_some("le");
            let labels = metric.labels.iter().copied().chain(bound);
            let told = Told {
                labels: labels
                    .map(|one| (one.to_owned(), BTreeSet::new()))
                    .collect(),
                help: metric.help.to_owned(),
            };
            known.insert(series, told);
        }
    }
    known
}

#[test]
fn every_query_asks_for_what_there_is() {
    let known = known();
    let queries = queries::all(&checkout()).unwrap();
    assert!(queries.len() > 60, "only {} queries", queries.len());
    for query in queries {
        // Which routes there are the story sees.
        let told = |series: &str| known.get(series).cloned();
        query.check(told, &["route"]).unwrap();
    }
}

#[test]
fn the_jobs_that_queries_name_are_those_that_are_scraped() {
    let scrape = fs::read_to_string(checkout().join("config/prometheus/scrape.yml")).unwrap();
    let scrape: Value = serde_saphyr::from_str(&scrape).unwrap();
    let jobs = scrape["scrape_configs"].as_array().unwrap().iter();
    let jobs: Vec<&str> = jobs.map(|job| job["job_name"].as_str().unwrap()).collect();
    assert_eq!(jobs, JOBS);
}

#[test]
fn both_dashboards_show_the_same() {
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(checkout().join("config").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (grafana, signoz) = (read("grafana/dotmac.json"), read("signoz/dotmac.json"));
    let titles = |panels: &Value| -> Vec<String> {
        let panels = panels.as_array().unwrap().iter();
        panels
            .map(|one| one["title"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut shown = titles(&grafana["panels"]);
    // SigNoz shows its own alerts elsewhere; ALERTS is what Prometheus tells.
    shown.retain(|title| title != "Alerts that fire");
    assert_eq!(shown, titles(&signoz["widgets"]));
    let placed: BTreeSet<&str> = signoz["layout"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["i"].as_str().unwrap())
        .collect();
    let widgets: BTreeSet<&str> = signoz["widgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(placed, widgets, "every widget has its place");
}

#[test]
fn metrics_are_named_by_the_conventions() {
    let allowed = |metric: &Metric| {
        let words: Vec<&str> = metric.name.split('_').collect();
        let is_ours = words[0] == "dotmac" || words[0] == "process";
        let is_lower = metric
            .name
            .chars()
            .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_');
        let has_no_suffix =
            !["total", "count", "sum", "bucket", "info"].contains(words.last().unwrap());
        let has_unit = !matches!(metric.kind, Kind::Histogram(_))
            || ["seconds", "bytes", "proposals"].contains(words.last().unwrap());
        is_ours && is_lower && has_no_suffix && has_unit && metric.help.ends_with('.')
    };
    let all = [
        dotmac_controller::metrics::catalogue::ALL,
        dotmac_agent::metrics::catalogue::ALL,
        &PROCESS[..],
        &READINESS[..],
        &SPANS[..],
    ];
    for metric in all.into_iter().flatten() {
        assert!(allowed(metric), "{metric:?}");
        let forbidden = ["tenant", "deployment", "unit", "request", "agent", "token"];
        assert!(
            metric.labels.iter().all(|label| !forbidden.contains(label)),
            "{metric:?}"
        );
    }
}
