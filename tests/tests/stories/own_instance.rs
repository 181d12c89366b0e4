//! The page "Run your own instance": whatever stands there is done here, block after block in one shell, and what the
//! page says comes out has to come out.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Stdio, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::fleet::Fleet;
use serde_json::Value;

/// The page.
const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/run-your-own-instance.md"
);
/// Between the outputs of two blocks.
const MARK: &str = "=== block ";
/// What a value on the page is when it differs from run to run.
const ANY: &str = "…";

/// Commands, and the JSON that the page shows below them.
struct Block {
    line: usize,
    commands: String,
    answer: Option<String>,
}

pub(crate) async fn every_snippet_of_the_page_works_as_it_stands(fleet: Arc<Fleet>) -> Result<()> {
    let blocks = blocks(&fs::read_to_string(PAGE).context(PAGE)?)?;
    ensure!(
        blocks.len() > 10,
        "only {} blocks on the page",
        blocks.len()
    );
    let folder = fleet.home().join("page");
    fs::create_dir_all(&folder)?;
    let mut script = "set -euo pipefail\n".to_owned();
    for (index, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo; echo '{MARK}{index}'\n{}\n", block.commands));
    }
    script.push_str(&format!("echo; echo '{MARK}{}'\n", blocks.len()));
    let (out, err) = run(&fleet, &folder, script).await?;
    let outputs: Vec<&str> = out.split(MARK).skip(1).collect();
    ensure!(
        outputs.len() == blocks.len() + 1,
        "it broke off in the block at line {} of the page: {err}\n{out}",
        blocks[outputs.len().saturating_sub(1)].line,
    );
    for (block, output) in blocks.iter().zip(outputs) {
        let (_, output) = output.split_once('\n').context("a mark without a line")?;
        let Some(answer) = &block.answer else {
            continue;
        };
        let expected: Value = serde_json::from_str(answer)
            .with_context(|| format!("the answer below line {} of the page", block.line))?;
        let found: Value = serde_json::from_str(output.trim())
            .with_context(|| format!("line {}: {output}", block.line))?;
        ensure!(
            is_like(&expected, &found),
            "line {} of the page promises\n{expected:#}\nand there is\n{found:#}",
            block.line
        );
    }
    Ok(())
}

/// Runs a script in a shell of its own with the fleet's `dotmac` on its path.
async fn run(fleet: &Fleet, folder: &Path, script: String) -> Result<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = fleet.home().join("bin");
    let mut command = std::process::Command::new("/bin/bash");
    command
        .args(["--norc", "-c", &script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("DOTMAC_HOME", fleet.home())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .process_group(0);
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&output.stdout), text(&output.stderr)))
}

/// The fenced blocks: `sh` is run, and `json` right below one is what it writes.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let body = lines.by_ref().map(|(_, line)| line);
        let body: Vec<&str> = body.take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        match language {
            "sh" => blocks.push(Block {
                line: number + 1,
                commands: body,
                answer: None,
            }),
            "json" => {
                let last = blocks.last_mut().context("an answer without a question")?;
                ensure!(last.answer.is_none(), "two answers to line {}", last.line);
                last.answer = Some(body);
            }
            other => anyhow::bail!("line {}: nobody runs {other:?}", number + 1),
        }
    }
    Ok(blocks)
}

/// The same members and values; a value that holds `…` stands for any.
fn is_like(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(text), found) if text == ANY => !found.is_null(),
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(name, value)| found.get(name).is_some_and(|found| is_like(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(one, other)| is_like(one, other))
        }
        (expected, found) => expected == found,
    }
}
