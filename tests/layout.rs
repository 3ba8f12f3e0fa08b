//! Which module may use which, who owns which crate, and who alone may do what: read from every file in `src`.
//!
//! Circles inside one crate grow by themselves; this is what holds the direction.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use of ours. `daemon` and `cli` stand on top.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("wire", &[]),
    ("memory", &[]),
    ("clock", &[]),
    ("fault", &[]),
    ("metrics", &[]),
    ("config", &["clock", "wire"]),
    ("store", &["clock", "fault", "metrics", "wire"]),
    ("sandbox", &["fault", "wire"]),
    ("harness", &["sandbox", "wire"]),
    ("vault", &["wire"]),
    ("egress", &["wire"]),
    ("platform", &["clock", "egress", "fault", "harness", "metrics", "sandbox", "store", "vault", "wire"]),
    ("server", &["clock", "metrics", "platform", "wire"]),
    ("client", &["wire"]),
    ("render", &["wire"]),
    ("script", &["client", "clock", "config", "memory", "render", "wire"]),
    (
        "daemon",
        &[
            "client", "clock", "config", "fault", "harness", "platform", "sandbox", "server", "store",
            "vault", "wire",
        ],
    ),
    ("cli", &["client", "clock", "config", "daemon", "render", "script", "wire"]),
];

/// Which crates only these modules may name.
const CRATE_OWNERS: [(&str, &[&str]); 8] = [
    ("axum", &["server", "daemon"]),
    ("chacha20poly1305", &["vault"]),
    ("clap", &["cli"]),
    ("prometheus_client", &["metrics"]),
    ("reqwest", &["client"]),
    ("rhai", &["script"]),
    ("rustyline", &["cli"]),
    ("sqlx", &["store"]),
];

/// Which words of code only these modules may say, tests inside them aside.
const WORD_OWNERS: [(&[&str], &[&str], &str); 8] = [
    (&["env", "::", "var"], &["config"], "reads the environment"),
    (&["env", "::", "var_os"], &["config"], "reads the environment"),
    (&["env", "::", "vars"], &["config"], "reads the environment"),
    (&["choose_base_strategy"], &["config"], "knows where home is"),
    (&["StatusCode"], &["server"], "knows HTTP statuses"),
    (&["Command", "::", "new"], &["sandbox", "daemon", "cli"], "starts processes"),
    (&["SystemTime", "::", "now"], &["clock"], "asks for the time"),
    (&["Uuid", "::", "new_v4"], &["clock"], "makes random IDs"),
];

/// Names that say nothing about what a file holds.
const BAD_NAMES: [&str; 5] = ["common", "helper", "misc", "shared", "util"];

/// One piece of Rust's text: a word, `::`, or any other character. Strings, comments and lifetimes are left out, but a
/// string stands as `"` and its text.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
    Other(char),
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += 1;
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if c == '\'' {
            // A character, or a lifetime.
            if chars.get(at + 1) == Some(&'\\') {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                at += 1;
            }
        } else if c == '"' {
            let mut text = String::new();
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                if chars[at] == '\\' {
                    at += 1;
                }
                text.extend(chars.get(at));
                at += 1;
            }
            at += 1;
            tokens.push(Token::Text(text));
        } else if c == 'r' && (starts(at, "r\"") || starts(at, "r#\"") || starts(at, "r##\"")) {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            let end = format!("\"{}", "#".repeat(hashes));
            at += 2 + hashes;
            let begin = at;
            while at < chars.len() && !starts(at, &end) {
                at += 1;
            }
            tokens.push(Token::Text(chars[begin..at.min(chars.len())].iter().collect()));
            at += end.len();
        } else if c.is_alphanumeric() || c == '_' {
            let begin = at;
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            tokens.push(Token::Word(chars[begin..at].iter().collect()));
        } else if starts(at, "::") {
            tokens.push(Token::Sign("::"));
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Other(c));
            }
            at += 1;
        }
    }
    tokens
}

/// The tokens without what stands under `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let word = |text: &str| Token::Word(text.to_owned());
    let mark = [
        Token::Other('#'),
        Token::Other('['),
        word("cfg"),
        Token::Other('('),
        word("test"),
        Token::Other(')'),
        Token::Other(']'),
    ];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].starts_with(&mark) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += mark.len();
        let mut depth = 0;
        while at < tokens.len() {
            match tokens[at] {
                Token::Other('{') => depth += 1,
                Token::Other('}') => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1], Token::Other('}' | ';')) {
                break;
            }
        }
    }
    kept
}

