//! Golden transcripts, `tests/transcripts/*.http`: written by hand from the protocol, never recorded. How they are read.
//!
//! ```text
//! # A remark.
//! ### What is shown
//! POST /v1/sessions HTTP/1.1
//!
//! {"agent_id": "{agent}"}
//!
//! HTTP/1.1 201
//! Connection: close
//!
//! {"id": "{session}", …}
//! ```
//!
//! - A request carries `Accept: */*`, `Content-Type: application/json` and `Authorization: Bearer {token}`, as the original
//!   clients send them, unless it names another. `Authorization: none` is sent without, `Authorization: owner` over the socket.
//! - An answer has exactly this status and body, and at least these headers; one with the value `-` it must not have. A
//!   JSON body holds these members and no others, in any order; every other body is compared to the letter.
//! - `{name}` in an answer is kept at first and compared later; `<ms>` is a number, `<time>` a moment, `<any>` anything.
//!   In a request, `{archive:AGENT}` is that agent of `tests/agents` as an archive.
//! - `& ` before a request leaves its answer open once it has begun to tell something; `@ cut` drops the connection, `@ finish`
//!   reads it to its end, `@ told` as far as the events that are written here. `@ pass 25h` moves the clock.
//! - `^ ` before a request begins it before the one above it: the server has its head and waits for its body. `~ ` makes it
//!   again until the answer has this status. In a request, `{x:N}` is N letters.
//! - `@ serve --flag NAME=value` begins anew with another server, run with these flags and variables. After `@ client` nothing is
//!   asked of a server of ours: what follows are answers for our client alone.
//! - `$ superserve …` is a command that makes the requests below it, as far as the next `$` or `@`, each on a connection of its
//!   own. It prints `> ` on stdout and `! ` on stderr, these lines and no others (JSON in any order; a last `\\` takes the line's end away); exits with `? ` or 0; and leaves
//!   `= FILE CONTENT` in its folder. `{url}` is the server, `{agents}` the folder of the tests' agents, `{export}` a session's archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[derive(Clone, Debug)]
pub enum Step {
    /// `@ word argument`.
    Order(String, String),
    Command(Command),
    Exchange(Exchange),
}

/// A command of ours, and what comes of it.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// File and line.
    pub title: String,
    pub args: Vec<String>,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
    pub status: i32,
    /// Names of files and what is in them.
    pub files: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// File, line and title.
    pub title: String,
    pub open: bool,
    /// Begun before the exchange above it.
    pub early: bool,
    /// Made until the answer has the status.
    pub repeated: bool,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub status: u16,
    pub answer_headers: Vec<(String, String)>,
    pub answer: String,
}

impl Exchange {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn answer_header(&self, name: &str) -> Option<&str> {
        find(&self.answer_headers, name)
    }

    /// The answer's body as it goes over the wire, where that ends with line ends.
    pub fn answer_text(&self) -> String {
        match self.answer_header("content-type") {
            Some("text/event-stream") if !self.answer.is_empty() => format!("{}\n\n", self.answer),
            Some("application/x-ndjson") if !self.answer.is_empty() => format!("{}\n", self.answer),
            _ => self.answer.clone(),
        }
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The transcripts' files, by name.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("transcripts")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "http"))
        .collect();
    files.sort();
    files
}

/// The one with this name, in which `_` stands for `-`.
pub fn file(name: &str) -> PathBuf {
    let name = format!("tests/transcripts/{}.http", name.replace('_', "-"));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Reads one.
pub fn read(file: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(file).expect("a transcript");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let begins = |line: &str| ["### ", "@ ", "$ "].iter().any(|start| line.starts_with(start));
    while let Some((number, line)) = lines.next() {
        if let Some(order) = line.strip_prefix("@ ") {
            let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
            steps.push(Step::Order(word.to_owned(), rest.to_owned()));
        } else if let Some(command) = line.strip_prefix("$ superserve ") {
            let args = shell_words::split(command).expect("a command");
            let title = format!("{name}:{}: superserve {command}", number + 1);
            let mut command = Command { title, args, ..Command::default() };
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with(['>', '!', '?', '='])) {
                let (sign, rest) = line.split_at(1);
                let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
                match sign {
                    ">" => command.stdout.push(rest),
                    "!" => command.stderr.push(rest),
                    "?" => command.status = rest.parse().expect("a status"),
                    _ => {
                        let (file, content) = rest.split_once(' ').expect("a file and its content");
                        command.files.push((file.to_owned(), content.to_owned()));
                    }
                }
            }
            steps.push(Step::Command(command));
        } else if let Some(title) = line.strip_prefix("### ") {
            let mut block = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !begins(line)) {
                block.push(line);
            }
            steps.push(Step::Exchange(exchange(format!("{name}:{}: {title}", number + 1), &block)));
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{name}:{}: {line}", number + 1);
        }
    }
    steps
}

fn exchange(title: String, block: &[&str]) -> Exchange {
    let lines: Vec<&str> = block.iter().skip_while(|line| line.starts_with('#')).copied().collect();
    let middle = lines.iter().position(|line| line.starts_with("HTTP/1.1 "));
    let middle = middle.unwrap_or_else(|| panic!("{title}: no answer"));
    let (first, headers, body) = message(&lines[..middle], &title);
    let (second, answer_headers, answer) = message(&lines[middle..], &title);
    let marked = |mark: &str| first.starts_with(mark);
    let (open, early, repeated) = (marked("& "), marked("^ "), marked("~ "));
    let mut words = first.trim_start_matches(['&', '^', '~']).trim_start().split(' ');
    let mut word = || words.next().unwrap_or_else(|| panic!("{title}: {first}")).to_owned();
    let (method, target) = (word(), word());
    assert_eq!(word(), "HTTP/1.1", "{title}");
    let status = second.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Exchange { title, open, early, repeated, method, target, headers, body, status, answer_headers, answer }
}

