//! The dashboards and alert rules against the metrics that the programs have: every series and label that a query asks for
//! exists, and both dashboards are whole. A story asks the same of a running fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use dotmac_runtime::metrics::{Kind, Metric, PROCESS, SPANS};
use dotmac_tests::queries;
use serde_json::Value;

use crate::checkout;

/// The labels of every series that a program of ours may tell.
fn known() -> BTreeMap<String, BTreeSet<&'static str>> {
    let ours = [
        dotmac_controller::metrics::catalogue::ALL,
        dotmac_agent::metrics::catalogue::ALL,
        &PROCESS[..],
        &SPANS[..],
    ];
    let mut known = BTreeMap::new();
    for metric in ours.into_iter().flatten() {
        for series in metric.series() {
            let mut labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
            if series.ends_with("_bucket") {
                labels.insert("le");
            }
            known.insert(series, labels);
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
        query.check(|series| known.get(series).cloned()).unwrap();
    }
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
    assert_eq!(titles(&grafana["panels"]), titles(&signoz["widgets"]));
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
