//! The README goes through the program: every command in it is run, and what stands below one is what it prints.
//!
//! A block marked `console` holds lines that begin with `$ `, each followed by what it prints on stdout and stderr
//! together. All blocks run one after the other in one home, in the project's folder, a minute from block to block;
//! what something took is not compared. The line `<!-- IDs differ -->` above a block says that each ID stands for
//! another one, the same for the same. A block marked `sh` is a script that must succeed. Blocks marked `rhai` must run
//! with `--dry-run`, those marked `yaml` must be an agent's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use superserve::config::KEYS;

use crate::command::without_times;
use crate::skipped::has;
use crate::test::Test;

/// A fenced block.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    /// Whether `<!-- IDs differ -->` stands above it.
    ids_differ: bool,
    text: String,
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap_or_default()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut above = "";
    for (line, number) in page.lines().zip(1..) {
        match (open, line.strip_prefix("```")) {
            (false, Some(language)) => {
                open = true;
                let ids_differ = above.trim() == "<!-- IDs differ -->";
                blocks.push(Block {
                    line: number,
                    language: language.trim().to_owned(),
                    ids_differ,
                    text: String::new(),
                });
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                let block = blocks.last_mut().expect("an open block");
                block.text += line;
                block.text.push('\n');
            }
            (false, None) => {}
        }
        if !line.trim().is_empty() {
            above = line;
        }
    }
    blocks
}

/// The commands of a `console` block, each with what stands below it.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => {
                *output += line;
                output.push('\n');
            }
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    commands
}

/// The text with every ID replaced by a name, the same for the same.
fn without_ids(text: &str) -> String {
    let mut known: Vec<String> = Vec::new();
    let mut result = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        let is_id = word.len() >= 12 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if word.is_empty() {
            result.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if is_id {
            let short = word[..12].to_owned();
            let number = known.iter().position(|one| *one == short).unwrap_or_else(|| {
                known.push(short);
                known.len() - 1
            });
            result += &format!("ID{number}{}", if word.len() > 12 { "…" } else { "" });
        } else {
            result += &word;
        }
        rest = &rest[word.len()..];
    }
    result
}

