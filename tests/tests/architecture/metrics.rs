//! The tables of docs/operations/metrics.md: what is counted by which program, in the words of its catalogue.

use std::{fmt::Write as _, fs};

use dotmac_runtime::metrics::{Kind, Metric, PROCESS, READINESS, SPANS};

use crate::checkout;

#[test]
fn the_documented_tables_are_what_the_programs_have() {
    let path = checkout().join("docs/operations/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let programs = [
        ("controller", dotmac_controller::metrics::catalogue::ALL),
        ("agent", dotmac_agent::metrics::catalogue::ALL),
    ];
    let right = programs
        .into_iter()
        .fold(page.clone(), |page, (program, own)| {
            documented(&page, program, own)
        });
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, right).unwrap();
        return;
    }
    assert_eq!(
        page, right,
        "UPDATE_GOLDEN=1 rewrites docs/operations/metrics.md"
    );
}

/// The page with a program's table between its mark and the next end: its own metrics, then those that every program has.
fn documented(page: &str, program: &str, own: &[&Metric]) -> String {
    let mark = format!("<!-- {program} -->\n");
    let (before, rest) = page.split_once(&mark).unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let shared = READINESS.iter().chain(&SPANS).chain(&PROCESS);
    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for metric in own.iter().chain(shared) {
        let name = match metric.kind {
            Kind::Histogram(_) => metric.name.to_owned(),
            _ => metric.series().concat(),
        };
        let sort = metric.sort();
        let labels: Vec<String> = metric.labels.iter().map(|one| format!("`{one}`")).collect();
        let (kind, labels, help) = (sort.as_str(), labels.join(" "), metric.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    format!("{before}{mark}{table}<!-- end -->{after}")
}
