//! One deployment as a file wants it: which one is meant, and its fields. Unknown fields, wrong kinds and numbers that
//! contradict each other are told with their line; what a value may be is otherwise decided by the API alone.

use std::collections::BTreeMap;

use dotmac_domain::tier;
use serde_json::{Map, Value};

use super::{
    document::{Fault, Kind, Node},
    fields::{self, Field, Sort},
    secret,
};
use crate::cli::suggest;

/// Deployments of one file at most.
const ITEMS_MAX: usize = 5_000;
/// Members under which a list of deployments may stand.
const LISTS: [&str; 2] = ["deployments", "items"];
/// The environment of an item that names none.
const ENVIRONMENT: &str = "production";

/// A deployment as it should be.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it begins.
    pub(super) line: u64,
    /// Which one is meant.
    pub(super) who: Who,
    /// Every field but those that say which one is meant.
    pub(super) fields: BTreeMap<&'static str, Value>,
    lines: BTreeMap<&'static str, u64>,
    /// What is allowed, and perhaps not meant.
    pub(super) remarks: Vec<Fault>,
}

/// Which deployment is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// This one, which exists.
    Id(String),
    /// The one of this tenant for this environment.
    Tenant { id: String, environment: String },
    /// The one of the only tenant of this name for this environment.
    Name { name: String, environment: String },
}

impl Who {
    /// For people.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Id(id) => id.clone(),
            Self::Tenant { id, environment } => format!("{id} ({environment})"),
            Self::Name { name, environment } => format!("{name} ({environment})"),
        }
    }
}

impl Item {
    /// The line of a field, or where the item begins.
    pub(super) fn line_of(&self, field: &str) -> u64 {
        let first = field.split('.').next().unwrap_or(field);
        self.lines.get(first).copied().unwrap_or(self.line)
    }

    /// A field as text.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    /// A field as a number.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field)?.as_u64()
    }

    /// Takes it that the fields of this request are as they should be.
    pub(super) fn settle(&mut self, body: &Value) {
        let settled = body.as_object();
        self.fields
            .retain(|name, _| !settled.is_some_and(|body| body.contains_key(*name)));
    }

    /// Whether it should be stopped; nothing when the file does not say.
    pub(super) fn is_suspended(&self) -> Option<bool> {
        self.text("state").map(|state| state == "suspended")
    }
}

/// Reads every deployment of some documents.
///
/// # Errors
/// With everything that is wrong.
pub(super) fn read(documents: &[Node]) -> Result<Vec<Item>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut items = Vec::new();
    for node in documents.iter().flat_map(entries) {
        match &node.kind {
            Kind::Map(members) => items.extend(item(node.line, members, &mut faults)),
            Kind::Scalar(Value::Null) => {}
            _ => faults.push(Fault::new(node.line, "a deployment is a mapping of fields")),
        }
    }
    if items.len() > ITEMS_MAX {
        let what = format!("more than {ITEMS_MAX} deployments: take several files");
        faults.push(Fault::new(1, what));
    }
    faults.extend(doubles(&items));
    if items.is_empty() && faults.is_empty() {
        faults.push(Fault::new(1, "no deployment is in it"));
    }
    if faults.is_empty() {
        return Ok(items);
    }
    faults.sort_by_key(|fault| fault.line);
    Err(faults)
}

/// The deployments of a document, which is one, a list of them, or a list under a name.
fn entries(document: &Node) -> Vec<&Node> {
    match &document.kind {
        Kind::List(items) => items.iter().collect(),
        Kind::Map(members) => match &members[..] {
            [(name, _, inner)] if LISTS.contains(&name.as_str()) => entries(inner),
            _ => vec![document],
        },
        Kind::Scalar(_) => vec![document],
    }
}

fn item(line: u64, members: &[(String, u64, Node)], faults: &mut Vec<Fault>) -> Option<Item> {
    let (mut fields, mut lines, mut remarks) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (name, at, node) in members {
        let Some(field) = fields::find(name) else {
            faults.push(Fault::new(*at, unknown(name)));
            continue;
        };
        if field.sort == Sort::Config {
            remarks.extend(open_secrets(field.name, node));
        }
        match value(field, node) {
            Ok(value) => {
                fields.insert(field.name, value);
                lines.insert(field.name, *at);
            }
            Err(fault) => faults.push(fault),
        }
    }
    let who = who(&mut fields).map_err(|what| faults.push(Fault::new(line, what)));
    let item = Item {
        line,
        who: who.ok()?,
        fields,
        lines,
        remarks,
    };
    faults.extend(contradictions(&item));
    Some(item)
}