/// The first names of a path's rest: of `a::b` it is `a`, of `{a, b::{c, d}}` they are `a` and `b`.
fn first_names(tokens: &[Token]) -> Vec<String> {
    match tokens.first() {
        Some(Token::Word(name)) => vec![name.clone()],
        Some(Token::Other('{')) => {
            let mut names = Vec::new();
            let (mut depth, mut fresh) = (0, true);
            for token in tokens {
                match token {
                    Token::Other('{') => depth += 1,
                    Token::Other('}') => depth -= 1,
                    Token::Other(',') if depth == 1 => fresh = true,
                    Token::Word(name) if depth == 1 && fresh => {
                        names.push(name.clone());
                        fresh = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            names
        }
        _ => Vec::new(),
    }
}

/// The modules at the crate's root that this text names, by `crate::` or by enough `super::`. `depth` is how deep the
/// file's own module lies: 1 for `src/clock.rs` and `src/store/mod.rs`, 2 for `src/store/open.rs`.
fn used_modules(tokens: &[Token], depth: usize) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let mut inline: Vec<usize> = Vec::new();
    let mut braces = 0;
    for at in 0..tokens.len() {
        match &tokens[at] {
            Token::Other('{') => {
                braces += 1;
                if at >= 2 && tokens[at - 2] == Token::Word("mod".into()) {
                    inline.push(braces);
                }
            }
            Token::Other('}') => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces -= 1;
            }
            Token::Word(word) if word == "crate" && tokens.get(at + 1) == Some(&Token::Sign("::")) => {
                used.extend(first_names(&tokens[at + 2..]));
            }
            Token::Word(word) if word == "super" && !follows_super(tokens, at) => {
                let mut end = at;
                let mut levels = 0;
                while tokens.get(end) == Some(&Token::Word("super".into()))
                    && tokens.get(end + 1) == Some(&Token::Sign("::"))
                {
                    levels += 1;
                    end += 2;
                }
                if levels >= depth + inline.len() {
                    used.extend(first_names(&tokens[end..]));
                }
            }
            _ => {}
        }
    }
    used
}

fn follows_super(tokens: &[Token], at: usize) -> bool {
    at >= 2 && tokens[at - 1] == Token::Sign("::") && tokens[at - 2] == Token::Word("super".into())
}

/// The crates that this text names as the first word of a path, a macro or a `use`.
fn names_crate(tokens: &[Token], name: &str) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let first = at == 0 || tokens[at - 1] != Token::Sign("::");
        let a_use = at > 0 && tokens[at - 1] == Token::Word("use".into());
        *token == Token::Word(name.into())
            && first
            && (a_use || tokens.get(at + 1) == Some(&Token::Sign("::")))
    })
}

fn says(tokens: &[Token], words: &[&str]) -> bool {
    tokens.windows(words.len()).any(|window| {
        window.iter().zip(words).all(|(token, word)| match token {
            Token::Word(text) => text == word,
            Token::Sign(text) => text == word,
            _ => false,
        })
    })
}

/// Whether a string of this text is SQL.
fn speaks_sql(tokens: &[Token]) -> bool {
    const BEGINNINGS: [&str; 6] =
        ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA "];
    tokens.iter().any(|token| match token {
        Token::Text(text) => BEGINNINGS.iter().any(|beginning| text.trim_start().starts_with(beginning)),
        _ => false,
    })
}

/// The files of tests that the file `path` declares under `#[cfg(test)]`, by name or by `#[path]`.
fn declared_tests(path: &str, tokens: &[Token]) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let modules = |tokens: &[Token]| -> Vec<String> {
        let starts = tokens.windows(3).enumerate().filter_map(|(at, three)| match three {
            [Token::Word(word), Token::Word(name), Token::Other(';')] if word == "mod" => Some((at, name)),
            _ => None,
        });
        let file = |(at, name): (usize, &String)| match &tokens[..at] {
            [.., Token::Word(word), Token::Other('='), Token::Text(file), Token::Other(']')]
                if word == "path" =>
            {
                format!("{folder}/{file}")
            }
            _ => format!("{below}/{name}.rs"),
        };
        starts.map(file).collect()
    };
    let outside = modules(&without_tests(tokens));
    modules(tokens).into_iter().filter(|file| !outside.contains(file)).collect()
}

/// What is wrong with one file; `path` is relative to `src`.
fn faults(path: &str, source: &str) -> Vec<String> {
    faults_of(path, source, false)
}

