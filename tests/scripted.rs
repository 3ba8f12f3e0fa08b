//! The golden transcripts, played against the real commands: a server that knows nothing but one row of exchanges.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::process::PATIENCE;
use crate::test::{Test, agents};
use crate::transcript::{Command, Exchange, Names, Step, file, filled, fits, fits_json, read};

/// So many commands are played at a time.
const PLAYERS: usize = 4;

/// What names stand for where there is no server to name things.
fn samples() -> Names {
    [
        ("token", "ss_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"),
        ("fresh", "ss_GFEDCBAzyxwvutsrqponmlkjihgfedcba9876543210"),
        ("agent", "agt_0123456789ab"),
        ("session", "ses_5a3f0000000000000000000000000001"),
        ("other", "ses_5a3f0000000000000000000000000002"),
        ("run", "run_00000000000000000000000000000007"),
        ("agenthash", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("build", "0123456789abcdef"),
        ("id", "tok_0123456789abcdef"),
        ("device", "dc_0123456789abcdef"),
        ("user", "BCDF-GHJK"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// An archive of a session as `export` makes it.
fn exported() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let notes = r#"{"entries":0,"notes":[],"missing":[]}"#;
    for (name, content) in [("session.json", "{}"), ("export.json", notes)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).expect("an entry");
    }
    archive.into_inner().and_then(GzEncoder::finish).expect("an archive")
}

/// Text as bytes, in which `{export}` is an archive.
fn bytes(text: &str) -> Vec<u8> {
    if text == "{export}" { exported() } else { text.as_bytes().to_vec() }
}

/// Listens; answers so, one exchange after the other, and says what the requests had wrong, and a word for each that was played.
fn scripted(
    listener: TcpListener,
    exchanges: Vec<Exchange>,
    mut names: Names,
) -> (mpsc::Receiver<String>, mpsc::Receiver<()>) {
    let (wrong, told) = mpsc::channel();
    let (played, done) = mpsc::channel();
    let sample = names.remove("run").expect("a run's ID");
    std::thread::spawn(move || {
        for exchange in exchanges {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            if let Some(sentence) = heard(&mut stream, &exchange, &mut names) {
                let _ = wrong.send(format!("{}: {sentence}", exchange.title));
            }
            // The client makes up a run's ID; where it has not, there is one.
            let mut names = names.clone();
            names.entry("run".to_owned()).or_insert_with(|| sample.clone());
            let body = match exchange.answer.as_str() {
                "{export}" => exported(),
                _ => filled(&exchange.answer_text(), &names).into_bytes(),
            };
            let mut head = format!("HTTP/1.1 {} Golden\r\n", exchange.status);
            if exchange.answer_header("content-type").is_none() {
                head.push_str("Content-Type: application/json\r\n");
            }
            for (name, value) in &exchange.answer_headers {
                if value != "-" && !["connection", "content-length"].contains(&&*name.to_lowercase()) {
                    head.push_str(&format!("{name}: {}\r\n", filled(value, &names)));
                }
            }
            head.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()));
            // Before the answer, which may be the last thing that the command waits for.
            let _ = played.send(());
            let _ = stream.write_all(&[head.into_bytes(), body].concat());
        }
        // Until somebody comes who asks nothing.
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap_or(0);
            let asked = String::from_utf8_lossy(&buffer[..count]);
            let Some(line) = asked.lines().next() else { break };
            let _ = wrong.send(format!("it asks once more: {line}"));
        }
    });
    (told, done)
}

/// Reads a request; what of it is not as it should be.
fn heard(stream: &mut TcpStream, exchange: &Exchange, names: &mut Names) -> Option<String> {
    let (head, body) = request(stream, &exchange.title);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != exchange.method || !fits(&exchange.target, target, names) {
        return Some(format!(
            "the request is {method} {target}, not {} {}",
            exchange.method, exchange.target
        ));
    }
    let came = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    let expected = match exchange.header("authorization") {
        Some("none") => None,
        other => Some(filled(other.unwrap_or("Bearer {token}"), names)),
    };
    if came != expected.as_deref() {
        return Some(format!("it is authorized by {came:?}, not {expected:?}"));
    }
    let is_json = serde_json::from_str::<Value>(&exchange.body.replace("<ms>", "0")).is_ok();
    let same = match (exchange.body.is_empty(), exchange.header("content-type")) {
        (_, Some(kind)) if kind.starts_with("multipart/") => parts(&exchange.body) == parts(&body),
        // The original clients send no body where ours sends `{}`.
        (true, _) => body.is_empty() || body == "{}",
        (false, _) if is_json => fits_json(&exchange.body, &body, names),
        (false, _) => fits(&exchange.body, body.trim_end_matches('\n'), names),
    };
    (!same).then(|| format!("the body is {body}, not {}", exchange.body))
}