type Message = (String, Vec<(String, String)>, String);

fn message(lines: &[&str], title: &str) -> Message {
    let head = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    let headers = lines[1..head].iter().map(|line| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{title}: {line}"));
        (name.to_owned(), value.trim().to_owned())
    });
    let body = lines[head..].join("\n").trim_matches('\n').to_owned();
    (lines[0].to_owned(), headers.collect(), body)
}

/// What names stand for.
pub type Names = BTreeMap<String, String>;

enum Piece {
    Text(String),
    Name(String),
    Any(&'static str),
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let name =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).filter(|(name, _)| is_name(name));
        let any = ["<ms>", "<time>", "<any>"].into_iter().find(|any| rest.starts_with(any));
        if let Some((name, after)) = name {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Name(name.to_owned()));
            rest = after;
        } else if let Some(any) = any {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Any(any));
            rest = &rest[any.len()..];
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// A template with names and the rest filled in.
pub fn filled(template: &str, names: &Names) -> String {
    let fill = |piece: Piece| match piece {
        Piece::Text(text) => text,
        Piece::Name(name) => {
            names.get(&name).unwrap_or_else(|| panic!("nothing is called {{{name}}}: {template}")).clone()
        }
        Piece::Any("<ms>") => "12".to_owned(),
        Piece::Any("<time>") => "2026-03-09T10:15:00Z".to_owned(),
        // Where anything may stand is how an agent was isolated.
        Piece::Any(_) => "full".to_owned(),
    };
    pieces(template).into_iter().map(fill).collect()
}

/// A body with its `{x:N}` written out.
pub fn repeated(body: &str) -> String {
    let Some((before, (count, after))) =
        body.split_once("{x:").and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return body.to_owned();
    };
    format!("{before}{}{after}", "x".repeat(count.parse().expect("a number")))
}

/// Whether a text is what the template says; names that are new are kept.
pub fn fits(template: &str, text: &str, names: &mut Names) -> bool {
    let mut rest = text;
    let pieces = pieces(template);
    for (place, piece) in pieces.iter().enumerate() {
        let taken = match piece {
            Piece::Text(text) if rest.starts_with(text.as_str()) => text.len(),
            Piece::Text(_) => return false,
            Piece::Name(name) => match names.get(name) {
                Some(known) if rest.starts_with(known.as_str()) => known.len(),
                Some(_) => return false,
                None => {
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
                    let end = end.unwrap_or(rest.len());
                    if end == 0 {
                        return false;
                    }
                    names.insert(name.clone(), rest[..end].to_owned());
                    end
                }
            },
            Piece::Any("<ms>") => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            Piece::Any("<time>") => {
                let end = rest.find('Z').map_or(0, |end| end + 1);
                if !rest[..end].starts_with("20") || !(20..=24).contains(&end) {
                    return false;
                }
                end
            }
            Piece::Any(_) => match pieces.get(place + 1) {
                Some(Piece::Text(next)) if !next.is_empty() => match rest.find(next.as_str()) {
                    Some(end) => end,
                    None => return false,
                },
                _ => rest.len(),
            },
        };
        if taken == 0 && matches!(piece, Piece::Any("<ms>")) {
            return false;
        }
        rest = &rest[taken..];
    }
    rest.is_empty()
}

/// Whether JSON is what a template of JSON says, with no member more.
pub fn fits_json(template: &str, text: &str, names: &mut Names) -> bool {
    if template == "<any>" {
        return serde_json::from_str::<Value>(text).is_ok();
    }
    let quoted = template.replace("\": <ms>", "\": \"<ms>\"").replace("\": <any>", "\": \"<any>\"");
    let template: Value = serde_json::from_str(&quoted).unwrap_or_else(|error| panic!("{error}: {template}"));
    serde_json::from_str::<Value>(text).is_ok_and(|value| same(&template, &value, names))
}

fn same(template: &Value, value: &Value, names: &mut Names) -> bool {
    match (template, value) {
        (Value::String(any), _) if any == "<any>" => true,
        (Value::String(any), Value::Number(_)) => any == "<ms>",
        (Value::String(template), Value::String(text)) => fits(template, text, names),
        (Value::Array(template), Value::Array(values)) => {
            template.len() == values.len()
                && template.iter().zip(values).all(|(template, value)| same(template, value, names))
        }
        (Value::Object(template), Value::Object(values)) => {
            template.len() == values.len()
                && template
                    .iter()
                    .all(|(key, template)| values.get(key).is_some_and(|value| same(template, value, names)))
        }
        _ => template == value,
    }
}

#[test]
fn templates_fit_what_they_say_alone() {
    let mut names = Names::new();
    assert!(fits(
        "id: {run}:1\ndata: {\"duration_ms\":<ms>}",
        "id: run_7:1\ndata: {\"duration_ms\":5}",
        &mut names
    ));
    assert_eq!(names["run"], "run_7");
    assert!(
        !fits("{run}", "run_8", &mut names) && !fits("a", "ab", &mut names) && !fits("<ms>", "x", &mut names)
    );
    assert!(fits("<any> end", "some end", &mut names) && !fits("<time>", "today", &mut names));
    assert!(fits_json("{\"n\": <ms>, \"id\": \"{run}\"}", "{\"id\":\"run_7\",\"n\":3}", &mut names));
    assert!(!fits_json("{}", "{\"more\":1}", &mut names) && !fits_json("{\"a\":1}", "{}", &mut names));
    assert_eq!(filled("/v1/{run}?n=<ms>", &names), "/v1/run_7?n=12");
}