/// The same; in a file of tests only the direction of modules counts.
fn faults_of(path: &str, source: &str, is_test: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let first = source.lines().next().unwrap_or_default();
    if first.strip_prefix("//!").is_none_or(|rest| rest.trim().len() <= 3) {
        faults.push(format!("{path}: line 1 doesn't begin with //! and what the file is for"));
    }
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    for part in &parts {
        if BAD_NAMES.iter().any(|bad| part.trim_end_matches('s').contains(bad)) {
            faults.push(format!("{path}: '{part}' doesn't say what it holds"));
        }
    }
    let module = parts[0];
    let depth = if parts.last() == Some(&"mod") { parts.len() - 1 } else { parts.len() };
    let all = tokens(source);
    let code = if is_test { Vec::new() } else { without_tests(&all) };
    if let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) {
        for used in used_modules(&all, depth) {
            let is_ours = MAY_USE.iter().any(|(name, _)| *name == used);
            if is_ours && used != module && !allowed.contains(&used.as_str()) {
                faults.push(format!("{path}: {module} may not use {used}"));
            }
        }
        if used_modules(&all, depth).contains("*") {
            faults.push(format!("{path}: everything of the crate at once"));
        }
    } else if !["lib", "main"].contains(&module) {
        faults.push(format!("{path}: {module} is not in the table of modules"));
    }
    for (name, owners) in CRATE_OWNERS {
        if names_crate(&code, name) && !owners.contains(&module) {
            faults.push(format!("{path}: {name} belongs to {}", owners.join(" and ")));
        }
    }
    for (words, owners, does) in WORD_OWNERS {
        if says(&code, words) && !owners.contains(&module) {
            faults.push(format!("{path}: only {} {does} ({})", owners.join(" and "), words.concat()));
        }
    }
    if module != "store" && speaks_sql(&code) {
        faults.push(format!("{path}: only store speaks SQL"));
    }
    for name in ["println", "print", "eprintln", "eprint", "dbg"] {
        let called = code.windows(2).any(|pair| pair == [Token::Word(name.into()), Token::Other('!')]);
        if called {
            faults.push(format!("{path}: only cli::ui writes to the terminal ({name}!)"));
        }
    }
    faults
}

