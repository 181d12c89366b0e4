//! What of a licence can be changed, and the body that this becomes. What the values may be is decided by the API alone.

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::failure::Failure;

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct Fields {
    /// free, basic, premium, professional or enterprise
    #[arg(long, visible_alias = "license-tier")]
    tier: Option<String>,
    /// Subscribers at most
    #[arg(long)]
    max_subscribers: Option<u64>,
    /// Services at most
    #[arg(long)]
    max_services: Option<u64>,
    /// Calls of its API a minute at most
    #[arg(long)]
    api_rate_limit: Option<u64>,
    /// When it ends: 2030-01-01T12:00:00+01:00, or 2030-01-01 for 00:00 UTC of that day; `never`: it does not
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Days of grace after its end
    #[arg(long)]
    grace_days: Option<u64>,
}

impl Fields {
    /// What is given, as the API takes it.
    pub(super) fn body(&self) -> Value {
        let numbers = [
            ("max_subscribers", self.max_subscribers),
            ("max_services", self.max_services),
            ("api_rate_limit", self.api_rate_limit),
            ("grace_days", self.grace_days),
        ];
        let given = |(name, value): (&str, Option<u64>)| Some((name.to_owned(), value?.into()));
        let mut body: Map<String, Value> = numbers.into_iter().filter_map(given).collect();
        if let Some(tier) = &self.tier {
            body.insert("license_tier".into(), tier.as_str().into());
        }
        if let Some(end) = &self.expires_at {
            body.insert("expires_at".into(), moment(end));
        }
        Value::Object(body)
    }

    /// What moment the end was understood as, for the plan; nothing when it is not changed or is none at all.
    pub(super) fn end(&self) -> String {
        let Some(end) = &self.expires_at else {
            return String::new();
        };
        match moment(end) {
            Value::String(text) => match text.parse::<jiff::Timestamp>() {
                Ok(moment) => format!(", which ends at {moment}"),
                Err(_) => String::new(),
            },
            _ => ", which never ends".to_owned(),
        }
    }
}

/// An end as the API takes it: a date alone is its first moment in UTC, `never` is null.
fn moment(end: &str) -> Value {
    let is_date = end.len() == 10 && end.parse::<jiff::civil::Date>().is_ok();
    match end {
        "never" => Value::Null,
        date if is_date => format!("{date}T00:00:00Z").into(),
        time => time.into(),
    }
}

/// What the API allows, as the option of this command line takes it.
pub(super) fn in_words_of_the_option(mut failure: Failure) -> Failure {
    if let Failure::Refused(problem) = &mut failure {
        let ends = problem.errors.iter_mut();
        for error in ends.filter(|error| error.field == "expires_at") {
            if let Some(allowed) = error.allowed.as_str() {
                let ours = "a date such as 2027-01-31, or `never`";
                error.allowed = allowed.replace("or null", ours).into();
            }
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::{Failure, Fields, in_words_of_the_option};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fields: Fields,
    }

    fn parse(line: &str) -> Fields {
        Line::try_parse_from(line.split(' ')).ok().unwrap().fields
    }

    #[test]
    fn only_what_is_given_is_changed_and_never_is_no_end() {
        let body = |line: &str| parse(line).body();
        let line = "update --tier premium --max-subscribers 5000 --expires-at 2030-01-01T00:00:00Z";
        let expected = json!({"license_tier": "premium", "max_subscribers": 5000,
            "expires_at": "2030-01-01T00:00:00Z"});
        assert_eq!(body(line), expected);
        let never = body("update --expires-at never --grace-days 0");
        assert_eq!(never, json!({"expires_at": null, "grace_days": 0}));
    }

    #[test]
    fn what_the_api_allows_is_told_in_words_of_the_option() {
        let allowed = "a time such as 2027-01-31T12:00:00Z, from the year 2000 to 8999, or null";
        let problem = json!({"status": 422, "detail": "no", "errors": [
            {"field": "expires_at", "value": "soon", "allowed": allowed}]});
        let failure = Failure::of(serde_json::from_value(problem).unwrap());
        let said = in_words_of_the_option(failure).to_string();
        assert!(
            said.contains("2027-01-31, or `never`") && !said.contains("null"),
            "{said}"
        );
    }

    #[test]
    fn a_date_is_its_first_moment_in_utc_and_the_plan_says_which_moment_was_understood() {
        for (given, sent, said) in [
            (
                "2027-01-01",
                json!("2027-01-01T00:00:00Z"),
                ", which ends at 2027-01-01T00:00:00Z",
            ),
            (
                "2027-01-01T01:30:00+01:00",
                json!("2027-01-01T01:30:00+01:00"),
                ", which ends at 2027-01-01T00:30:00Z",
            ),
            ("never", json!(null), ", which never ends"),
            ("2027-02-30", json!("2027-02-30"), ""),
            ("20270101", json!("20270101"), ""),
            ("soon", json!("soon"), ""),
        ] {
            let fields = parse(&format!("update --expires-at {given}"));
            let found = (fields.body()["expires_at"].clone(), fields.end());
            assert_eq!(found, (sent, said.to_owned()), "{given}");
        }
    }
}
