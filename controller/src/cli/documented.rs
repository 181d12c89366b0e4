//! Every command line that the documents and configurations of the checkout show is one that this program takes: its verbs
//! and its flags. Values are placeholders as often as not, so they are not judged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, builder::OsStringValueParser, error::ErrorKind};

/// How the program is called where it is shown.
const NAMES: [&str; 2] = ["dotmac ", ".dotmac/bin/dotmac "];
/// Where a command of a line ends.
const ENDS: [&str; 9] = [" #", "  ", " | ", " > ", " < ", " && ", "; ", ")", " 2>"];

/// A command line, and the file that shows it.
struct Shown {
    file: PathBuf,
    text: String,
    /// Whether it stands in a block, to be typed as it is.
    is_whole: bool,
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder and of those in it with one of these endings.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            files(&path, endings, found);
        } else if ending.is_some_and(|ending| endings.contains(&ending)) {
            found.push(path);
        }
    }
}

/// Everything that is shown, in blocks and within lines.
fn shown() -> Vec<Shown> {
    let mut paths = vec![checkout().join("README.md")];
    files(&checkout().join("docs"), &["md"], &mut paths);
    let endings = ["yml", "yaml", "json", "toml"];
    files(&checkout().join("config"), &endings, &mut paths);
    let mut shown = Vec::new();
    for file in paths {
        let text = fs::read_to_string(&file).unwrap();
        let is_document = file.extension().is_some_and(|ending| ending == "md");
        let (blocks, prose) = match is_document {
            true => parts(&text),
            false => (Vec::new(), text.lines().map(str::to_owned).collect()),
        };
        let file = file.strip_prefix(checkout()).unwrap_or(&file);
        let mut note = |text: String, is_whole: bool| {
            let file = file.to_owned();
            shown.push(Shown {
                file,
                text,
                is_whole,
            });
        };
        let in_blocks = blocks.iter().flat_map(|line| of_line(line));
        in_blocks.for_each(|text| note(text, true));
        let in_prose = prose.iter().flat_map(|text| of_prose(text));
        in_prose.for_each(|text| note(text, false));
    }
    shown
}

/// The lines of a document's blocks, those that go on put together, and its paragraphs, each as one line.
fn parts(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut blocks, mut prose) = (Vec::new(), vec![String::new()]);
    let (mut is_fenced, mut open) = (false, String::new());
    for line in text.lines() {
        let trimmed = line.trim();
        let is_fence = trimmed.starts_with("```");
        is_fenced ^= is_fence;
        if !(is_fenced || line.starts_with("    ")) || trimmed.is_empty() || is_fence {
            match trimmed.is_empty() || is_fence || trimmed.starts_with('|') {
                true => prose.push(format!("{trimmed} ")),
                false => prose
                    .iter_mut()
                    .last()
                    .unwrap()
                    .push_str(&format!("{trimmed} ")),
            }
            continue;
        }
        let more = trimmed.strip_suffix('\\');
        open.push_str(more.unwrap_or(trimmed));
        if more.is_none() {
            blocks.push(std::mem::take(&mut open));
        }
    }
    (blocks, prose)
}

/// The commands in a line of a block: at its beginning, or in `$(…)`.
fn of_line(line: &str) -> Vec<String> {
    let starts = line.split("$(");
    starts
        .filter(|text| is_command(text))
        .flat_map(variants)
        .collect()
}

/// The commands between the backticks of a paragraph.
fn of_prose(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    spans
        .filter(|text| is_command(text))
        .flat_map(variants)
        .collect()
}

fn is_command(text: &str) -> bool {
    NAMES.iter().any(|name| text.starts_with(name))
}

/// A command without what follows it in its line, with each of the alternatives that it shows in brackets.
fn variants(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('[') else {
        let end = ENDS.iter().filter_map(|end| text.find(end)).min();
        return vec![text[..end.unwrap_or(text.len())].to_owned()];
    };
    let (group, behind) = rest.split_once(']').unwrap_or((rest, ""));
    let chosen = group
        .split(" | ")
        .map(|one| format!("{before}{one}{behind}"));
    chosen.flat_map(|text| variants(&text)).collect()
}

