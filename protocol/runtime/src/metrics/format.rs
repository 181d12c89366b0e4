//! The two texts in which metrics are asked for: OpenMetrics 1.0, and the older one of Prometheus for whoever prefers it.

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Classic,
}

impl Format {
    /// What an `Accept` header prefers; OpenMetrics when it does not say.
    #[must_use]
    pub fn preferred(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                is_it.then(|| quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0)))
            });
            ranges.reduce(f32::max)
        };
        let new = quality("application/openmetrics-text").or_else(|| quality("*/*"));
        match (new, quality("text/plain")) {
            (new, Some(old)) if old > new.unwrap_or(0.0) => Self::Classic,
            _ => Self::OpenMetrics,
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub(super) fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Classic => classic(&openmetrics),
        }
    }
}

/// The older text names the series where OpenMetrics names the metric, and knows neither units nor info nor an end.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (end, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{end} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{end} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Format, classic};

    #[test]
    fn each_gets_what_he_prefers() {
        let new = Format::OpenMetrics;
        for (accept, expected) in [
            ("", new),
            ("*/*", new),
            ("application/json", new),
            ("text/plain", Format::Classic),
            ("text/plain;version=0.0.4", Format::Classic),
            (
                "text/plain;q=0.5, application/openmetrics-text; q=0.4",
                Format::Classic,
            ),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
              text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                new,
            ),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Classic),
        ] {
            assert_eq!(Format::preferred(accept), expected, "{accept}");
        }
    }

    #[test]
    fn the_older_text_names_series() {
        let text = "# HELP a_bytes Help me.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n\
                    # HELP b B.\n# TYPE b info\nb_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_bytes_total Help me.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
                        # HELP b_info B.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n";
        assert_eq!(classic(text), expected);
    }
}