fn open_secrets(name: &str, node: &Node) -> Vec<Fault> {
    let found = secret::open_secrets(name, node).into_iter();
    let remark =
        |path| format!("{path} looks like a secret: {{from_env: NAME}} keeps it out of the file");
    found
        .map(|(line, path)| Fault::new(line, remark(path)))
        .collect()
}

fn unknown(name: &str) -> String {
    if let Some(hint) = fields::hint(name) {
        return format!("`{name}` cannot be asked for: {hint}");
    }
    let known = fields::FIELDS.iter().map(|field| field.name);
    match suggest::closest(name, known).into_iter().next() {
        Some(meant) => format!("unknown field `{name}`; did you mean `{meant}`?"),
        None => format!("unknown field `{name}`; `dotmac apply --example` shows all"),
    }
}

/// A field's value, if it is of the field's sort.
fn value(field: &Field, node: &Node) -> Result<Value, Fault> {
    let name = field.name;
    let wrong = |what: String| Err(Fault::new(node.line, format!("{name}: {what}")));
    let value = node.value();
    match (field.sort, &value) {
        (_, Value::Null) => wrong("it has no value; leave the field out, or give it one".into()),
        (Sort::Text, Value::String(_)) | (Sort::Switches | Sort::Members, Value::Object(_)) => {
            Ok(value)
        }
        (Sort::Text, Value::Number(_) | Value::Bool(_)) => {
            wrong(format!("a text is wanted: write \"{value}\" in quotes"))
        }
        (Sort::Count, Value::Number(number)) if number.is_u64() => Ok(value),
        (Sort::State, Value::String(state)) if fields::STATES.contains(&state.as_str()) => {
            Ok(value)
        }
        (Sort::Config, Value::Object(_)) => secret::fill_in(name, node),
        (Sort::Secret, Value::Object(_)) => secret::read(name, node),
        (Sort::Secret, _) => wrong(
            "no secret belongs into a file: write {from_env: NAME} or {from_file: PATH}".into(),
        ),
        (sort, _) => wrong(format!("{} is wanted", sort.wanted())),
    }
}

fn who(fields: &mut BTreeMap<&'static str, Value>) -> Result<Who, String> {
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let environment = take("environment");
    if let Some(id) = take("id") {
        return match environment.or(take("tenant_id")) {
            None => Ok(Who::Id(id)),
            Some(_) => {
                Err("`id` says which one is meant: leave `tenant_id` and `environment` out".into())
            }
        };
    }
    let tenant = take("tenant_id");
    let environment = environment.unwrap_or_else(|| ENVIRONMENT.to_owned());
    if let Some(id) = tenant {
        return Ok(Who::Tenant { id, environment });
    }
    let name = take("tenant_name");
    let name = name.ok_or(
        "which one is it? Give `tenant_name` or `tenant_id` (with `environment`), or `id`",
    )?;
    let name = name.trim().to_owned();
    Ok(Who::Name { name, environment })
}

/// Numbers that cannot all be true, as far as the file alone tells.
fn contradictions(item: &Item) -> Vec<Fault> {
    let custom = item
        .fields
        .get("resources")
        .and_then(|one| one["max_replicas"].as_u64());
    let tier = item.text("resource_tier");
    let tier_max = match tier.and_then(tier::resource_tier) {
        Some(tier) => Some(u64::from(tier.max_replicas)),
        None => custom,
    };
    let number = |name: &str| item.number(name);
    let mut faults = Vec::new();
    let mut check = |name: &str, least: Option<u64>, most: Option<u64>, bound: &str| {
        let Some(value) = number(name) else { return };
        if most.is_some_and(|most| value > most) || least.is_some_and(|least| value < least) {
            let limit = most.or(least).unwrap_or_default();
            let what = format!("{name}: {value} contradicts {bound} {limit}");
            faults.push(Fault::new(item.line_of(name), what));
        }
    };
    for name in ["replicas", "min_replicas", "max_replicas"] {
        check(name, None, tier_max, "the tier's maximum of");
    }
    check("replicas", None, number("max_replicas"), "max_replicas");
    check("replicas", number("min_replicas"), None, "min_replicas");
    check("min_replicas", None, number("max_replicas"), "max_replicas");
    faults
}