fn source_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open: Vec<PathBuf> = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_file_keeps_the_rules() {
    let files = source_files();
    assert!(files.len() > 30, "{} files were found", files.len());
    let tests: BTreeSet<String> =
        files.iter().flat_map(|(path, source)| declared_tests(path, &tokens(source))).collect();
    let faults: Vec<String> =
        files.iter().flat_map(|(path, source)| faults_of(path, source, tests.contains(path))).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_table_has_no_circle() {
    let reaches = |from: &str| {
        let mut open = vec![from.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(module) = open.pop() {
            let (_, uses) = MAY_USE.iter().find(|(name, _)| *name == module).expect("every module has a row");
            open.extend(uses.iter().filter(|used| seen.insert(used.to_string())).map(ToString::to_string));
        }
        seen
    };
    for (module, _) in MAY_USE {
        assert!(!reaches(module).contains(module), "{module} uses itself");
    }
    for absent in ["platform", "store", "sandbox", "harness", "server", "daemon", "cli"] {
        assert!(!reaches("script").contains(absent) && !reaches("client").contains(absent), "{absent}");
    }
}

#[test]
fn the_architecture_page_shows_the_same_table() {
    let Ok(page) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")) else {
        skip!("there is no ARCHITECTURE.md");
    };
    for (module, uses) in MAY_USE {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{module}` |")))
            .unwrap_or_else(|| panic!("{module} has no row in the code map"));
        let column = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim();
        if let Some(rest) = column.strip_prefix("all but ") {
            let absent: Vec<&str> = rest.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            for (other, _) in MAY_USE.iter().filter(|(other, _)| *other != module) {
                assert_eq!(uses.contains(other), !absent.contains(other), "{module} and {other}");
            }
            continue;
        }
        let mut told: Vec<&str> =
            column.split([' ', ',']).filter(|word| !word.is_empty() && *word != "–").collect();
        told.sort_unstable();
        assert_eq!(told, uses, "{module}");
    }
}

/// Every rule must be able to fail.
#[test]
fn each_rule_finds_its_fault() {
    let good = "//! A file that is good.\nuse crate::wire::{Session, Status};\n";
    assert_eq!(faults("store/rows.rs", good), Vec::<String>::new());
    let finds = |path: &str, body: &str, fault: &str| {
        let found = faults(path, &format!("//! A file with a fault.\n{body}\n"));
        assert!(found.iter().any(|text| text.contains(fault)), "{path}: {body}: {found:?}");
    };
    let passes = |path: &str, body: &str| {
        assert_eq!(faults(path, &format!("//! A file without one.\n{body}\n")), Vec::<String>::new());
    };
    assert!(faults("store/rows.rs", "use std::fs;\n//! Too late.\n")[0].contains("line 1"));
    assert!(faults("store/rows.rs", "//!\n//! Too late.\n")[0].contains("line 1"));

    finds("script/end.rs", "use crate::platform::Platform;", "script may not use platform");
    finds("script/end.rs", "fn f() { crate::store::open() }", "script may not use store");
    finds(
        "client/mod.rs",
        "use crate::{wire::Session, server::{Server, Identity}};",
        "client may not use server",
    );
    finds("wire/mod.rs", "use super::clock::Clock;", "wire may not use clock");
    finds("wire/ids.rs", "use super::super::clock;", "wire may not use clock");
    finds("clock.rs", "mod tests { use super::super::config; }", "clock may not use config");
    finds("novel/mod.rs", "", "not in the table");
    passes("clock.rs", "mod tests { use super::*; use super::config; }");
    passes("store/mod.rs", "mod server;\nuse server::Row; use super::store::x; use self::server::Row;");
    passes(
        "wire/mod.rs",
        "// crate::platform\n/* crate::store /* deep */ */ const A: &str = \"crate::cli\";",
    );
    passes(
        "wire/mod.rs",
        "const A: char = '\"'; const B: &str = r#\"crate::\"cli\"#; fn f<'a>(_: &'a str) {}",
    );

    finds("platform/mod.rs", "use rhai::Engine;", "rhai belongs to script");
    finds("platform/mod.rs", "fn f() { sqlx::query(\"\"); }", "sqlx belongs to store");
    finds("client/mod.rs", "use axum;", "axum belongs to server");
    finds("server/mod.rs", "use reqwest::Client;", "reqwest belongs to client");
    finds("script/mod.rs", "#[derive(clap::Parser)] struct A;", "clap belongs to cli");
    finds("script/mod.rs", "use rustyline::Editor;", "rustyline belongs to cli");
    passes("server/mod.rs", "use axum::Router;");
    passes("cli/mod.rs", "use crate::script::rhai;");

    finds("cli/mod.rs", "fn f() { std::env::var(\"HOME\"); }", "only config reads the environment");
    finds(
        "cli/mod.rs",
        "use std::env; fn f() { env::var_os(\"HOME\"); }",
        "only config reads the environment",
    );
    finds("client/mod.rs", "fn f(s: StatusCode) {}", "only server knows HTTP statuses");
    finds(
        "platform/mod.rs",
        "use std::process::Command; fn f() { Command::new(\"sh\"); }",
        "starts processes",
    );
    finds("platform/mod.rs", "fn f() { std::time::SystemTime::now(); }", "only clock asks for the time");
    finds("store/mod.rs", "fn f() { uuid::Uuid::new_v4(); }", "only clock makes random IDs");
    finds("platform/mod.rs", "const Q: &str = \"SELECT id FROM sessions\";", "only store speaks SQL");
    finds("platform/mod.rs", "fn f() { println!(\"x\"); }", "only cli::ui writes");
    passes(
        "platform/mod.rs",
        "#[cfg(test)]\nmod tests { fn f() { std::env::var(\"A\"); println!(\"{}\", 1); } }",
    );
    finds(
        "platform/mod.rs",
        "#[cfg(test)]\nmod tests;\nfn f() { std::env::var(\"A\"); }",
        "only config reads",
    );

    let declared = tokens(
        "mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod b;\n#[cfg(test)]\nmod c { mod d {} }\nmod e;",
    );
    assert_eq!(declared_tests("store/mod.rs", &declared), ["store/tests.rs", "store/b_tests.rs"]);
    assert_eq!(declared_tests("store/rows.rs", &declared), ["store/rows/tests.rs", "store/b_tests.rs"]);
    let test = "//! Tests in a file of their own.\nuse crate::platform::Platform; fn f() { println!(); }";
    assert_eq!(faults_of("store/tests.rs", test, true), ["store/tests.rs: store may not use platform"]);

    finds("platform/utils.rs", "", "'utils' doesn't say what it holds");
    finds("platform/shared/mod.rs", "", "'shared' doesn't say what it holds");
}
