//! Lists as every noun shows them: page after page until the bound, which is said when it cuts something off.

use clap::Args;
use serde_json::{Map, Value};

use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    suggest,
};

/// Items shown when nobody says how many.
const ITEMS_DEFAULT: usize = 10_000;
/// Items of a history shown when nobody says how many.
const NEWEST_DEFAULT: u32 = 20;
/// Items shown at most with `--all`.
const ITEMS_MAX: usize = 1_000_000;
/// Items asked for at a time.
const PAGE_ITEMS: usize = 500;
/// Pages without an item, as a list of something rare has them, that are read one after the other at most.
const EMPTY_PAGES_MAX: usize = 100;

/// Parameters of a list; those without a value are left out.
type Filters<'a> = &'a [(&'a str, Option<&'a str>)];
/// Makes an item a row of a table.
type Row<'a> = &'a dyn Fn(&Value) -> Vec<String>;

/// How much of a list is shown.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct Paging {
    /// Items shown at most [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Everything, however much it is
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// How much of a long history is shown, newest first.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct Newest {
    /// Items shown at most [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Everything, however much it is
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl From<Newest> for Paging {
    fn from(newest: Newest) -> Self {
        let Newest { limit, all } = newest;
        let usual = (!all).then_some(NEWEST_DEFAULT);
        Self {
            limit: limit.or(usual),
            all,
        }
    }
}

/// A list as it was read.
pub(crate) struct Listed {
    /// Its items.
    pub(crate) items: Vec<Value>,
    /// Where it goes on.
    pub(crate) next: Option<String>,
    /// What its first page says beside the items.
    pub(crate) beside: Map<String, Value>,
}

impl Listed {
    /// All of it, as one page.
    pub(crate) fn data(self) -> Value {
        let mut page = self.beside;
        page.insert("items".to_owned(), self.items.into());
        page.insert("next_cursor".to_owned(), self.next.into());
        Value::Object(page)
    }
}

impl Paging {
    fn bound(self) -> usize {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        match limit {
            Some(limit) => limit,
            None if self.all => ITEMS_MAX,
            None => ITEMS_DEFAULT,
        }
    }

    /// Reads a list with these parameters, page by page.
    pub(crate) async fn read(
        self,
        client: &Client,
        path: &str,
        filters: &[(&str, Option<&str>)],
    ) -> Result<Listed, Failure> {
        let bound = self.bound();
        let mut items: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        let mut beside: Option<Map<String, Value>> = None;
        let mut empty_pages = 0;
        loop {
            let wanted = (bound - items.len()).min(PAGE_ITEMS);
            let page: Value = client
                .get(&address(path, filters, wanted, cursor.as_deref()))
                .await?;
            let before = items.len();
            let found = page["items"]
                .as_array()
                .ok_or_else(|| Failure::foreign(path, "it is no list"))?;
            items.extend(found.iter().take(wanted).cloned());
            beside.get_or_insert_with(|| others(&page));
            let next = page["next_cursor"].as_str().map(str::to_owned);
            empty_pages = match items.len() == before {
                true => empty_pages + 1,
                false => 0,
            };
            let is_done = next.is_none() || next == cursor || empty_pages == EMPTY_PAGES_MAX;
            if is_done || items.len() >= bound {
                let beside = beside.unwrap_or_default();
                return Ok(Listed {
                    items,
                    next,
                    beside,
                });
            }
            cursor = next;
        }
    }

