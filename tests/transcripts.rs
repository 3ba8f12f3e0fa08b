//! The golden transcripts, played against the real server. Against the real commands: `tests/scripted.rs`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::process::PATIENCE;
use crate::remote::Served;
use crate::request::{Answer, is_whole, parse};
use crate::test::{Test, agents};
use crate::transcript::{Exchange, Names, Step, file, files, filled, fits, fits_json, read, repeated};

/// So often is an exchange made again until it has the status.
const TRIES: usize = 100;

trait Connection: Read + Write + Send {}
impl Connection for TcpStream {}
impl Connection for UnixStream {}

/// One file, played from its begin.
struct Play {
    served: Served,
    names: Names,
    /// The answer that was left open, as far as it has come.
    open: Option<(Exchange, Box<dyn Connection>, Vec<u8>)>,
    /// A request whose body the server waits for.
    begun: Option<Box<dyn Connection>>,
}

impl Play {
    /// Against a server with these flags and variables.
    fn with(options: &str) -> Self {
        let mut test = Test::new();
        let mut flags = vec!["--listen", "127.0.0.1:0"];
        for word in options.split_whitespace() {
            match word.split_once('=').filter(|_| word.starts_with("SUPERSERVE_")) {
                Some((name, value)) => test = test.env(name, value),
                None => flags.push(word),
            }
        }
        let served = Served::with(test, &flags);
        let token = served.token("t", "admin");
        let names = Names::from([("token".to_owned(), token), ("url".to_owned(), served.url())]);
        Self { served, names, open: None, begun: None }
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
        // A run's ID that the request makes up.
        if exchange.body.contains("{run}") && !self.names.contains_key("run") {
            self.names.insert("run".to_owned(), format!("run_{:032x}", 7));
        }
        let (stream, bytes) = self.answer(exchange);
        if exchange.open {
            self.open = Some((exchange.clone(), stream, bytes));
            return;
        }
        let mut answer = parse(&bytes);
        for _ in 0..if exchange.repeated { TRIES } else { 0 } {
            if answer.status == exchange.status {
                break;
            }
            answer = parse(&self.answer(exchange).1);
        }
        self.compare(exchange, &answer);
    }

