//! `dotmac tenants instance-env`: what a tenant's instance is started with, secrets included. Only this process opens
//! the answer; it is written to standard output and nowhere else.

use clap::Args;
use dotmac_protocol::frame::CopyEnvironment;
use serde_json::{Value, json};

use super::Whose;
use crate::cli::{client::encode, failure::Failure, find::Context, output::clean, sealed::Asker};

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct InstanceEnv {
    #[command(flatten)]
    whose: Whose,
    /// Only this component
    #[arg(long)]
    component: Option<String>,
}

impl InstanceEnv {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let copies = self.ask(context).await?;
        if context.output.is_data() {
            return context.output.data(&as_json(&copies));
        }
        for copy in &copies {
            let state = if copy.running { "" } else { ", not running" };
            let title = format!("# {}.{}{state}", copy.component, copy.replica);
            context.output.text(&title)?;
            for (name, value) in &copy.variables {
                context
                    .output
                    .text(&format!("{}={}", clean(name), quoted(value)))?;
            }
        }
        Ok(())
    }

    async fn ask(&self, context: &Context) -> Result<Vec<CopyEnvironment>, Failure> {
        let client = context.client()?;
        let found = self.whose.find(&client).await?;
        let asker = Asker::new(&context.entropy);
        let (path, key) = (found.path("instance-env"), asker.seal_to());
        let mut path = format!("{path}?seal_to={key}");
        let filters = [
            ("environment", &found.environment),
            ("component", &self.component),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let mut lines = client.lines(&path, &[]).await?;
        let mut answer = Vec::new();
        while let Some(line) = lines.next().await? {
            answer.extend(asker.open(&line)?);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(Failure::answer("it is too long"));
            }
        }
        read(&answer)
    }
}

/// The copies in an answer, all of them: what broke off is no answer.
fn read(answer: &[u8]) -> Result<Vec<CopyEnvironment>, Failure> {
    let lines = answer.split(|byte| *byte == b'\n');
    let copies = lines
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<Vec<CopyEnvironment>, _>>()
        .map_err(Failure::answer)?;
    if copies.last().is_none_or(|last| last.remaining > 0) {
        return Err(Failure::answer("it breaks off"));
    }
    Ok(copies)
}

/// One item a variable.
fn as_json(copies: &[CopyEnvironment]) -> Value {
    let items: Vec<Value> = copies
        .iter()
        .flat_map(|copy| {
            copy.variables.iter().map(move |(name, value)| {
                json!({
                    "component": copy.component, "replica": copy.replica, "running": copy.running,
                    "name": name, "value": value,
                })
            })
        })
        .collect();
    json!({ "items": items })
}

/// A value as a shell reads it. What a terminal would act on is an escape.
fn quoted(value: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@%+=,".contains(letter);
    let is_safe = |letter: char| !clean(letter.encode_utf8(&mut [0; 4])).is_empty();
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    if value.chars().all(is_safe) {
        return format!("'{}'", value.replace('\'', r"'\''"));
    }
    let mut text = String::from("$'");
    for letter in value.chars() {
        match letter {
            '\n' => text.push_str(r"\n"),
            '\t' => text.push_str(r"\t"),
            '\'' | '\\' => text.extend(['\\', letter]),
            _ if is_safe(letter) => text.push(letter),
            _ => text.push_str(&format!("\\U{:08x}", u32::from(letter))),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dotmac_protocol::frame::CopyEnvironment;
    use serde_json::json;

    use super::{as_json, quoted, read};

    fn copy(replica: u16, remaining: u32) -> CopyEnvironment {
        CopyEnvironment {
            component: "web".parse().unwrap(),
            replica,
            running: true,
            remaining,
            variables: BTreeMap::from([("KEY".into(), "a b".into())]),
        }
    }

    #[test]
    fn a_shell_gets_back_exactly_the_value() {
        let values = [
            "",
            "plain-1.2",
            "two words",
            "it's",
            "a\\b",
            "$HOME `id` \"x\"",
            "line\nnext\tone",
            "\u{1b}[31mred\u{7}",
            "\u{202e}sdrawkcab",
            "naïve ✓",
        ];
        for value in values {
            let script = format!("VALUE={}; printf %s \"$VALUE\"", quoted(value));
            let shell = std::process::Command::new("bash")
                .args(["-c", &script])
                .env("LC_ALL", "C.UTF-8")
                .output();
            assert_eq!(String::from_utf8(shell.unwrap().stdout).unwrap(), value);
            assert!(
                !quoted(value).contains(|letter: char| letter.is_control() || letter == '\u{202e}')
            );
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        let line = |copy: &CopyEnvironment| format!("{}\n", serde_json::to_string(copy).unwrap());
        let (first, second) = (line(&copy(0, 1)), line(&copy(1, 0)));
        let whole = format!("{first}{second}");
        assert_eq!(read(whole.as_bytes()).ok().unwrap().len(), 2);
        for broken in ["", &first, &whole[..whole.len() - 3]] {
            let failure = read(broken.as_bytes()).err().unwrap();
            assert!(!failure.to_string().contains("a b"), "{failure}");
        }
    }

    #[test]
    fn programs_get_one_item_a_variable() {
        let expected = json!({"items": [
            {"component": "web", "replica": 1, "running": true, "name": "KEY", "value": "a b"},
        ]});
        assert_eq!(as_json(&[copy(1, 0)]), expected);
    }
}
