//! Reads OpenMetrics 1.0 text as strictly as the specification is written, so that whatever passes here is understood by
//! every collector. It forgives nothing and knows no metric by name.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Everything that was told, by the names of metrics.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    /// The metrics.
    pub families: BTreeMap<String, Family>,
}

/// One metric.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`, `info` …
    pub kind: String,
    /// Its unit, if it has one.
    pub unit: Option<String>,
    /// Whether it says what it is.
    pub help: Option<String>,
    /// Its series.
    pub series: Vec<Series>,
}

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The name, with the suffix of its kind.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Exposition {
    /// Reads a whole text.
    ///
    /// # Errors
    /// At the first line that is not as the specification wants it.
    pub fn read(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .context("it does not end with # EOF")?;
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in body.lines() {
            let read = read_line(line, &mut families, &mut current);
            read.with_context(|| format!("in the line {line:?}"))?;
        }
        for (name, family) in &families {
            check(name, family).with_context(|| format!("of {name}"))?;
        }
        Ok(Self { families })
    }

    /// All series.
    pub fn series(&self) -> impl Iterator<Item = &Series> {
        self.families.values().flat_map(|family| &family.series)
    }

    /// What the metric of this series says of itself, and all its series; `None` when there is none.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<(&str, Vec<&Series>)> {
        let has = |family: &&Family| family.series.iter().any(|series| series.name == name);
        let family = self.families.values().find(has)?;
        let series = family.series.iter().filter(|series| series.name == name);
        Some((family.help.as_deref().unwrap_or(""), series.collect()))
    }

    /// The value of the only series with this name and these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |series: &&Series| {
            series.name == name
                && labels
                    .iter()
                    .all(|(label, value)| series.labels.get(*label).is_some_and(|one| one == value))
        };
        self.series().find(fits).map(|series| series.value)
    }
}

fn read_line(
    line: &str,
    families: &mut BTreeMap<String, Family>,
    current: &mut String,
) -> Result<()> {
    if let Some(rest) = line.strip_prefix("# ") {
        let (word, rest) = rest.split_once(' ').context("a word alone")?;
        let (name, text) = rest.split_once(' ').context("a name alone")?;
        ensure!(is_name(name), "{name:?} is no name");
        if name != current {
            let is_new = !families.contains_key(name);
            ensure!(is_new, "the lines of {name} are not together");
            name.clone_into(current);
        }
        let family = families.entry(name.to_owned()).or_default();
        ensure!(family.series.is_empty(), "it comes after values");
        let text = text.to_owned();
        let before = match word {
            "HELP" => family.help.replace(text),
            "UNIT" => family.unit.replace(text),
            "TYPE" if family.kind.is_empty() => {
                family.kind = text;
                None
            }
            other => bail!("{other} has no place here"),
        };
        ensure!(before.is_none(), "{word} is there twice");
        return Ok(());
    }
    let series = read_series(line)?;
    let family = families.get_mut(current).context("a value of nothing")?;
    let end = series.name.strip_prefix(current.as_str());
    let end = end.with_context(|| format!("it stands among the lines of {current}"))?;
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_count", "_sum"],
        other => bail!("{other} is no kind that is expected here"),
    };
    ensure!(allowed.contains(&end), "a {} ends otherwise", family.kind);
    let is_twice = family
        .series
        .iter()
        .any(|one| (&one.name, &one.labels) == (&series.name, &series.labels));
    ensure!(!is_twice, "it is there twice");
    family.series.push(series);
    Ok(())
}

fn read_series(line: &str) -> Result<Series> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name), "{name:?} is no name");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest
        .strip_prefix(' ')
        .context("no space before the value")?;
    ensure!(!value.contains(' '), "more than a value");
    let number: f64 = value.parse().context("no number")?;
    ensure!(!number.is_nan(), "not a number");
    Ok(Series {
        name: name.to_owned(),
        labels,
        value: number,
    })
}

/// The labels, and what follows the brace.
fn read_labels(text: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        let is_label = is_name(name) && !name.contains(':') && !name.starts_with("__");
        ensure!(is_label, "{name:?} is no label");
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().context("a value without an end")? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, one @ ('"' | '\\'))) => one,
                    other => bail!("{other:?} is no escape"),
                }),
                (_, one) => value.push(one),
            }
        };
        let before = labels.insert(name.to_owned(), value);
        ensure!(before.is_none(), "the label {name} is there twice");
        rest = &after[end + 1..];
        match rest.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", more)) => return Ok((labels, more)),
            _ => bail!("the labels do not end"),
        }
    }
}

