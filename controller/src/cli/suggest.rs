//! What somebody may have meant who misspelt a name: the closest ones among those that he may see.

use serde_json::Value;

use super::{
    client::{Client, encode},
    deployments,
    failure::{Failure, Problem},
    licenses, releases, view,
};

/// Things that are looked through for a similar name at most.
const ITEMS_MAX: usize = 5_000;
/// Names suggested at most.
const NAMES_MAX: usize = 3;
/// Lists whose things have their id behind the path.
const LISTS: [&str; 7] = [
    deployments::PATH,
    licenses::PATH,
    releases::PATH,
    TENANTS,
    AGENTS,
    REGIONS,
    "/api/v1/tokens",
];
const TENANTS: &str = "/api/v1/tenants";
const AGENTS: &str = "/api/v1/agents";
const REGIONS: &str = "/api/v1/regions";

/// The names closest to a word, best first; none when none is close. Upper and lower case are the same.
pub(crate) fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    // A third of the letters may be wrong; of short words two, so that swapped and doubled letters are found.
    let limit = (letters / 3).clamp(1, 6).max(usize::from(letters > 3) * 2);
    let mut found: Vec<(usize, &str)> = names
        .filter(|name| name.chars().count().abs_diff(letters) <= limit || name.starts_with(&word))
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &lower);
            let is_beginning = letters >= 3 && lower.starts_with(&word);
            (distance <= limit || is_beginning).then_some((distance, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .take(NAMES_MAX)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Adds to "no such thing" what may have been meant. Whatever goes wrong on the way leaves the failure as it is.
pub(crate) async fn for_missing(client: &Client, failure: Failure) -> Failure {
    match failure {
        Failure::NotFound(mut problem) => {
            // What a body or a query names is said in words only.
            if let Some((list, id)) = missing(&problem).or_else(|| told(&problem.detail)) {
                problem.meant = similar(client, list, &id).await;
            }
            Failure::NotFound(problem)
        }
        other => other,
    }
}

/// That there is no such tenant, with what may have been meant; nothing when there is one or nobody can tell.
pub(crate) async fn missing_tenant(client: &Client, id: &str) -> Option<Failure> {
    match client.thing(&format!("{TENANTS}/{}", encode(id))).await {
        Err(missing @ Failure::NotFound(_)) => Some(for_missing(client, missing).await),
        _ => None,
    }
}

/// The list in which a thing is missing, and its id there.
fn missing(problem: &Problem) -> Option<(&'static str, String)> {
    let path = problem.path.split('?').next()?;
    LISTS.iter().find_map(|list| {
        let rest = path.strip_prefix(list)?.strip_prefix('/')?;
        let parts = if *list == releases::PATH { 2 } else { 1 };
        let id = rest.split('/').take(parts).collect::<Vec<_>>().join("/");
        Some((*list, id))
    })
}

/// The same from what the API says: `there is no tenant demo-ips`.
fn told(detail: &str) -> Option<(&'static str, String)> {
    let (kind, id) = detail.strip_prefix("there is no ")?.split_once(' ')?;
    let list = match kind {
        "deployment" => deployments::PATH,
        "tenant" => TENANTS,
        "agent" => AGENTS,
        "region" => REGIONS,
        _ => return None,
    };
    (!id.is_empty() && !id.contains(' ')).then(|| (list, encode(id)))
}

/// Names of a list that are close to this one, as it stands in an address.
pub(crate) async fn similar(client: &Client, list: &str, id: &str) -> Vec<String> {
    let items = client.list(list, ITEMS_MAX).await.unwrap_or_default();
    let names: Vec<String> = items.iter().flat_map(names).collect();
    // Names are compared as they stand in an address.
    let encoded: Vec<String> = names
        .iter()
        .map(|name| name.split('/').map(encode).collect::<Vec<_>>().join("/"))
        .collect();
    let close = closest(id, encoded.iter().map(String::as_str));
    let original = |close: &String| encoded.iter().position(|one| one == close);
    close
        .iter()
        .filter_map(|one| Some(names.get(original(one)?)?.replace('/', ":")))
        .collect()
}

/// What a thing is called by: its id, and for deployments the tenant's as well.
fn names(item: &Value) -> Vec<String> {
    let text = |name: &str| Some(view::text(item, name)).filter(|text| !text.is_empty());
    match (text("id"), text("name"), text("version")) {
        (Some(id), ..) => [Some(id), text("tenant_id")]
            .into_iter()
            .flatten()
            .collect(),
        (None, Some(name), Some(version)) => vec![format!("{name}/{version}")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{closest, missing, told};
    use crate::cli::failure::Problem;

    #[test]
    fn slips_of_the_finger_are_found_and_strangers_are_not() {
        let names = [
            "demo-isp-0190a1b2",
            "other-isp-0190ffff",
            "do-fra1",
            "byov-lagos",
            "aws-eu-west-1",
        ];
        let close = |word: &str| closest(word, names.into_iter());
        assert_eq!(close("demo-ips-0190a1b2"), ["demo-isp-0190a1b2"]);
        assert_eq!(close("do-far1"), ["do-fra1"]);
        assert_eq!(close("DO-FRA1"), ["do-fra1"]);
        assert_eq!(close("demo-isp"), ["demo-isp-0190a1b2"]);
        assert_eq!(close("mars"), Vec::<String>::new());
        assert_eq!(close(""), Vec::<String>::new());
    }

    #[test]
    fn the_list_of_a_missing_thing_is_known_from_the_path() {
        let of = |path: &str| {
            missing(&Problem {
                path: path.into(),
                ..Problem::default()
            })
        };
        let deployments = super::deployments::PATH;
        assert_eq!(
            of(&format!("{deployments}/x/scale?dry_run=true")),
            Some((deployments, "x".into()))
        );
        assert_eq!(
            of("/api/v1/releases/demo/1.0/retire"),
            Some(("/api/v1/releases", "demo/1.0".into()))
        );
        assert_eq!(of("/api/v1/whoami"), None);
        assert_eq!(of("/api/v1/tokens"), None);
        let of_body = Some((super::TENANTS, "demo-ips".into()));
        assert_eq!(told("there is no tenant demo-ips"), of_body);
        assert_eq!(told("there is no stream x"), None);
    }
}