/// The words of a command; what stands for more of the same is left out.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text
        .split('"')
        .enumerate()
        .flat_map(|(place, part)| match place % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
    {
        let is_value = words.last().is_some_and(|last| last.starts_with("--"));
        if word != "…" || is_value {
            words.push(word);
        }
    }
    words
}

/// The program with every value taken and none required.
fn lenient(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let argument = argument.required(false);
        match argument.get_action().takes_values() {
            true => argument.value_parser(OsStringValueParser::new()),
            false => argument,
        }
    });
    command.mut_subcommands(lenient)
}

/// What is wrong with a command line, if anything is.
fn wrong(program: &Command, text: &str, is_whole: bool) -> Option<String> {
    let mut words = words(text);
    words[0] = "dotmac".to_owned();
    // `dotmac NOUN VERB` stands for any of them.
    let mut at = program;
    for place in 1..words.len() {
        match at.find_subcommand(&words[place]) {
            Some(found) => at = found,
            None => {
                let is_placeholder = !words[place].contains(|one: char| one.is_ascii_lowercase());
                if is_placeholder && at.has_subcommands() {
                    words.truncate(place);
                }
                break;
            }
        }
    }
    let error = program.clone().try_get_matches_from(words).err()?;
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::MissingRequiredArgument
        // A flag that is named without its value: values of all kinds are taken.
        | ErrorKind::InvalidValue => None,
        // A noun alone may be spoken of, not typed.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
            if !is_whole =>
        {
            None
        }
        _ => Some(error.to_string()),
    }
}

#[test]
fn every_command_that_is_shown_is_one_that_there_is() {
    let program = lenient(super::command());
    let shown = shown();
    assert!(shown.len() > 150, "only {} commands", shown.len());
    for place in [
        "README.md",
        "docs/cli.md",
        "docs/operations",
        "config/prometheus",
    ] {
        let found = shown.iter().filter(|one| one.file.starts_with(place));
        assert!(found.count() > 3, "nearly none in {place}");
    }
    let wrong = shown.iter().filter_map(|one| {
        let why = wrong(&program, &one.text, one.is_whole)?;
        Some(format!("{}: `{}`: {why}", one.file.display(), one.text))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_there_is_not_is_found_wherever_it_is_shown() {
    let program = lenient(super::command());
    let is_wrong = |text: &str| wrong(&program, text, false).is_some();
    assert!(wrong(&program, "dotmac deployments", true).is_some());
    for right in [
        "dotmac NOUN VERB",
        "dotmac --help",
        "dotmac cluster create --card …",
        "dotmac demo break …",
        "dotmac cluster promote NODE --root-key-file FILE --wait",
        "dotmac backup plan NAME --card FILE … --root-key-file FILE --out genesis.json",
        ".dotmac/bin/dotmac deployments create --name \"Demo ISP\" --wait",
    ] {
        assert!(
            !is_wrong(right),
            "{right}: {:?}",
            wrong(&program, right, false)
        );
    }
    for text in [
        "dotmac cluster illness",
        "dotmac clusters status",
        "dotmac deployments list --colour red",
        "dotmac cluster promote NODE --root-key-file FILE --waiting",
        "dotmac doctor everything",
    ] {
        assert!(is_wrong(text), "{text}");
    }
    let document = "See `dotmac\ncluster a`.\n\n    dotmac cluster b    # remark\n\n```\nX=$(dotmac cluster c -o json)\n\
                    dotmac cluster \\\n  d [--e | --f] > g\n```\n| `dotmac cluster h` | |\n";
    let (blocks, prose) = parts(document);
    let blocks = blocks.iter().flat_map(|line| of_line(line));
    let found = blocks.chain(prose.iter().flat_map(|text| of_prose(text)));
    let found: Vec<String> = found.collect();
    let expected = ["b", "c -o json", "d --e", "d --f", "a", "h"];
    assert_eq!(found, expected.map(|rest| format!("dotmac cluster {rest}")));
}