/// What holds of a metric as a whole.
fn check(name: &str, family: &Family) -> Result<()> {
    ensure!(!family.kind.is_empty(), "it has no type");
    ensure!(family.help.is_some(), "it does not say what it is");
    ensure!(!family.series.is_empty(), "it has no value");
    ensure!(
        !name.ends_with("_total"),
        "its suffix belongs to its series"
    );
    if let Some(unit) = &family.unit {
        ensure!(name.ends_with(&format!("_{unit}")), "its unit is {unit}");
    }
    let names: BTreeSet<Vec<&String>> = family
        .series
        .iter()
        .map(|one| one.labels.keys().filter(|label| *label != "le").collect())
        .collect();
    ensure!(names.len() == 1, "its series have different labels");
    for series in &family.series {
        let grows = family.kind == "counter" || family.kind == "histogram";
        ensure!(!grows || series.value >= 0.0, "{series:?} is negative");
        if family.kind == "info" {
            ensure!((series.value - 1.0).abs() < f64::EPSILON, "it is not 1");
        }
    }
    if family.kind == "histogram" {
        check_histogram(name, family)?;
    }
    Ok(())
}

fn check_histogram(name: &str, family: &Family) -> Result<()> {
    let mut by_labels: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    let buckets = family
        .series
        .iter()
        .filter(|one| one.name.ends_with("_bucket"));
    for bucket in buckets {
        let mut labels = bucket.labels.clone();
        let bound = labels.remove("le").context("a bucket without a bound")?;
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            ensure!(
                bound.contains(['.', 'e']),
                "{bound} is not written as a number with a point"
            );
            bound.parse()?
        };
        by_labels
            .entry(labels)
            .or_default()
            .push((bound, bucket.value));
    }
    for (labels, buckets) in by_labels {
        let grows = buckets
            .windows(2)
            .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        ensure!(grows, "its buckets do not grow: {buckets:?}");
        let (bound, all) = buckets.last().copied().context("no buckets")?;
        ensure!(bound.is_infinite(), "its last bucket is not +Inf");
        for end in ["_count", "_sum"] {
            let series = family
                .series
                .iter()
                .find(|one| one.name == format!("{name}{end}") && one.labels == labels);
            let value = series.with_context(|| format!("no {end}"))?.value;
            let fits = end == "_sum" || (value - all).abs() < f64::EPSILON;
            ensure!(fits, "its count is {value} and its last bucket {all}");
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|one| one.is_ascii_alphabetic() || one == '_' || one == ':')
        && text
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || one == '_' || one == ':')
}

#[cfg(test)]
mod tests {
    use super::Exposition;

    const GOOD: &str = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
        a_seconds_sum 1.5\na_seconds_count 2\na_seconds_bucket{le=\"1.0\"} 1\na_seconds_bucket{le=\"+Inf\"} 2\n\
        # HELP b Number.\n# TYPE b counter\nb_total{by=\"x\\\"\\\\\\n\"} 3\n# EOF\n";

    #[test]
    fn what_is_right_is_read() {
        let read = Exposition::read(GOOD).unwrap();
        assert_eq!(read.value("b_total", &[("by", "x\"\\\n")]), Some(3.0));
        assert_eq!(read.families["a_seconds"].unit.as_deref(), Some("seconds"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("b_total{", "b{"),
            ("# TYPE b counter\n", ""),
            ("# HELP b Number.\n", ""),
            ("count 2", "count 3"),
            ("{le=\"1.0\"} 1", "{le=\"1.0\"} 3"),
            ("{le=\"1.0\"}", "{le=\"1\"}"),
            ("le=\"+Inf\"", "le=\"2.0\""),
            ("} 3\n", "} 3\nb_total{by=\"x\\\"\\\\\\n\"} 3\n"),
            ("} 3\n", "} three\n"),
            ("} 3\n", "} -3\n"),
            ("by=\"x", "by=x"),
            ("UNIT a_seconds seconds", "UNIT a_seconds bytes"),
            (
                "# HELP b Number.\n",
                "a_seconds_sum{x=\"1\"} 1.5\n# HELP b Number.\n",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert!(Exposition::read(&text).is_err(), "{text}");
        }
    }
}