#[test]
fn every_command_does_what_stands_there() {
    let page = readme();
    if page.is_empty() {
        skip!("there is no README.md");
    }
    if !has("jq") {
        skip!("jq, which the README uses, is not on this machine");
    }
    let test = Test::new();
    let here = format!("cd '{}' && ", env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    let mut count = 0;
    for block in blocks(&page) {
        test.pass(Duration::from_secs(60));
        match block.language.as_str() {
            "console" => {
                let mut actual = String::new();
                for (command, _) in commands(&block.text) {
                    let output =
                        test.shell(&format!("{here}{{ {command}\n}} 2>&1")).any_stdout().any_status().run();
                    actual += &format!("$ {command}\n{}", output.stdout);
                    count += 1;
                }
                let same = |text: &str| {
                    let text = without_times(text);
                    if block.ids_differ { without_ids(&text) } else { text }
                };
                if same(&actual) != same(&block.text) {
                    faults.push(format!(
                        "line {}: stands there:\n{}\nbut is:\n{actual}",
                        block.line, block.text
                    ));
                }
            }
            "sh" => {
                for line in block.text.lines().filter_map(|line| line.strip_prefix("$ ")) {
                    // The first command builds the program, the second one is what runs this: .ci/run runs both.
                    let Some(rest) = line.strip_prefix("cargo run --release -- ") else {
                        assert_eq!(line, "cargo test", "line {}", block.line);
                        continue;
                    };
                    test.shell(&format!("{here}superserve {rest}")).any_stdout().any_stderr().run();
                    count += 1;
                }
                if !block.text.starts_with("$ ") {
                    let script = format!("set -e\n{here}true\n{}", block.text);
                    let output = test.shell(&script).any_stdout().any_stderr().any_status().run();
                    if output.status != 0 {
                        faults.push(format!("line {}: {output:#?}", block.line));
                    }
                    count += 1;
                }
            }
            "rhai" => {
                let path = test.write("readme.rhai", &block.text);
                test.args(["--dry-run", "--yes", "script", path.to_str().unwrap()])
                    .any_stdout()
                    .any_stderr()
                    .run();
                count += 1;
            }
            "yaml" => {
                test.write("readme/superserve.yaml", &block.text);
                test.write("readme/notes.sh", "while read -r line; do echo \"$line\"; done");
                test.args(["--dry-run", "deploy", "--dir", "readme"]).any_stdout().any_stderr().run();
                count += 1;
            }
            _ => {}
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(count > 5, "only {count} commands were found");
}

#[test]
fn the_runner_sees_what_is_wrong() {
    let page = "text\n\n<!-- IDs differ -->\n```console\n$ a\nout\n  more\n$ b\n```\n\n```sh\nc\n```\n";
    let found = blocks(page);
    assert_eq!((found.len(), found[0].line, found[0].ids_differ, found[1].ids_differ), (2, 4, true, false));
    assert_eq!(
        commands(&found[0].text),
        [("a".to_owned(), "out\n  more\n".to_owned()), ("b".to_owned(), String::new())]
    );
    assert_eq!(
        without_ids("5a3f7b9c2e1d x 8d4e6f1a3b2c (ses_5a3f7b9c2e1d4f6a) 12 é"),
        "ID0 x ID1 (ses_ID0…) 12 é"
    );
    assert_ne!(without_ids("5a3f7b9c2e1d 5a3f7b9c2e1d"), without_ids("5a3f7b9c2e1d 8d4e6f1a3b2c"));
}

#[test]
fn the_table_of_settings_is_the_programs() {
    let page = readme();
    if page.is_empty() {
        skip!("there is no README.md");
    }
    for key in KEYS {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", key.name)))
            .unwrap_or_else(|| panic!("{} is not in the table of settings", key.name));
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect();
        let default =
            if key.default.contains('`') { key.default.to_owned() } else { format!("`{}`", key.default) };
        assert_eq!(cells[1..], [default.as_str(), key.about], "{}", key.name);
    }
}

#[test]
fn the_table_of_exit_codes_is_the_man_pages() {
    let page = readme();
    if page.is_empty() {
        skip!("there is no README.md");
    }
    let man = Test::new().args(["help", "man"]).any_stdout().run().stdout;
    let (_, man) = man.split_once(".SH \"EXIT STATUS\"").expect("a section");
    let mut count = 0;
    for row in
        page.lines().skip_while(|line| *line != "### Exit codes").take_while(|line| *line != "## Agents")
    {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect();
        if let [code, means] = cells.as_slice()
            && code.parse::<u8>().is_ok()
        {
            assert!(man.contains(&format!("\\fB{code}\\fR\n{means}\n")), "{code} {means}: {man}");
            count += 1;
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn every_command_is_in_the_table() {
    let page = readme();
    if page.is_empty() {
        skip!("there is no README.md");
    }
    let test = Test::new();
    let mut names: BTreeSet<String> =
        ["serve", "server", "script", "eval", "scripts", "repl", "completions", "help", "test"]
            .map(str::to_owned)
            .into();
    for row in test.json(["scripts", "list", "--json"]).as_array().unwrap() {
        names.insert(row["name"].as_str().unwrap().to_owned());
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for name in names {
        let (group, word) = name.split_once(' ').unwrap_or((&name, ""));
        let told = rows.iter().any(|row| {
            let command = row.trim_start_matches("| `").split('`').next().unwrap_or_default();
            let mut words = command.split([' ', '|', '\\']).filter(|word| !word.is_empty());
            words.next() == Some(group) && (word.is_empty() || words.any(|known| known == word))
        });
        assert!(told, "'{name}' is in no table of the README");
    }
}