    /// Reads a list and shows it: whole for programs, as a table of `header` and `row` for people.
    pub(crate) async fn show(
        self,
        context: &Context,
        client: &Client,
        (path, filters): (&str, Filters<'_>),
        (header, row): (&[&str], Row<'_>),
        empty: &str,
    ) -> Result<(), Failure> {
        let listed = self.read(client, path, filters).await?;
        let output = context.output;
        let tenant = filters.iter().find(|(name, _)| *name == "tenant_id");
        if listed.items.is_empty()
            && let Some((_, Some(tenant))) = tenant
            && let Some(missing) = suggest::missing_tenant(client, tenant).await
        {
            output.note(&missing.to_string());
        }
        if output.is_data() {
            return output.data(&listed.data());
        }
        output.table(header, listed.items.iter().map(row).collect(), empty)?;
        match (listed.items.len(), &listed.next) {
            (_, None) => {}
            (0, Some(_)) => output.note("only so far as it was looked through: there is more"),
            (shown, Some(_)) => output.note(&format!("the first {shown}; --all shows the rest")),
        }
        Ok(())
    }
}

/// The members of a page but for the items and where it goes on.
fn others(page: &Value) -> Map<String, Value> {
    let members = page.as_object().into_iter().flatten();
    let own = members.filter(|(name, _)| !["items", "next_cursor"].contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn address(
    path: &str,
    filters: &[(&str, Option<&str>)],
    limit: usize,
    cursor: Option<&str>,
) -> String {
    let mut address = format!("{path}?limit={limit}");
    for (name, value) in filters.iter().chain(&[("cursor", cursor)]) {
        if let Some(value) = value {
            address.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use axum::{Json, Router, extract::Query, routing::get};

    use super::{EMPTY_PAGES_MAX, ITEMS_DEFAULT, NEWEST_DEFAULT, Newest, Paging, address, others};
    use crate::cli::client::tests::client_of;

    /// Reads a list whose only item is on this page; those before have none, and there is always a further one.
    async fn read(page: usize, limit: u32) -> (usize, Option<String>) {
        let answer = async move |Query(asked): Query<Vec<(String, String)>>| {
            let cursor = asked.iter().find(|(name, _)| name == "cursor");
            let at: usize = cursor.map_or(0, |(_, cursor)| cursor.parse().unwrap());
            let items = if at == page {
                vec![json!({"id": "x"})]
            } else {
                Vec::new()
            };
            Json(json!({"items": items, "next_cursor": (at + 1).to_string()}))
        };
        let client = client_of(Router::new().route("/things", get(answer))).await;
        let paging = Paging {
            limit: Some(limit),
            all: false,
        };
        let listed = paging.read(&client, "/things", &[]).await.ok().unwrap();
        (listed.items.len(), listed.next)
    }

    #[tokio::test]
    async fn what_is_rare_is_found_behind_empty_pages_of_which_only_so_many_are_read() {
        assert_eq!(read(3, 1).await, (1, Some("4".into())));
        let pages = EMPTY_PAGES_MAX.to_string();
        assert_eq!(read(EMPTY_PAGES_MAX, 1).await, (0, Some(pages)));
    }

    #[test]
    fn filters_and_cursors_become_parameters_that_cannot_break_out() {
        let filters = [("status_filter", Some("a&b")), ("tenant_id", None)];
        assert_eq!(
            address("/things", &filters, 5, Some("x/y")),
            "/things?limit=5&status_filter=a%26b&cursor=x%2Fy"
        );
    }

    #[test]
    fn a_list_is_bounded_even_when_nobody_says_how() {
        let limit = |limit| Paging { limit, all: false }.bound();
        assert_eq!((limit(Some(3)), limit(None)), (3, ITEMS_DEFAULT));
        let all = Paging {
            limit: None,
            all: true,
        };
        assert!(all.bound() > ITEMS_DEFAULT);
    }

    #[test]
    fn of_a_history_the_newest_are_shown_unless_all_is_wanted() {
        let bound = |limit, all| Paging::from(Newest { limit, all }).bound();
        let usual = usize::try_from(NEWEST_DEFAULT).unwrap();
        assert_eq!((bound(None, false), bound(Some(3), false)), (usual, 3));
        assert!(bound(None, true) > ITEMS_DEFAULT);
        let page = json!({"items": [1], "next_cursor": "1", "current": {"active_subscribers": 5}});
        assert_eq!(
            json!(others(&page)),
            json!({"current": {"active_subscribers": 5}})
        );
    }
}
