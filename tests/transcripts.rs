//! The golden transcripts, played against the real server and against the real commands.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::process::PATIENCE;
use crate::remote::Served;
use crate::request::{Answer, is_whole, parse};
use crate::test::{Test, agents};
use crate::transcript::{Exchange, Names, Step, files, filled, fits, fits_json, read};

trait Connection: Read + Write + Send {}
impl Connection for TcpStream {}
impl Connection for UnixStream {}

/// One file, played from its begin.
struct Play {
    served: Served,
    names: Names,
    /// The answer that was left open, as far as it has come.
    open: Option<(Exchange, Box<dyn Connection>, Vec<u8>)>,
}

impl Play {
    fn new() -> Self {
        let served = Served::new();
        let token = served.token("t", "admin");
        let names = Names::from([("token".to_owned(), token)]);
        Self { served, names, open: None }
    }

    fn order(&mut self, word: &str, argument: &str) {
        match word {
            "cut" => drop(self.open.take().expect("an open answer")),
            "finish" => {
                let (exchange, mut stream, mut bytes) = self.open.take().expect("an open answer");
                stream.read_to_end(&mut bytes).expect("the rest");
                self.compare(&exchange, &parse(&bytes));
            }
            "told" => {
                let (exchange, mut stream, mut bytes) = self.open.take().expect("an open answer");
                let events = |text: &str| text.matches("event: ").count();
                let mut buffer = [0; 4096];
                while !bytes.ends_with(b"\n\n\r\n")
                    || events(&String::from_utf8_lossy(&bytes)) < events(&exchange.answer)
                {
                    let count = stream.read(&mut buffer).expect("an event");
                    assert!(count > 0, "{}: it ends", exchange.title);
                    bytes.extend_from_slice(&buffer[..count]);
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                self.compare(&exchange, &parse(&bytes));
            }
            "pass" => self.served.test.pass(humantime::parse_duration(argument).expect("a time")),
            _ => panic!("unknown order {word}"),
        }
    }

    fn exchange(&mut self, exchange: &Exchange) {
        eprintln!("{}", exchange.title);
        // A run's ID that the request makes up.
        if exchange.body.contains("{run}") && !self.names.contains_key("run") {
            self.names.insert("run".to_owned(), format!("run_{:032x}", 7));
        }
        let (mut stream, head) = self.connect(exchange);
        let bytes = self.body(exchange);
        let length =
            if bytes.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", bytes.len()) };
        stream.write_all(format!("{head}{length}\r\n").as_bytes()).expect("a head");
        // A server that refuses a request may answer and close before it has read it whole.
        let _ = stream.write_all(&bytes);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if is_whole(&bytes) || (exchange.open && String::from_utf8_lossy(&bytes).contains("event: ")) {
                break;
            }
            match stream.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", exchange.title)) {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        match exchange.open {
            true => self.open = Some((exchange.clone(), stream, bytes)),
            false => self.compare(exchange, &parse(&bytes)),
        }
    }