    /// Makes a request; its connection and what comes of the answer: all of it, or of an open one its begin.
    fn answer(&mut self, exchange: &Exchange) -> (Box<dyn Connection>, Vec<u8>) {
        let title = &exchange.title;
        let mut stream = match exchange.early {
            true => self.begun.take().expect("it was begun"),
            false => self.asked(exchange, ""),
        };
        // A server that refuses a request may answer and close before it has read it whole.
        let _ = stream.write_all(&self.body(exchange));
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if is_whole(&bytes)
                || (exchange.open && text.contains("event: "))
                || (exchange.method == "HEAD" && text.ends_with("\r\n\r\n"))
            {
                break (stream, bytes);
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).unwrap_or_else(|error| panic!("{title}: {error}")) {
                0 => break (stream, bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Sends a request's head, and waits until the server asks for its body.
    fn begin(&mut self, exchange: &Exchange) {
        let mut stream = self.asked(exchange, "Expect: 100-continue\r\n");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut one = [0];
            stream.read_exact(&mut one).unwrap_or_else(|error| panic!("{}: {error}", exchange.title));
            bytes.push(one[0]);
        }
        assert!(
            bytes.starts_with(b"HTTP/1.1 100 "),
            "{}: {}",
            exchange.title,
            String::from_utf8_lossy(&bytes)
        );
        self.begun = Some(stream);
    }

    /// Connects, and sends a request's head, and these headers too.
    fn asked(&self, exchange: &Exchange, headers: &str) -> Box<dyn Connection> {
        let (mut stream, head) = self.connect(exchange);
        let length = match self.body(exchange).len() {
            0 => String::new(),
            _ if exchange.header("content-length").is_some() => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        stream.write_all(format!("{head}{length}{headers}\r\n").as_bytes()).expect("a head");
        stream
    }

    fn connect(&self, exchange: &Exchange) -> (Box<dyn Connection>, String) {
        let served = &self.served;
        let target = filled(&exchange.target, &self.names);
        let authorization = exchange.header("authorization").unwrap_or("Bearer {token}");
        let mut head = format!("{} {target} HTTP/1.1\r\n", exchange.method);
        if exchange.header("host").is_none() {
            head.push_str(&format!("Host: {}\r\n", served.address));
        }
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
            return filled(&repeated(&exchange.body), &self.names).into_bytes();
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
        let is_json = answer.header("content-type") == Some("application/json") && exchange.method != "HEAD";
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

/// Plays a file against a server of ours, as far as `@ client`.
fn play(name: &str) {
    let steps = read(&file(name));
    let mut play: Option<Play> = None;
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Order(word, _) if word == "client" => break,
            Step::Order(word, options) if word == "serve" => play = Some(Play::with(options)),
            Step::Order(word, argument) => {
                play.get_or_insert_with(|| Play::with("")).order(word, argument);
            }
            Step::Exchange(exchange) => {
                let play = play.get_or_insert_with(|| Play::with(""));
                let next = steps[place + 1..].iter().find_map(|step| match step {
                    Step::Exchange(next) => Some(next),
                    _ => None,
                });
                if let Some(next) = next.filter(|next| next.early && !exchange.early) {
                    play.begin(next);
                }
                play.exchange(exchange);
            }
            Step::Command(_) => {}
        }
    }
    assert!(play.is_some(), "{name} asks nothing");
}

/// A test a file and side.
macro_rules! played {
    (server: $($server:ident)*; client: $($client:ident)*;) => {
        mod the_server_answers_to_the_letter {
            $(#[test] fn $server() { super::play(stringify!($server)); })*
        }

        mod our_client_asks_to_the_letter {
            $(#[test] fn $client() { crate::scripted::play(stringify!($client)); })*
        }

        #[test]
        fn every_file_is_played() {
            let named = BTreeSet::from([$(stringify!($server),)* $(stringify!($client),)*].map(file));
            assert_eq!(files(), Vec::from_iter(named));
        }
    };
}

played! {
    server: agents auth client files original_session refusals server sessions stopping;
    client: client commands device told;
}

#[test]
fn every_route_has_a_transcript() {
    let mut routes = routes();
    // The owner's page is none of the API.
    routes.extend(
        [("GET", "/device"), ("POST", "/device/login"), ("POST", "/device/decide")]
            .map(|(m, p)| (m.into(), p.into())),
    );
    let (asked, ours) = shown();
    let missing = unshown(&routes, &asked);
    assert!(missing.is_empty(), "no transcript shows the server {missing:?}");
    let missing = unshown(&routes, &ours);
    let known: BTreeSet<String> = NOT_OURS.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(
        missing, known,
        "left: what no command asks in a transcript; right: what is known to be asked by none"
    );
}

/// What no command of ours asks over the network, and why.
const NOT_OURS: [(&str, &str); 9] = [
    ("GET /device", "a page, for the owner's browser"),
    ("POST /device/decide", "a page, for the owner's browser"),
    ("POST /device/login", "a page, for the owner's browser"),
    ("GET /v1/auth/me", "the original clients ask it; ours asks /auth/validate, which says the same"),
    ("GET /v1/health", "for what watches over servers"),
    ("GET /v1/metrics", "for Prometheus"),
    ("GET /v1/openapi.json", "for whoever writes another client"),
    ("GET /v1/version", "asked over the socket alone, of the server of this home: tests/versions.rs"),
    ("POST /v1/server/stop", "asked over the socket alone, of the server of this home: tests/server.rs"),
];

/// Every route of the API's document: method and path.
fn routes() -> Vec<(String, String)> {
    let served = Served::new();
    let token = served.token("t", "read");
    let document = served.ask("GET", "/v1/openapi.json", &token, "").json();
    let routes: Vec<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(|method| (method.to_uppercase(), path.clone()))
        })
        .filter(|(method, _)| ["DELETE", "GET", "PATCH", "POST", "PUT"].contains(&method.as_str()))
        .collect();
    assert!(routes.len() > 35, "{routes:?}");
    routes
}

/// The exchanges that are played against the server, and those that are played against commands.
fn shown() -> (Vec<Exchange>, Vec<Exchange>) {
    let (mut asked, mut ours) = (Vec::new(), Vec::new());
    for file in files() {
        let (mut for_client, mut of_command) = (false, false);
        for step in read(&file) {
            match step {
                Step::Order(word, _) => {
                    for_client |= word == "client";
                    of_command = false;
                }
                Step::Command(_) => of_command = true,
                Step::Exchange(exchange) => {
                    if of_command {
                        ours.push(exchange.clone());
                    }
                    if !for_client {
                        asked.push(exchange);
                    }
                }
            }
        }
    }
    (asked, ours)
}

/// The routes that none of these exchanges shows done.
fn unshown(routes: &[(String, String)], shown: &[Exchange]) -> BTreeSet<String> {
    let is_shown = |method: &str, path: &str| {
        shown.iter().any(|exchange| {
            exchange.status < 400 && exchange.method == method && leads_to(&exchange.target, path, routes)
        })
    };
    let missing = routes.iter().filter(|(method, path)| !is_shown(method, path));
    missing.map(|(method, path)| format!("{method} {path}")).collect()
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