/// A request's head and body, as they come.
fn request(stream: &mut TcpStream, title: &str) -> (String, String) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let count = stream.read(&mut buffer).expect("a request");
        bytes.extend_from_slice(&buffer[..count]);
        assert!(count > 0, "{title}: the request broke off");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().expect("a length"))
        });
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            return (head, String::from_utf8_lossy(&bytes[end + 4..]).into_owned());
        }
    }
}

/// The parts of a multipart body in order: of the archive its name, of all others what they hold too.
fn parts(body: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = body.lines().collect();
    let begins: Vec<usize> =
        (0..lines.len()).filter(|at| lines[*at].to_lowercase().starts_with("content-disposition:")).collect();
    let part = |at: &usize| {
        let name = lines[*at].split("name=\"").nth(1)?.split('"').next()?.to_owned();
        let content = match name.as_str() {
            "file" => String::new(),
            _ => lines[at + 1..].iter().find(|line| !line.is_empty())?.to_string(),
        };
        // Its members in one order.
        let content = serde_json::from_str::<Value>(&content).map_or(content, |value| value.to_string());
        Some((name, content))
    };
    begins.iter().filter_map(part).collect()
}

/// Plays each command of a file against a server that answers as written below it.
pub fn play(name: &str) {
    let mut commands: Vec<(Command, Vec<Exchange>)> = Vec::new();
    let mut of_command = false;
    for step in read(&file(name)) {
        match step {
            Step::Order(..) => of_command = false,
            Step::Command(command) => {
                commands.push((command, Vec::new()));
                of_command = true;
            }
            Step::Exchange(exchange) => {
                if let Some((_, exchanges)) = commands.last_mut().filter(|_| of_command) {
                    exchanges.push(exchange);
                }
            }
        }
    }
    assert!(!commands.is_empty(), "{name} has no command");
    // Some at a time: each has a home of its own, and waits more than it works.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS)
            .map(|first| {
                let mine = commands.iter().skip(first).step_by(PLAYERS);
                scope.spawn(move || mine.flat_map(|(command, row)| play_command(command, row)).collect())
            })
            .collect();
        let wrong = players.into_iter().map(|player| player.join());
        wrong.flat_map(|wrong: std::thread::Result<Vec<String>>| wrong.expect("played")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs a command against a server that answers so; what it did wrong.
fn play_command(command: &Command, exchanges: &[Exchange]) -> Vec<String> {
    let test = Test::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("http://{address}");
    let mut names = samples();
    names.insert("url".to_owned(), url.clone());
    names.insert("agents".to_owned(), agents().display().to_string());
    let count = exchanges.len();
    let (heard, done) = scripted(listener, exchanges.to_vec(), names.clone());
    let given: Vec<String> = command.args.iter().map(|arg| filled(arg, &names)).collect();
    let all = ["--url", &url].into_iter().chain(given.iter().map(String::as_str));
    let run = test.args(all).env("SUPERSERVE_API_KEY", &names["token"]);
    let output = run.any_stdout().any_stderr().any_status().run();
    let played = done.try_iter().count();
    let mut wrong: Vec<String> = heard.try_iter().collect();
    drop(TcpStream::connect(address));
    if played == count {
        // As far as the server has ended.
        wrong.extend(heard);
    }
    if output.status != command.status {
        wrong.push(format!("it exits with {}, not {}", output.status, command.status));
    }
    if played != count {
        wrong.push(format!("it makes {played} requests of {count}"));
    }
    if !shows(&command.stdout, &output.stdout, &mut names) {
        wrong.push(format!("it prints on stdout\n{}", output.stdout));
    }
    if !shows(&command.stderr, &output.stderr, &mut names) {
        wrong.push(format!("it prints on stderr\n{}", output.stderr));
    }
    for (file, content) in &command.files {
        let there = fs::read(test.work().join(file)).unwrap_or_default();
        if there != bytes(content) {
            wrong.push(format!("{file} holds {:?}", String::from_utf8_lossy(&there)));
        }
    }
    wrong.into_iter().map(|sentence| format!("{}: {sentence}", command.title)).collect()
}

/// Whether these lines, and no others, are what was printed.
fn shows(lines: &[String], printed: &str, names: &mut Names) -> bool {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let text = text.strip_suffix("\\\n").map_or(text.clone(), str::to_owned);
    if text == "{export}\n" {
        return String::from_utf8_lossy(&exported()) == printed;
    }
    let is_json = serde_json::from_str::<Value>(&text.replace("<ms>", "0").replace("<any>", "0"));
    match is_json.is_ok_and(|value| value.is_object() || value.is_array()) {
        true => fits_json(&text, printed, names),
        false => fits(&text, printed, names),
    }
}