    fn connect(&self, exchange: &Exchange) -> (Box<dyn Connection>, String) {
        let served = &self.served;
        let target = filled(&exchange.target, &self.names);
        let authorization = exchange.header("authorization").unwrap_or("Bearer {token}");
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", exchange.method, served.address);
        if !["none", "owner"].contains(&authorization) {
            head.push_str(&format!("Authorization: {}\r\n", filled(authorization, &self.names)));
        }
        for (name, value) in [("Accept", "*/*"), ("Content-Type", "application/json")] {
            if exchange.header(name).is_none() {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in &exchange.headers {
            if !name.eq_ignore_ascii_case("authorization") {
                head.push_str(&format!("{name}: {}\r\n", filled(value, &self.names)));
            }
        }
        let stream: Box<dyn Connection> = if authorization == "owner" {
            let stream = UnixStream::connect(served.test.home().join("run/server.sock")).expect("the socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            Box::new(stream)
        } else {
            let stream = TcpStream::connect(&served.address).expect("the server");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            Box::new(stream)
        };
        (stream, head)
    }

    fn body(&self, exchange: &Exchange) -> Vec<u8> {
        if !exchange.header("content-type").is_some_and(|kind| kind.starts_with("multipart/")) {
            return filled(&exchange.body, &self.names).into_bytes();
        }
        let mut bytes = Vec::new();
        for line in exchange.body.lines() {
            match line.strip_prefix("{archive:").and_then(|rest| rest.strip_suffix('}')) {
                Some(agent) => bytes.extend(archive(agent)),
                None => bytes.extend_from_slice(line.as_bytes()),
            }
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    fn compare(&mut self, exchange: &Exchange, answer: &Answer) {
        let title = &exchange.title;
        assert_eq!(answer.status, exchange.status, "{title}: {answer:?}");
        for (name, value) in &exchange.answer_headers {
            let came = answer.header(&name.to_lowercase());
            match value.as_str() {
                "-" => assert_eq!(came, None, "{title}: {name}"),
                value => {
                    let came = came.unwrap_or_else(|| panic!("{title}: no {name}: {answer:?}"));
                    assert!(fits(value, came, &mut self.names), "{title}: {name}: {came}, not {value}");
                }
            }
        }
        let is_json = answer.header("content-type") == Some("application/json");
        let fits = match is_json {
            true => fits_json(&exchange.answer, &answer.body, &mut self.names),
            false => fits(&exchange.answer_text(), &answer.body, &mut self.names),
        };
        assert!(fits, "{title}: the answer is\n{}\nand should be\n{}", answer.body, exchange.answer);
        // Whatever goes wrong has a sentence, and a word for programs.
        if answer.status >= 400 && is_json {
            let body = answer.json();
            assert!(body["detail"].is_string() && body["details"]["code"].is_string(), "{title}: {body}");
        }
    }
}

/// An agent of the tests' as the clients pack it.
fn archive(agent: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.mode(tar::HeaderMode::Deterministic);
    archive.append_dir_all(".", agents().join(agent)).expect("an agent");
    archive.into_inner().and_then(GzEncoder::finish).expect("an archive")
}

#[test]
fn the_server_answers_to_the_letter() {
    for file in files() {
        let mut play = Play::new();
        for step in read(&file) {
            match step {
                Step::Order(word, argument) => play.order(&word, &argument),
                Step::Exchange(exchange) => play.exchange(&exchange),
                Step::Command(..) => {}
            }
        }
    }
}

#[test]
fn every_route_has_a_transcript() {
    let served = Served::new();
    let token = served.token("t", "read");
    let document = served.ask("GET", "/v1/openapi.json", &token, "").json();
    let mut routes: Vec<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(|method| (method.to_uppercase(), path.clone()))
        })
        .filter(|(method, _)| ["DELETE", "GET", "PATCH", "POST", "PUT"].contains(&method.as_str()))
        .collect();
    // The owner's page is none of the API.
    routes.extend(
        [("GET", "/device"), ("POST", "/device/login"), ("POST", "/device/decide")]
            .map(|(m, p)| (m.into(), p.into())),
    );
    assert!(routes.len() > 35, "{routes:?}");
    let shown: Vec<Exchange> = files()
        .iter()
        .flat_map(|file| read(file))
        .filter_map(|step| match step {
            Step::Exchange(exchange) => Some(exchange),
            _ => None,
        })
        .collect();
    let mut missing = BTreeSet::new();
    for (method, path) in &routes {
        let is_it =
            |exchange: &&Exchange| exchange.method == *method && leads_to(&exchange.target, path, &routes);
        if !shown.iter().any(|exchange| exchange.status < 400 && is_it(&exchange)) {
            missing.insert(format!("{method} {path}"));
        }
    }
    assert!(missing.is_empty(), "no transcript shows {missing:?}");
}

/// Whether a request's target is answered by the route with this path.
fn leads_to(target: &str, path: &str, routes: &[(String, String)]) -> bool {
    let target: Vec<&str> = target.split(['?', '/']).collect();
    let asked = target.iter().position(|part| part.contains('=')).unwrap_or(target.len());
    let target: Vec<&str> = target[..asked].iter().filter(|part| !part.is_empty()).copied().collect();
    let parts =
        |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let fits = |parts: &[String]| {
        let rest = parts.last().is_some_and(|last| last.contains("path}"));
        (parts.len() == target.len() || (rest && target.len() >= parts.len()))
            && parts.iter().zip(&target).all(|(part, word)| part.starts_with('{') || part == word)
    };
    // A word goes before a name: `/sessions/stats` is no session.
    let words = |parts: &[String]| parts.iter().filter(|part| !part.starts_with('{')).count();
    let best = routes
        .iter()
        .map(|(_, path)| parts(path))
        .filter(|parts| fits(parts))
        .max_by_key(|parts| words(parts));
    best == Some(parts(path))
}

/// What names stand for where there is no server to name things.
fn samples() -> Names {
    [
        ("token", "ss_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"),
        ("agent", "agt_0123456789ab"),
        ("session", "ses_5a3f0000000000000000000000000001"),
        ("other", "ses_5a3f0000000000000000000000000002"),
        ("run", "run_00000000000000000000000000000007"),
        ("agenthash", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("build", "0123456789abcdef"),
        ("id", "tok_0123456789abcdef"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A server that knows nothing but one row of exchanges: its URL, what the requests had wrong, and a word for each that was
/// played.
fn scripted(exchanges: Vec<Exchange>) -> (String, mpsc::Receiver<String>, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (wrong, told) = mpsc::channel();
    let (played, done) = mpsc::channel();
    std::thread::spawn(move || {
        for exchange in exchanges {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            let mut names = samples();
            names.remove("run");
            if let Some(sentence) = heard(&mut stream, &exchange, &mut names) {
                let _ = wrong.send(format!("{}: {sentence}", exchange.title));
            }
            let mut all = samples();
            all.append(&mut names);
            let body = filled(&exchange.answer_text(), &all);
            let mut head = format!("HTTP/1.1 {} Golden\r\n", exchange.status);
            let has_type = exchange.answer_header("content-type").is_some();
            if !has_type {
                head.push_str("Content-Type: application/json\r\n");
            }
            for (name, value) in &exchange.answer_headers {
                if value != "-" && !name.eq_ignore_ascii_case("connection") {
                    head.push_str(&format!("{name}: {}\r\n", filled(value, &all)));
                }
            }
            head.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            stream.write_all(head.as_bytes()).expect("an answer");
            let _ = played.send(());
        }
    });
    (url, told, done)
}

/// Reads a request; what of it is not as it should be.
fn heard(stream: &mut TcpStream, exchange: &Exchange, names: &mut Names) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    let (head, body) = loop {
        let count = stream.read(&mut buffer).expect("a request");
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            assert!(count > 0, "{}: the request broke off", exchange.title);
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().expect("a length"))
        });
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            break (head, String::from_utf8_lossy(&bytes[end + 4..]).into_owned());
        }
    };
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != exchange.method || !fits(&exchange.target, target, names) {
        return Some(format!(
            "the request is {method} {target}, not {} {}",
            exchange.method, exchange.target
        ));
    }
    let bearer = format!("authorization: bearer {}", names["token"].to_lowercase());
    if !head.to_lowercase().contains(&bearer) {
        return Some(format!("no token in {head}"));
    }
    let same = match (exchange.body.is_empty(), exchange.header("content-type")) {
        (_, Some(kind)) if kind.starts_with("multipart/") => parts(&exchange.body) == parts(&body),
        // The original clients send no body where ours sends `{}`.
        (true, _) => body.is_empty() || body == "{}",
        (false, _) => fits_json(&exchange.body, &body, names),
    };
    (!same).then(|| format!("the body is {body}, not {}", exchange.body))
}

/// The parts of a multipart body, by their names, in order.
fn parts(body: &str) -> Vec<String> {
    let names = body.lines().filter(|line| line.to_lowercase().starts_with("content-disposition:"));
    names.filter_map(|line| Some(line.split("name=\"").nth(1)?.split('"').next()?.to_owned())).collect()
}

#[test]
fn the_client_asks_to_the_letter() {
    let mut played = 0;
    let mut wrong = Vec::new();
    for file in files() {
        let steps = read(&file);
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let Step::Command(args, printed) = step else { continue };
            let mut exchanges = Vec::new();
            while let Some(Step::Exchange(exchange)) = steps.next_if(|step| matches!(step, Step::Exchange(_)))
            {
                exchanges.push(exchange);
            }
            wrong.extend(play_command(&args, &printed, exchanges));
            played += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(played >= 10, "{played} commands");
}

/// Runs a command against a server that answers so; what it did wrong.
fn play_command(args: &[String], printed: &[String], exchanges: Vec<Exchange>) -> Vec<String> {
    let test = Test::new();
    let names = samples();
    let count = exchanges.len();
    let (url, heard, done) = scripted(exchanges);
    let given: Vec<String> = args.iter().map(|arg| filled(arg, &names)).collect();
    let all = ["--url", &url].into_iter().chain(given.iter().map(String::as_str));
    let command = test.args(all).env("SUPERSERVE_API_KEY", &names["token"]);
    let output = command.any_stdout().any_stderr().any_status().run();
    let mut wrong: Vec<String> = heard.try_iter().collect();
    if output.status != 0 {
        wrong.push(format!("{output:?}"));
    }
    let played = done.try_iter().count();
    if played != count {
        wrong.push(format!("it makes {played} requests of {count}"));
    }
    let expected: String = printed.iter().map(|line| format!("{line}\n")).collect();
    if !printed.is_empty() && !fits(&expected, &output.stdout, &mut samples()) {
        wrong.push(format!("it prints\n{}", output.stdout));
    }
    wrong.into_iter().map(|wrong| format!("{}: {wrong}", given.join(" "))).collect()
}
