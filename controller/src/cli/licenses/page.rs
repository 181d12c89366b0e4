//! A licence for people: what it is now, until when, what it grants, and how much of it is used.

use serde_json::Value;

use crate::cli::{failure::Failure, find::Context, output::duration, view};

/// Members shown, in order, with their headings.
const MEMBERS: [(&str, &str); 13] = [
    ("id", "id"),
    ("tenant_id", "tenant"),
    ("tenant_name", "name"),
    ("environment", "environment"),
    ("status", "status"),
    ("reason", "reason"),
    ("since", "since"),
    ("license_tier", "tier"),
    ("max_subscribers", "subscribers"),
    ("max_services", "services"),
    ("api_rate_limit", "api calls"),
    ("expires_at", "expires"),
    ("restricted_at", "restricted"),
];

/// Writes a licence as a page or as data.
pub(super) fn print(context: &Context, license: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(license);
    }
    context.output.line(&page(license))
}

fn page(license: &Value) -> String {
    let mut shown = license.clone();
    shown["max_subscribers"] = limit(license).into();
    let mut page = view::page(&shown, &MEMBERS);
    if license["expires_at"].is_null() {
        page.push_str("\nexpires      never");
    }
    if license["active_subscribers"].is_u64() {
        let used = used(license);
        page.push_str(&format!(
            "\nused         {used}, by the instance's own count"
        ));
    }
    let features = license["features"].as_object().into_iter().flatten();
    let granted: Vec<&str> = features
        .filter(|(_, is_on)| **is_on == true)
        .map(|(name, _)| name.as_str())
        .collect();
    if !granted.is_empty() {
        page.push_str(&format!("\nfeatures     {}", granted.join(", ")));
    }
    page
}

/// The subscribers that an instance may have: what it is served, and while that is less what its license grants.
pub(super) fn limit(license: &Value) -> String {
    let granted = view::text(license, "max_subscribers");
    match restricted(license) {
        Some(served) => format!("{served} of {granted} (restricted)"),
        None => granted,
    }
}

/// How much is used of what the instance is served. The percent are the API's.
pub(crate) fn used(usage: &Value) -> String {
    let text = |name: &str| view::text(usage, name);
    let (active, granted) = (text("active_subscribers"), text("max_subscribers"));
    let percent = text("limit_used_percent");
    match restricted(usage) {
        Some(served) => {
            format!(
                "{active} of {served} subscribers ({percent} %, restricted: its license grants {granted})"
            )
        }
        None => format!("{active} of {granted} subscribers ({percent} %)"),
    }
}

/// The subscribers that an instance is served, where that is less than its license grants.
fn restricted(one: &Value) -> Option<u64> {
    let served = one["effective_max_subscribers"].as_u64()?;
    (served < one["max_subscribers"].as_u64()?).then_some(served)
}

/// The `license` of a deployment or tenant in a few words; empty when it has none.
pub(crate) fn short(thing: &Value) -> String {
    let license = &thing["license"];
    let status = view::text(license, "status");
    match view::time(license, "expires_at") {
        _ if status.is_empty() => status,
        never if never.is_empty() => status,
        end if ["grace", "restricted"].contains(&status.as_str()) => {
            format!("{status}, ended {end}")
        }
        end => format!("{status}, ends {end}"),
    }
}

/// The `usage` of a deployment or tenant in a few words; empty before its first count.
pub(crate) fn usage(thing: &Value, now_ms: u64) -> String {
    let usage = &thing["usage"];
    if !usage.is_object() {
        return String::new();
    }
    let ago = view::millis(&usage["received_at"])
        .map(|at| format!(", told {} ago", duration(now_ms.saturating_sub(at))));
    used(usage) + &ago.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{page, short, usage};

    #[test]
    fn a_page_says_what_is_used_and_whose_count_it_is() {
        let license = json!({"id": "demo", "status": "restricted", "license_tier": "basic",
            "max_subscribers": 1000, "expires_at": "2026-01-01T00:00:00Z", "active_subscribers": 950,
            "limit_used_percent": 95, "features": {"api_access": false, "simple_billing": true}});
        let page = page(&license);
        let used = "used         950 of 1000 subscribers (95 %), by the instance's own count";
        assert!(
            page.contains("status       restricted") && page.contains(used),
            "{page}"
        );
        assert!(page.contains("expires      202"), "{page}");
        assert!(page.ends_with("features     simple_billing"), "{page}");
    }

    #[test]
    fn a_restricted_license_shows_what_is_served_and_what_it_grants() {
        let license = json!({"status": "restricted", "max_subscribers": 2000, "effective_max_subscribers": 951,
            "active_subscribers": 950, "limit_used_percent": 99, "expires_at": null});
        let page = page(&license);
        let limit = "subscribers  951 of 2000 (restricted)\n";
        let used =
            "used         950 of 951 subscribers (99 %, restricted: its license grants 2000), by";
        assert!(page.contains(limit) && page.contains(used), "{page}");
        let mut valid = license;
        valid["effective_max_subscribers"] = 2000.into();
        let page = super::page(&valid);
        assert!(page.contains("subscribers  2000\n"), "{page}");
    }

    #[test]
    fn in_short_it_is_a_phase_its_end_and_what_is_used() {
        let thing = json!({"license": {"status": "valid", "expires_at": null},
            "usage": {"active_subscribers": 5, "max_subscribers": 10, "limit_used_percent": 50, "received_at": 1_000}});
        assert_eq!(short(&thing), "valid");
        assert_eq!(
            usage(&thing, 3_000),
            "5 of 10 subscribers (50 %), told 2000 ms ago"
        );
        let none = json!({"license": null, "usage": null});
        assert_eq!(
            (short(&none), usage(&none, 0)),
            (String::new(), String::new())
        );
        let ending = json!({"license": {"status": "grace", "expires_at": "2026-01-01T00:00:00Z"}});
        assert!(short(&ending).starts_with("grace, ended 202"));
    }
}