/// Items that mean the same deployment.
fn doubles(items: &[Item]) -> Vec<Fault> {
    let mut first: BTreeMap<&Who, u64> = BTreeMap::new();
    let mut faults = Vec::new();
    for item in items {
        match first.get(&item.who) {
            Some(line) => {
                let what = format!("{} is already in line {line}", item.who.title());
                faults.push(Fault::new(item.line, what));
            }
            None => drop(first.insert(&item.who, item.line)),
        }
    }
    faults
}

/// The members of a creation besides who is meant.
pub(super) fn order(item: &Item) -> Map<String, Value> {
    let fields = item.fields.iter();
    let asked =
        fields.filter(|(name, _)| fields::find(name).is_some_and(|field| field.at_creation));
    asked
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Item, Who, order, read};
    use crate::cli::apply::document::{self, Fault};

    fn items(text: &str) -> Result<Vec<Item>, Vec<Fault>> {
        read(&document::read(text).unwrap())
    }

    fn faults(text: &str) -> Vec<String> {
        let faults = items(text).unwrap_err();
        faults
            .into_iter()
            .map(|fault| format!("{}: {}", fault.line, fault.what))
            .collect()
    }

    #[test]
    fn one_document_several_or_a_list_are_the_same() {
        let one = "tenant_name: A\nregion: do-fra1\n";
        for text in [
            format!("{one}---\ntenant_name: B\n"),
            "- tenant_name: A\n  region: do-fra1\n- tenant_name: B\n".to_owned(),
            "deployments:\n- {tenant_name: A, region: do-fra1}\n- {tenant_name: B}\n".to_owned(),
            r#"{"items": [{"tenant_name": "A", "region": "do-fra1"}, {"tenant_name": "B"}]}"#
                .to_owned(),
        ] {
            let items = items(&text).unwrap();
            let names: Vec<String> = items.iter().map(|item| item.who.title()).collect();
            assert_eq!(names, ["A (production)", "B (production)"], "{text}");
            assert_eq!(json!(order(&items[0])), json!({"region": "do-fra1"}));
        }
    }

    #[test]
    fn wrong_fields_are_named_with_line_and_suggestion() {
        let text = "tenant_name: A\nresource_teir: small\nstatus: suspended\nimage_tag: 1.0\nreplicas: two\n\
                    database_url: postgres://u:p@h/d\ndomain_name:\n";
        let said = faults(text);
        assert_eq!(said.len(), 6, "{said:?}");
        assert_eq!(
            said[0],
            "2: unknown field `resource_teir`; did you mean `resource_tier`?"
        );
        assert!(
            said[1].starts_with("3: `status` cannot be asked for: "),
            "{said:?}"
        );
        assert_eq!(
            said[2],
            "4: image_tag: a text is wanted: write \"1.0\" in quotes"
        );
        assert_eq!(said[3], "5: replicas: a number is wanted");
        assert!(
            said[4].starts_with("6: database_url: no secret belongs"),
            "{said:?}"
        );
        assert!(!said.concat().contains("u:p"), "{said:?}");
        assert!(
            said[5].starts_with("7: domain_name: it has no value"),
            "{said:?}"
        );
    }

    #[test]
    fn numbers_that_contradict_each_other_are_told_before_anybody_is_asked() {
        let said = faults(
            "tenant_name: A\nresource_tier: small\nreplicas: 4\nmin_replicas: 3\nmax_replicas: 2\n",
        );
        assert_eq!(
            said,
            [
                "3: replicas: 4 contradicts the tier's maximum of 3",
                "3: replicas: 4 contradicts max_replicas 2",
                "4: min_replicas: 3 contradicts max_replicas 2",
            ]
        );
    }

    #[test]
    fn who_is_meant_is_said_once_and_by_one_item_only() {
        let item = &items("tenant_id: a-00000000\nenvironment: staging\n").unwrap()[0];
        let expected = Who::Tenant {
            id: "a-00000000".into(),
            environment: "staging".into(),
        };
        assert_eq!(item.who, expected);
        assert_eq!(
            faults("- tenant_name: A\n- region: x\n  tenant_name: A\n"),
            ["2: A (production) is already in line 1"]
        );
        assert!(faults("region: do-fra1\n")[0].starts_with("1: which one is it?"));
        assert!(faults("id: x\nenvironment: staging\n")[0].contains("leave `tenant_id`"));
        assert_eq!(faults("# nothing\n"), ["1: no deployment is in it"]);
    }
}
