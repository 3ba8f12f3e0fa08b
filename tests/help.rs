//! `superserve help`: a command's help, the functions that scripts can call, the man pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use superserve::config::KEYS;

use crate::skipped::has;
use crate::test::{Test, told};

#[test]
fn a_commands_help_is_what_the_command_says_itself() {
    let test = Test::new();
    test.command(
        "fleet/tidy",
        "//! Tidy up.\n//! @arg when?  At which time\n//! @example superserve fleet tidy\n",
    );
    test.write("x.rhai", "//! Mine.\n//! @flag loud  Loudly\n");
    for words in [
        &[][..],
        &["sessions"],
        &["sessions", "list"],
        &["run"],
        &["eval"],
        &["help"],
        &["help", "man"],
        &["script"],
        &["script", "x.rhai"],
        &["fleet", "tidy"],
    ] {
        let own = test.args(words.iter().chain(&["--help"])).any_stdout().run().stdout;
        assert!(own.contains("Usage: superserve"), "{own}");
        test.args(["help"].iter().chain(words)).stdout(own).run();
    }
    test.args(["help", "fleet", "tidy", "--json"]).stdout_part("At which time").run();
    test.args(["server", "status", "--json"]).stdout("{\n  \"running\": false\n}\n").run();
}

#[test]
fn a_command_that_is_not_there_is_wrong_usage() {
    let test = Test::new();
    for words in [&["nope"][..], &["sessions", "lst"]] {
        let own = test.args(words).any_stderr().status(2).run().stderr;
        assert!(own.starts_with("✗ unrecognized subcommand"), "{own}");
        test.args(["help"].iter().chain(words)).stderr(own).status(2).run();
    }
    test.args(["help", "--", "run", "--"])
        .stderr(told("there is no command '--'", "See superserve --help."))
        .status(2)
        .run();
}

#[test]
fn the_functions_are_told_in_short_and_in_full() {
    let test = Test::new();
    test.args(["help", "functions"])
        .stdout_part("\nsessions::\n  create ")
        .stdout_part("\nSession\n")
        .stdout_part("  filter ")
        .stdout_part("  Int.days ")
        .run();
    test.args(["help", "functions", "Session.idle"])
        .stdout(
            "Session.idle -> Duration\n\n  How long nothing has happened in it: 0 while a run is going on, since its creation \
             while it is pending.\n\n    let stale = list().filter(|s| s.idle > 2.hours);\n",
        )
        .run();
    test.args(["help", "functions", "filter"])
        .stdout_part(
            "List.filter(condition: String) -> List\n  List is Sessions, Agents, Done, Array or Stream.\n",
        )
        .stdout_part("List.filter(test: Function) -> List\n")
        .run();
    test.args(["help", "functions", "sessions::each"]).stdout_part("sessions::each() -> Stream\n").run();
    test.args(["help", "functions", "push"]).stdout_part("push(array: Array, item: value)\n").run();
    test.args(["help", "functions", "filtr"])
        .stderr(told(
            "Function not found: scripts can call nothing that is named 'filtr'",
            "Did you mean `filter`?",
        ))
        .status(3)
        .run();
    let error = test.args(["help", "functions", "xyzzy", "--json"]).any_stderr().status(3).run().error();
    assert_eq!(error["code"], "not_found");
    let found = test.json(["help", "functions", "len", "--json"]);
    assert_eq!(found[0]["name"], "len");
    assert_eq!(found[0]["on"], serde_json::json!(["Sessions", "Agents", "Done"]));
    assert_eq!(found[0]["examples"][0], "print(list().len);");
    test.args(["help", "functions", "is_empty", "--json=name,group"])
        .stdout_part("\"group\": \"Lists\"\n  }")
        .run();
    assert!(test.json(["help", "functions", "--json"]).as_array().unwrap().len() > 150);
    test.args(["server", "status", "--json"]).stdout("{\n  \"running\": false\n}\n").run();
}

