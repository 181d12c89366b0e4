//! What became of each item of a file: a line each for people, the same with every difference for programs.

use serde_json::{Value, json};

use super::item::{Item, Who};
use crate::cli::{failure::Failure, output::Output, plan::Difference};

/// Members shown in one line at most.
const CHANGES_MAX: usize = 6;

/// What becomes of an item.
#[derive(Debug)]
pub(super) enum Action {
    /// To be made, or made.
    Create,
    /// To be changed, or changed.
    Change,
    /// As it should be.
    Nothing,
    /// It could not be done.
    Fail(Failure),
    /// An earlier item ended the run.
    Skip,
}

/// One item's line.
#[derive(Debug)]
pub(super) struct Line {
    /// What is done, or was.
    pub(super) action: Action,
    /// Which one; empty while it has no id.
    pub(super) id: String,
    /// What is different.
    pub(super) changes: Vec<Difference>,
    /// Whether it was done, and not only foreseen.
    pub(super) is_done: bool,
}

impl Line {
    fn word(&self) -> &'static str {
        match (&self.action, self.is_done) {
            (Action::Create, false) => "create",
            (Action::Create, true) => "created",
            (Action::Change, false) => "change",
            (Action::Change, true) => "changed",
            (Action::Nothing, _) => "unchanged",
            (Action::Fail(_), _) => "failed",
            (Action::Skip, _) => "not tried",
        }
    }

    /// The line for people.
    fn text(&self, item: &Item) -> String {
        let title = match (self.id.as_str(), &item.who) {
            ("", who) => who.title(),
            (id, Who::Name { .. }) => format!("{} {id}", item.who.title()),
            (id, _) => id.to_owned(),
        };
        let detail = match &self.action {
            Action::Fail(failure) => format!(": {failure}"),
            Action::Change => format!(": {}", self.short()),
            _ => String::new(),
        };
        format!("{:<10} {title}{detail}", self.word())
    }

    fn short(&self) -> String {
        let lines = self.changes.iter().map(|one| one.line(false));
        let lines: Vec<String> = lines
            .map(|line| line.trim_start_matches([' ', '~']).to_owned())
            .collect();
        match lines.get(CHANGES_MAX..) {
            Some(rest) if !rest.is_empty() => {
                format!(
                    "{} and {} more",
                    lines[..CHANGES_MAX].join(", "),
                    rest.len()
                )
            }
            _ => lines.join(", "),
        }
    }

    fn data(&self, item: &Item) -> Value {
        let changes = self.changes.iter();
        let changes: Vec<Value> = changes
            .map(|one| json!({"field": one.field, "from": one.from, "to": one.to}))
            .collect();
        let failure = match &self.action {
            Action::Fail(failure) => Some((failure.to_string(), failure.code())),
            _ => None,
        };
        json!({
            "id": (!self.id.is_empty()).then_some(&self.id), "title": item.who.title(), "line": item.line,
            "action": self.word(), "changes": changes, "error": failure.as_ref().map(|(text, _)| text),
            "exit_code": failure.map_or(0, |(_, code)| code),
        })
    }
}

/// Writes the lines of all items.
pub(super) fn write(output: Output, all: &[(&Item, &Line)]) -> Result<(), Failure> {
    if output.is_data() {
        let items: Vec<Value> = all.iter().map(|(item, line)| line.data(item)).collect();
        return output.data(&json!({ "items": items }));
    }
    for (item, line) in all {
        output.line(&line.text(item))?;
    }
    Ok(())
}

/// The exit code of the worst failure; nothing when all went well.
pub(super) fn worst<'a>(lines: impl Iterator<Item = &'a Line>) -> Option<u8> {
    // From bad to worse; what is not listed is worst.
    const ORDER: [u8; 7] = [6, 7, 3, 4, 2, 1, 5];
    let codes = lines.filter_map(|line| match &line.action {
        Action::Fail(failure) => Some(failure.code()),
        _ => None,
    });
    codes.max_by_key(|code| {
        ORDER
            .iter()
            .position(|one| one == code)
            .unwrap_or(ORDER.len())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Action, Line, worst};
    use crate::cli::{
        apply::{document, item},
        failure::Failure,
        plan::between,
    };

    fn line(action: Action) -> Line {
        let changes = between(
            &json!({"replicas": 1, "a": 1}),
            &json!({"replicas": 2, "a": 1, "b": true}),
        );
        Line {
            action,
            id: "a-1".into(),
            changes,
            is_done: true,
        }
    }

    #[test]
    fn an_item_is_one_line_for_people_and_an_object_for_programs() {
        let items = item::read(&document::read("\ntenant_name: A\n").unwrap()).unwrap();
        let changed = line(Action::Change);
        assert_eq!(
            changed.text(&items[0]),
            "changed    A (production) a-1: + b: true, replicas: 1 -> 2"
        );
        let expected = json!({"id": "a-1", "title": "A (production)", "line": 2, "action": "changed",
            "changes": [{"field": "b", "from": null, "to": true}, {"field": "replicas", "from": 1, "to": 2}],
            "error": null, "exit_code": 0});
        assert_eq!(changed.data(&items[0]), expected);
    }

    #[test]
    fn the_worst_item_decides_the_exit_code() {
        let failed = |failure| line(Action::Fail(failure));
        let late = failed(Failure::TimedOut(String::new()));
        let wrong = failed(Failure::Failed(String::new()));
        let fine = line(Action::Nothing);
        assert_eq!(worst([&fine, &late, &wrong].into_iter()), Some(1));
        assert_eq!(worst([&late, &fine].into_iter()), Some(6));
        assert_eq!(worst([&fine].into_iter()), None);
    }
}