#[test]
fn the_page_of_functions_is_what_the_program_prints() {
    let test = Test::new();
    let page = test.args(["help", "functions", "--markdown"]).any_stdout().run().stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/functions.md");
    let kept = fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(kept.lines()).find(|(new, old)| new != old);
    assert!(
        page == kept,
        "docs/functions.md is not what the program prints: superserve help functions --markdown > docs/functions.md\n{differs:?}"
    );
}

/// Every page by its name.
fn pages(test: &Test) -> Vec<(String, String)> {
    let folder = test.work().join("pages/man1");
    test.args(["help", "man", "pages/man1"]).any_stderr().run();
    let mut pages: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_command_has_a_man_page() {
    let test = Test::new();
    test.command("fleet/tidy", "//! Tidy up.\n//! @example superserve fleet tidy\n");
    let pages = pages(&test);
    let names: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for row in test.json(["scripts", "list", "--json"]).as_array().unwrap() {
        let name = format!("superserve-{}.1", row["name"].as_str().unwrap().replace(' ', "-"));
        assert!(names.contains(name.as_str()), "{name}: {names:?}");
    }
    for name in
        ["superserve.1", "superserve-sessions.1", "superserve-server-start.1", "superserve-help-man.1"]
    {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    let page = |name: &str| pages.iter().find(|(page, _)| page == name).expect(name).1.as_str();
    for part in [
        ".SH EXAMPLES",
        "superserve sessions list \\-\\-agent my\\-agent",
        "Only this agent",
        "\\fBsuperserve\\-sessions\\fR(1)",
    ] {
        assert!(
            page("superserve-sessions-list.1").contains(part),
            "{part}: {}",
            page("superserve-sessions-list.1")
        );
    }
    let main = page("superserve.1");
    for key in KEYS {
        assert!(main.contains(&superserve::config::variable(key.name)), "{}", key.name);
    }
    for part in ["EXIT STATUS", "ENVIRONMENT", "FILES", "config.toml", "superserve\\-fleet"] {
        assert!(main.contains(part), "{part}: {main}");
    }
    // The same page without a folder.
    test.args(["help", "man"]).stdout(main).run();
    test.args(["--dry-run", "help", "man", "nowhere"])
        .stderr(format!("would write {} pages to nowhere\n", pages.len()))
        .run();
    assert!(!test.work().join("nowhere").exists());
    test.write("file", "");
    test.args(["help", "man", "file/man1"])
        .stderr_part("✗ cannot write file/man1: ")
        .stderr_part("Name a folder that you may write.")
        .status(1)
        .run();
}

#[test]
fn man_pages_are_set_without_a_warning() {
    let setters = [
        ("groff", &["-man", "-Tutf8", "-ww", "-K", "utf8", "-z"][..]),
        ("mandoc", &["-T", "lint", "-W", "error"]),
    ];
    let here: Vec<_> = setters.iter().filter(|(program, _)| has(program)).collect();
    if here.is_empty() {
        skip!("neither groff nor mandoc is on this machine");
    }
    let test = Test::new();
    test.command(
        "odd",
        "//! .TH \"odd\" \\fBbold\\fR 'quoted' — \\(em.\n//! .so /etc/passwd\n//! 'br\n//! @arg x <A|B>  .SH in \\n(.g\n//! @example .superserve odd \\\\ 'x'\n",
    );
    let pages = pages(&test);
    assert!(pages.iter().any(|(name, _)| name == "superserve-odd.1"));
    for (program, args) in here {
        for (name, _) in &pages {
            let output = test
                .prepare(Path::new(program), &args.iter().map(Into::into).collect::<Vec<_>>())
                .arg(test.work().join("pages/man1").join(name))
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(output.status.success() && said.is_empty(), "{program} {name}: {said}");
        }
    }
    if has("man") {
        let shown =
            test.shell("man -l pages/man1/superserve-odd.1 | cat").any_stdout().any_stderr().run().stdout;
        let shown = shown.replace('\u{8}', "");
        assert!(shown.contains(".so /etc/passwd"), "{shown}");
    }
}
