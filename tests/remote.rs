//! A server that lets others in: addresses, TLS, tokens, logins, contexts.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::command::Running;
use crate::process::wait_for;
use crate::request::{Answer, over_tcp, read_whole, request};
use crate::test::{NO_SESSIONS, Test, short, told};

/// A server that listens, and the home that it serves.
pub struct Served {
    pub test: Test,
    serve: Option<Running>,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Served {
    pub fn new() -> Self {
        Self::with(Test::new(), &["--listen", "127.0.0.1:0"])
    }

    pub fn with(test: Test, flags: &[&str]) -> Self {
        let serve = test.args(["serve"].iter().chain(flags)).start();
        let address = wait_for("the server to listen", || {
            let status =
                test.args(["server", "status", "--json"]).any_stdout().any_stderr().any_status().run();
            let status: Value = serde_json::from_str(&status.stdout).ok()?;
            Some(status["address"].as_str()?.split_once("://")?.1.to_owned())
        });
        Self { test, serve: Some(serve), address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn token(&self, name: &str, scope: &str) -> String {
        let made =
            self.test.args(["tokens", "create", name, "--scope", scope]).any_stdout().any_stderr().run();
        made.stdout.trim_end().to_owned()
    }

    pub fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        over_tcp(&self.address, method, path, &[("Authorization", &bearer)], body)
    }

    /// Another user's home, logged in at this server, which its commands speak to.
    pub fn user(&self, scope: &str) -> Test {
        let user = Test::new();
        let token = self.token(scope, scope);
        user.args(["login", "--url", &self.url(), "--api-key", &token]).any_stderr().run();
        user.args(["context", "use", "127.0.0.1"]).any_stderr().run();
        user
    }

    /// Ends the server; what it has logged.
    pub fn log(mut self) -> String {
        let serve = self.serve.take().expect("a server");
        serve.signal(Signal::TERM);
        let ended = serve.finish();
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        ended.stderr
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(serve) = self.serve.take() {
            serve.signal(Signal::TERM);
            serve.finish();
        }
    }
}

fn error(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (answer.status, text(&body["details"]["code"]), text(&body["detail"]))
}

const NO_TOKEN: &str = "Not authenticated: this server wants a token. Log in with: superserve login";
const BAD_TOKEN: &str = "The token is not valid: it was revoked, has expired, or is another server's. Log in again with: superserve login";

#[test]
fn others_need_a_token_and_the_owner_none() {
    let served = Served::new();
    let token = served.token("ada", "read");
    assert!(token.starts_with("ss_") && token.len() == 46, "{token}");
    for path in ["/v1/health", "/v1/version"] {
        assert_eq!(over_tcp(&served.address, "GET", path, &[], "").status, 200, "{path}");
    }
    let refused = over_tcp(&served.address, "GET", "/v1/sessions", &[], "");
    assert_eq!(error(&refused), (401, "unauthenticated".into(), NO_TOKEN.into()));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let changed = format!("{}x", &token[..45]);
    for wrong in ["", "x", "ss_", changed.as_str(), &token[3..]] {
        let answer = served.ask("GET", "/v1/sessions", wrong, "");
        assert_eq!(answer.status, 401, "{wrong}");
    }
    assert_eq!(error(&served.ask("GET", "/v1/sessions", &changed, "")).2, BAD_TOKEN);
    assert_eq!(served.ask("GET", "/v1/sessions", &token, "").json(), json!({ "sessions": [] }));
    let user = served.ask("GET", "/v1/auth/validate", &token, "").json();
    assert_eq!(user["valid"], true);
    assert_eq!(user["user"]["email"], "ada@superserve.local");
    assert_eq!(served.ask("GET", "/v1/auth/me", &token, "").json()["full_name"], "ada");
    // Over the socket its owner asks, by any name.
    assert_eq!(request(&served.test, "GET", "/sessions", None).status, 200);
    assert_eq!(request(&served.test, "GET", "/auth/me", None).json()["id"], "owner");
    let log = served.log();
    assert!(!log.contains(&token), "no token is logged: {log}");
    assert!(log.contains("nobody can come in over the network yet"), "{log}");
}

#[test]
fn a_token_may_do_what_its_scope_says() {
    let served = Served::new();
    let agent = served.test.deploy("echo");
    let (read, write, admin) =
        (served.token("r", "read"), served.token("w", "write"), served.token("a", "admin"));
    let create = json!({ "agent_id": agent }).to_string();
    let refused = served.ask("POST", "/v1/sessions", &read, &create);
    let sentence = "The token 'r' has the scope read, and this takes write";
    assert_eq!(error(&refused), (403, "forbidden".into(), sentence.into()));
    assert_eq!(served.ask("POST", "/v1/sessions", &write, &create).status, 201);
    for (method, path) in [
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("DELETE", "/v1/tokens/a"),
        ("POST", "/v1/server/gc"),
        ("POST", "/v1/server/stop"),
        ("POST", "/v1/server/backup"),
        ("POST", "/v1/auth/device-approve"),
    ] {
        assert_eq!(served.ask(method, path, &write, "{}").status, 403, "{method} {path}");
    }
    assert_eq!(served.ask("GET", "/v1/tokens", &admin, "").json()["tokens"].as_array().unwrap().len(), 3);
    assert_eq!(served.ask("POST", "/v1/server/gc", &admin, "{}").status, 200);
}

#[test]
fn tokens_are_listed_expire_and_are_revoked() {
    let served = Served::new();
    let test = &served.test;
    test.args(["tokens", "list"])
        .stderr("No tokens found. Make one with: superserve tokens create NAME\n")
        .run();
    let made = test
        .args(["tokens", "create", "ci", "--expires", "30d", "--scope", "read"])
        .any_stdout()
        .stderr(
            "✓ Token ci made: it may read and expires 2026-04-08 10:15:00 UTC\n  \
             This is the only time that it is shown:\n",
        )
        .run();
    assert_eq!(made.stdout.lines().count(), 1, "alone on stdout");
    let token = made.stdout.trim_end();
    let row = |used: &str| {
        let list = test.args(["tokens", "list"]).any_stdout().run().stdout;
        let row = list.lines().nth(1).expect("a row").to_owned();
        assert!(!list.contains("ss_"), "{list}");
        assert!(row.starts_with("ci    read   Just now  ") || row.contains(used), "{row}");
        assert!(row.contains(used), "{row}");
    };
    row("Never");
    assert_eq!(served.ask("GET", "/v1/sessions", token, "").status, 200);
    row("Just now   2026-04-08");
    let listed = test.json(["tokens", "list", "--json"]);
    assert_eq!(listed[0]["last_used_at"], "2026-03-09T10:15:00Z");
    test.args(["tokens", "create", "ci"])
        .status(5)
        .stderr(told(
            "There is a token called 'ci' already",
            "Take another name, or revoke it first: superserve tokens revoke NAME.",
        ))
        .run();
    test.pass(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(served.ask("GET", "/v1/sessions", token, "").status, 401, "it has expired");
    test.args(["tokens", "revoke", "ci"]).stderr("✓ Token ci revoked\n").run();
    test.args(["tokens", "revoke", "ci"]).status(3).any_stderr().run();
    let other = served.token("b", "write");
    assert_eq!(served.ask("GET", "/v1/sessions", &other, "").status, 200);
    let id = test.json(["tokens", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    test.args(["tokens", "revoke", &id]).any_stderr().run();
    assert_eq!(served.ask("GET", "/v1/sessions", &other, "").status, 401, "it was revoked");
    test.args(["tokens", "create", "a/b"]).status(2).any_stderr().run();
    test.args(["tokens", "create", "never", "--expires", "0s"]).status(2).any_stderr().run();
    let database = fs::read(test.home().join("superserve.db")).unwrap();
    assert!(!database.windows(token.len()).any(|bytes| bytes == token.as_bytes()), "only its hash is kept");
}

#[test]
fn is_called_by_its_names_and_used_by_no_page_of_another() {
    let served = Served::new();
    let token = format!("Bearer {}", served.token("t", "admin"));
    let ask = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = [("Authorization", token.as_str())].iter().chain(headers).copied().collect();
        over_tcp(&served.address, "GET", "/v1/sessions", &headers, "")
    };
    assert_eq!(ask(&[("Host", "localhost:1")]).status, 200);
    assert_eq!(error(&ask(&[("Host", "evil.example")])).2, "This server is not called 'evil.example'");
    let page = ask(&[("Origin", "https://evil.example")]);
    assert_eq!(error(&page).2, "Pages of 'https://evil.example' may not use this server");
    assert_eq!(page.header("access-control-allow-origin"), None);
    assert_eq!(ask(&[("Origin", "null")]).status, 403);
    assert_eq!(ask(&[("Origin", &served.url())]).status, 200, "its own");
    // Not even without a token.
    let health = over_tcp(&served.address, "GET", "/v1/health", &[("Host", "evil.example")], "");
    assert_eq!(health.status, 403);
}

#[test]
fn pages_that_are_allowed_may_use_it() {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--public-url",
        "https://agents.example.com/",
        "--cors-origin",
        "https://app.example.com",
    ];
    let served = Served::with(Test::new(), &flags);
    let token = format!("Bearer {}", served.token("t", "read"));
    let preflight = |origin: &str| {
        let headers = [
            ("Host", "agents.example.com"),
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, content-type"),
        ];
        over_tcp(&served.address, "OPTIONS", "/v1/sessions", &headers, "")
    };
    let allowed = preflight("https://app.example.com");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        Some("authorization,content-type,last-event-id")
    );
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
    let headers = [
        ("Host", "agents.example.com"),
        ("Origin", "https://app.example.com"),
        ("Authorization", token.as_str()),
    ];
    let answer = over_tcp(&served.address, "GET", "/v1/sessions", &headers, "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    let code = over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").json();
    assert_eq!(code["verification_uri"], "https://agents.example.com/device");
    drop(served);
    let settings = Test::new()
        .env("SUPERSERVE_SERVER_CORS", "https://app.example.com")
        .env("SUPERSERVE_SERVER_PUBLIC_URL", "https://agents.example.com");
    let served = Served::with(settings, &["--listen", "127.0.0.1:0"]);
    let code = over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").json();
    assert_eq!(code["verification_uri"], "https://agents.example.com/device");
    let headers = [("Origin", "https://app.example.com")];
    let answer = over_tcp(&served.address, "GET", "/v1/health", &headers, "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
}

#[test]
fn a_token_that_asks_too_often_is_told_when_to_come_again() {
    let test = Test::new().env("SUPERSERVE_SERVER_RATE_LIMIT", "1");
    let served = Served::with(test, &["--listen", "127.0.0.1:0"]);
    let (one, other) = (served.token("one", "read"), served.token("other", "read"));
    let refused =
        (0..50).map(|_| served.ask("GET", "/v1/auth/me", &one, "")).find(|answer| answer.status != 200);
    let refused = refused.expect("a limit");
    assert_eq!(error(&refused), (429, "rate_limited".into(), "Too many requests. Try again in 1 s".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(served.ask("GET", "/v1/auth/me", &other, "").status, 200, "each has its own");
    // Who guesses is slowed down too.
    let guess = |n: u32| served.ask("GET", "/v1/auth/me", &format!("ss_{n}"), "").status;
    assert!((0..500).map(guess).any(|status| status == 429));
    assert_eq!(served.ask("GET", "/v1/auth/me", &other, "").status, 200, "and those with a token are not");
}

/// A certificate for localhost and its key, with its own authority's certificate for clients.
fn certificate(test: &Test) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    (test.write("cert.pem", &made.cert.pem()), test.write("key.pem", &made.signing_key.serialize_pem()))
}

#[test]
fn with_a_certificate_others_come_over_tls() {
    let test = Test::new();
    let (cert, key) = certificate(&test);
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let flags = ["--listen", "0.0.0.0:0", "--tls-cert", cert, "--tls-key", key];
    let served = Served::with(test, &flags);
    let port = served.address.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}");
    let token = served.token("ada", "write");
    let user = Test::new();
    user.args(["login", "--url", &url, "--api-key", &token])
        .status(6)
        .stderr_part(&format!("✗ cannot trust {url}: "))
        .stderr_part("SSL_CERT_FILE=ca.pem.")
        .run();
    assert!(!user.home().parent().unwrap().join("user/.superserve").exists(), "nothing is kept");
    let trusting = |args: &[&str]| {
        user.args(args.iter().copied()).env("SSL_CERT_FILE", cert).any_stdout().any_stderr().run()
    };
    trusting(&["login", "--url", &url, "--api-key", &token]);
    let info: Value =
        serde_json::from_str(&trusting(&["--url", &url, "server", "status", "--json"]).stdout).unwrap();
    assert_eq!(info["address"], format!("https://0.0.0.0:{port}"));
    user.args(["--url", &format!("http://localhost:{port}"), "sessions", "list"])
        .status(6)
        .any_stderr()
        .run();
    // TLS where there is none.
    let plain = Served::new();
    user.args(["--url", &format!("https://{}", plain.address), "sessions", "list"])
        .status(6)
        .stderr_part("It speaks no TLS there: is the port right, or is it http://?")
        .run();
}

#[test]
fn a_renewed_certificate_needs_no_restart() {
    let test = Test::new();
    let (cert, key) = certificate(&test);
    let flags =
        ["--listen", "127.0.0.1:0", "--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let served = Served::with(test, &flags);
    let url = format!("https://{}", served.address);
    let token = served.token("ada", "read");
    let user = Test::new();
    let old = user.write("old.pem", &fs::read_to_string(&cert).unwrap());
    let trusts = |authority: &Path| {
        let asked = user.args(["--url", &url, "sessions", "list"]).env("SUPERSERVE_API_KEY", &token);
        asked.env("SSL_CERT_FILE", authority.to_str().unwrap()).any_stderr().any_status().run().status == 0
    };
    assert!(trusts(&old));
    let other = Test::new();
    let (new_cert, new_key) = certificate(&other);
    // Half of a pair, and then what is no certificate: whoever comes gets the old one.
    fs::rename(&new_cert, &cert).unwrap();
    assert!(trusts(&old));
    let new = user.write("new.pem", &fs::read_to_string(&cert).unwrap());
    served.test.write("cert.pem", "nothing");
    assert!(trusts(&old));
    fs::copy(&new, &cert).unwrap();
    fs::rename(&new_key, &key).unwrap();
    assert!(trusts(&new) && !trusts(&old));
    let log = served.log();
    assert!(log.contains("the certificate stays the old one"), "{log}");
    assert!(log.contains("the certificate was renewed"), "{log}");
}

#[test]
fn off_loopback_it_wants_tls_or_to_be_told_otherwise() {
    let test = Test::new();
    let serve = |flags: &[&str]| test.args(["serve"].iter().chain(flags)).any_stderr().any_status().run();
    let refused = serve(&["--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains(
            "✗ 0.0.0.0:0 can be reached by others, and without TLS everybody in between reads the tokens\n"
        ),
        "{}",
        refused.stderr
    );
    for (flags, part) in [
        (vec!["--listen", "nobody.invalid:1"], "✗ cannot listen on nobody.invalid:1: "),
        (vec!["--listen", "127.0.0.1"], "✗ cannot listen on 127.0.0.1: "),
        (
            vec!["--listen", "127.0.0.1:0", "--tls-cert", "no.pem", "--tls-key", "no.pem"],
            "✗ cannot use the certificate no.pem: ",
        ),
    ] {
        let refused = serve(&flags);
        assert_eq!(refused.status, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    for wrong in
        [vec!["--tls-cert", "x"], vec!["--insecure"], vec!["--listen", "127.0.0.1:0", "--public-url", "x"]]
    {
        assert_eq!(serve(&wrong).status, 2, "{wrong:?}");
    }
    let served = Served::with(test, &["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(served.log().contains("others are let in without TLS"));
}

#[test]
fn who_still_sends_hears_why_nothing_more_is_taken() {
    let served = Served::new();
    let token = served.token("ada", "write");
    for (bearer, expected) in [(token.as_str(), (413, "too_large")), ("wrong", (401, "unauthenticated"))] {
        let mut stream = TcpStream::connect(&served.address).unwrap();
        let head = format!(
            "POST /v1/agents HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {}\r\n\r\n",
            served.address,
            300 << 20
        );
        stream.write_all(head.as_bytes()).unwrap();
        // More than any buffer between the two holds.
        for _ in 0..32 {
            stream.write_all(&[b'x'; 1 << 20]).expect("it is read away");
        }
        let (status, code, _) = error(&read_whole(stream));
        assert_eq!((status, code.as_str()), expected);
    }
}

#[test]
fn contexts_that_are_added_at_once_are_all_kept() {
    let user = Test::new();
    let names: Vec<String> = (0..12).map(|n| format!("c{n:02}")).collect();
    let added: Vec<_> = names
        .iter()
        .map(|name| user.args(["context", "add", name, "http://127.0.0.1:9"]).any_stderr().start())
        .collect();
    for command in added {
        let output = command.finish();
        assert_eq!(output.status, 0, "{output:#?}");
    }
    let listed = user.json(["context", "list", "--json"]);
    let listed: Vec<&str> =
        listed.as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(listed[1..], names, "after the local one");
}

#[test]
fn the_command_line_works_as_well_against_a_remote_server() {
    let served = Served::new();
    let user = served.user("write");
    user.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
    user.deploy("echo");
    let id = user.begin("echo", "hello");
    assert_eq!(user.session(&id)["status"], "idle");
    assert_eq!(served.test.session(&id)["message_count"], 1, "it is there");
    let reply = user.args(["sessions", "send", &id, "again"]).any_stdout().run();
    assert!(reply.stdout.contains("again"), "{}", reply.stdout);
    user.args(["eval", "list().len()"]).stdout("1\n").run();
    user.args(["--context", "local", "sessions", "list"]).stderr(NO_SESSIONS).run();
    user.args(["sessions", "end", short(&id)]).any_stderr().run();
    assert_eq!(served.test.status_of(&id), "ended");
    user.args(["tokens", "list"]).status(4).any_stderr().run();
    user.args(["--context", "127.0.0.1", "server", "stop"]).status(2).any_stderr().run();
    user.args(["run", "echo", "hi", "--sandbox", "none"]).status(2).any_stderr().run();
}

#[test]
fn a_login_is_kept_in_the_originals_format_and_a_failed_one_changes_nothing() {
    let served = Served::new();
    let user = Test::new();
    let folder = user.home().parent().unwrap().join("user/.superserve");
    user.args(["login", "--url", &served.url(), "--api-key", "wrong"])
        .status(4)
        .stderr(told(BAD_TOKEN, &format!("At this server: superserve login --url {}", served.url())))
        .run();
    assert!(!folder.exists());
    let token = served.token("ada@example.com", "write");
    user.args(["login", "--url", &served.url(), "--api-key", &token])
        .stderr(format!(
            "✓ Logged in at {} as ada@example.com\n  Commands speak to the local server still: superserve context use \
             127.0.0.1 changes that, --context 127.0.0.1 does for one.\n",
            served.url()
        ))
        .run();
    let auth = folder.join("auth.json");
    let before = fs::read_to_string(&auth).unwrap();
    let value: Value = serde_json::from_str(&before).unwrap();
    assert_eq!(value["token"], token);
    assert_eq!(fs::metadata(&auth).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.join("contexts.json")).unwrap().permissions().mode() & 0o777, 0o600);
    user.args(["login", "--context", "127.0.0.1", "--api-key", "-"])
        .stdin("ss_wrong\n")
        .status(4)
        .any_stderr()
        .run();
    user.args(["login", "--url", "http://127.0.0.1:1", "--api-key", &token])
        .status(6)
        .stderr(
            "✗ cannot reach http://127.0.0.1:1: Connection refused (os error 111)\n  \
             Nobody listens there: does the server run, and is the port right?\n",
        )
        .run();
    assert_eq!(fs::read_to_string(&auth).unwrap(), before, "no failed login touches it");
    user.args(["auth", "status"])
        .stdout("Field         Value\nContext       local\nLogin         none needed: the local server is yours\nLogged in at  127.0.0.1\n")
        .run();
    let status = user.json(["--context", "127.0.0.1", "auth", "status", "--json"]);
    assert_eq!(status["user"]["email"], "ada@example.com");
    // The environment chooses a server, and its token is for that one.
    user.args(["sessions", "list"])
        .env("SUPERSERVE_API_URL", &format!("{}/", served.url()))
        .stderr(NO_SESSIONS)
        .run();
    user.args(["sessions", "list"])
        .env("SUPERSERVE_API_URL", &served.url())
        .env("SUPERSERVE_API_KEY", "ss_x")
        .status(4)
        .any_stderr()
        .run();
    user.args(["sessions", "list"]).env("SUPERSERVE_API_URL", "nonsense").status(2).any_stderr().run();
    user.args(["logout"])
        .stderr(format!(
            "✓ Logged out of {}\n  The token itself counts until the server's owner revokes it: superserve tokens revoke NAME.\n",
            served.url()
        ))
        .run();
    assert!(!auth.exists());
    user.args(["--context", "127.0.0.1", "auth", "status"])
        .status(4)
        .stderr(told(
            &format!("You are not logged in at {}", served.url()),
            &format!("Log in: superserve login --url {}.", served.url()),
        ))
        .run();
    user.args(["login"]).status(2).any_stderr().run();
}

#[test]
fn contexts_are_names_of_servers() {
    let served = Served::new();
    let user = Test::new();
    user.args(["context", "add", "team", &served.url()])
        .stderr(format!(
            "✓ Context team added: {}\n  Log in with superserve login --context team.\n",
            served.url()
        ))
        .run();
    user.args(["context", "add", "team", "http://x"]).status(5).any_stderr().run();
    user.args(["context", "add", "x", "nonsense"]).status(2).any_stderr().run();
    user.args(["context", "use", "nobody"]).status(3).any_stderr().run();
    user.args(["--context", "team", "sessions", "list"])
        .status(4)
        .stderr(told(NO_TOKEN, &format!("At this server: superserve login --url {}", served.url())))
        .run();
    let token = served.token("ada", "write");
    user.args(["login", "--context", "team", "--api-key", &token]).any_stderr().run();
    user.args(["context", "use", "team"]).stderr("✓ Commands speak to team from now on\n").run();
    user.args(["context", "list"])
        .stdout(format!(
            "Context  Server                  Login\nlocal    this machine            not needed\nteam *   {}  yes\n",
            served.url()
        ))
        .run();
    user.args(["sessions", "list"]).stderr(NO_SESSIONS).run();
    user.args(["--context", "team", "--url", &served.url(), "sessions", "list"]).status(2).any_stderr().run();
    user.args(["context", "remove", "team"]).stderr("✓ Context team removed, with its login\n").run();
    assert_eq!(user.json(["context", "list", "--json"])[0]["current"], true);
    user.args(["context", "remove", "local"]).status(2).any_stderr().run();
}

#[test]
fn a_program_without_a_browser_logs_in_by_its_owners_word() {
    let served = Served::new();
    let user = Test::new();
    let url = served.url();
    let login = |deny: bool| {
        let login = user.args(["login", "--url", &url]).start();
        let code = wait_for("a code", || {
            let told = login.stderr();
            Some(told.split("approve the code ").nth(1)?.lines().next()?.to_owned())
        });
        assert!(
            login.stderr().starts_with(&format!("Open {url}/device?code={code} and approve")),
            "{}",
            login.stderr()
        );
        let mut args = vec!["tokens", "approve", &code, "--name", "laptop", "--scope", "read"];
        if deny {
            args = vec!["tokens", "approve", &code, "--deny"];
        }
        served.test.args(args).any_stderr().run();
        // A code is decided once.
        served.test.args(["tokens", "approve", &code]).status(3).any_stderr().run();
        // Between two polls lie five seconds of the server's clock.
        served.test.pass(Duration::from_secs(6));
        login.finish()
    };
    let denied = login(true);
    assert_eq!(denied.status, 4, "{}", denied.stderr);
    assert!(
        denied.stderr.ends_with("✗ the login was denied\n  Begin anew with superserve login.\n"),
        "{}",
        denied.stderr
    );
    let approved = login(false);
    assert_eq!(approved.status, 0, "{}", approved.stderr);
    assert!(approved.stderr.contains("✓ Logged in at"), "{}", approved.stderr);
    assert_eq!(user.json(["--url", &url, "auth", "status", "--json"])["user"]["scope"], "read");
    served.test.args(["tokens", "revoke", "laptop"]).any_stderr().run();
    user.args(["--url", &url, "auth", "status"]).status(4).any_stderr().run();
}

#[test]
fn the_old_clients_poll_with_200() {
    let served = Served::new();
    let post = |path: &str, body: &str| {
        let answer = over_tcp(&served.address, "POST", path, &[("Content-Type", "application/json")], body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let code = post("/v1/auth/device-code", "");
    assert_eq!((&code["expires_in"], &code["interval"]), (&json!(900), &json!(5)));
    let ask = json!({ "device_code": code["device_code"] }).to_string();
    let poll = || post("/v1/auth/device-token", &ask);
    assert_eq!(poll(), json!({ "error": "authorization_pending" }));
    assert_eq!(poll(), json!({ "error": "slow_down" }));
    served.test.pass(Duration::from_secs(10));
    let approve = ["tokens", "approve", code["user_code"].as_str().unwrap(), "--scope", "write"];
    served.test.args(approve).any_stderr().run();
    let granted = poll();
    let token = granted["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(served.ask("GET", "/v1/auth/validate", &token, "").status, 200);
    assert_eq!(poll(), json!({ "error": "expired_token" }), "it is granted once");
    let late = post("/v1/auth/device-code", "");
    served.test.pass(Duration::from_secs(900));
    let ask = json!({ "device_code": late["device_code"] }).to_string();
    assert_eq!(post("/v1/auth/device-token", &ask), json!({ "error": "expired_token" }));
    let waiting = (0..300)
        .map(|_| over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").status)
        .find(|status| *status != 200);
    assert_eq!(waiting, Some(429), "nobody fills the memory");
}

/// What a form on the page holds under a name.
fn hidden(page: &Answer, name: &str) -> String {
    let field = page.body.split(&format!("name=\"{name}\" value=\"")).nth(1);
    field
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("no {name}: {}", page.body))
        .to_owned()
}

#[test]
fn an_owner_approves_on_the_page() {
    let served = Served::new();
    let (admin, write) = (served.token("boss", "admin"), served.token("w", "write"));
    let code = over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").json();
    let user_code = code["user_code"].as_str().unwrap();
    let at = format!("/device?code={user_code}");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let page = over_tcp(&served.address, "GET", &at, &[], "");
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert!(!page.body.contains("<script"));
    assert_eq!(hidden(&page, "code"), user_code);
    let log_in = |token: &str| {
        over_tcp(&served.address, "POST", "/device/login", &form, &format!("code={user_code}&token={token}"))
    };
    assert_eq!(log_in("ss_wrong").status, 401);
    let refused = log_in(&write);
    assert!(refused.status == 401 && refused.body.contains("that takes the scope admin"), "{}", refused.body);
    let logged_in = log_in(&admin);
    assert_eq!(logged_in.status, 303);
    assert_eq!(logged_in.header("location"), Some(at.as_str()));
    let cookie = logged_in.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let asked = over_tcp(&served.address, "GET", &at, &[("Cookie", &cookie)], "");
    assert!(asked.body.contains("<b>127.0.0.1</b>") && asked.body.contains(user_code), "{}", asked.body);
    let secret = hidden(&asked, "form");
    let decide = |headers: &[(&str, &str)], secret: &str| {
        let headers: Vec<_> = form.iter().chain(headers).copied().collect();
        let body = format!("code={user_code}&form={secret}&name=phone&scope=read&decision=approve");
        over_tcp(&served.address, "POST", "/device/decide", &headers, &body)
    };
    assert_eq!(decide(&[], &secret).status, 401, "without the cookie");
    assert_eq!(decide(&[("Cookie", &cookie)], "wrong").status, 401, "a form that is not ours");
    assert_eq!(decide(&[("Cookie", &cookie), ("Origin", "https://evil.example")], &secret).status, 403);
    let origin = served.url();
    let done = decide(&[("Cookie", &cookie), ("Origin", &origin)], &secret);
    assert!(done.status == 200 && done.body.contains("<h1>Approved</h1>"), "{done:?}");
    assert_eq!(decide(&[("Cookie", &cookie)], &secret).status, 404, "once");
    let ask = json!({ "device_code": code["device_code"] }).to_string();
    let granted = over_tcp(&served.address, "POST", "/v1/auth/device-token", &[], &ask).json();
    let token = granted["access_token"].as_str().unwrap();
    assert_eq!(served.ask("GET", "/v1/auth/me", token, "").json()["scope"], "read");
    // An owner who is none any more is logged out.
    served.test.args(["tokens", "revoke", "boss"]).any_stderr().run();
    let after = over_tcp(&served.address, "GET", &at, &[("Cookie", &cookie)], "");
    assert!(after.body.contains("A token of this server with the scope admin"), "{}", after.body);
}

#[test]
fn who_sends_too_much_or_nothing_is_let_go() {
    use std::io::{Read, Write};
    let served = Served::new();
    let token = served.token("t", "write");
    let long = "x".repeat(300_000);
    let answer = over_tcp(&served.address, "GET", "/v1/health", &[("X-Long", &long)], "");
    assert_eq!(answer.status, 431);
    let many: Vec<(String, String)> = (0..200).map(|n| (format!("X-{n}"), "x".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(over_tcp(&served.address, "GET", "/v1/health", &many, "").status, 431);
    let body = format!("{{\"agent_id\": \"{}\"}}", "x".repeat(5 << 20));
    let answer = served.ask("POST", "/v1/sessions", &token, &body);
    assert_eq!(error(&answer).1, "too_large");
    // What is no HTTP is answered and closed; the server goes on.
    let mut stream = std::net::TcpStream::connect(&served.address).unwrap();
    stream.write_all(b"\x16\x03\x01\x00\xff nonsense\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(served.ask("GET", "/v1/auth/me", &token, "").status, 200);
}

#[test]
fn a_running_stream_is_told_that_the_server_ends() {
    let served = Served::new();
    let user = served.user("write");
    user.deploy("slow");
    let (running, _) = user.wait_in("slow");
    served.test.args(["server", "stop"]).any_stderr().run();
    let ended = running.finish();
    assert_eq!(ended.status, 7, "{}", ended.stderr);
    assert!(ended.stdout.contains("server_shutdown"), "{}", ended.stdout);
}

#[test]
fn a_script_speaks_to_several_servers_and_compares_them() {
    let (one, two) = (Served::new(), Served::new());
    let user = Test::new();
    for (name, served) in [("one", &one), ("two", &two)] {
        user.args(["context", "add", name, &served.url()]).any_stderr().run();
        let token = served.token("user", "write");
        user.args(["login", "--context", name, "--api-key", &token]).any_stderr().run();
        served.test.deploy("echo");
    }
    let id = one.test.begin("echo", "hello");
    two.test.create("echo");
    two.test.create("echo");
    let eval = |text: &str| user.args(["eval", text]).any_stdout().run().stdout;
    assert_eq!(
        eval(r#"`${at("one").list().len} ${at("two").list().len} ${at("local").list().len}`"#),
        "1 2 0\n"
    );
    assert_eq!(
        eval(r#"at("two").list(#{ status: "pending" }).len - at("one").list(#{ status: "pending" }).len"#),
        "2\n"
    );
    // What a server gives belongs to it.
    assert_eq!(eval(r#"at("one").list()[0].messages().len"#), "2\n");
    assert_eq!(eval(r#"at("one").list()[0].send("again").text"#), "you said: again\n");
    assert_eq!(eval(&format!(r#"at("one").get("{}").refresh().message_count"#, short(&id))), "2\n");
    assert_eq!(eval(r#"let n = 0; for s in at("two").each() { n += s.files().len + 1; } n"#), "2\n");
    user.args(["eval", r#"end([at("one").list()[0], at("two").list()[0]])"#])
        .status(1)
        .stderr_part("✗ these sessions are on several servers\n")
        .run();
    user.args(["eval", r#"at("one").end(at("two").list().to_array())"#])
        .status(1)
        .stderr_part("✗ these sessions are not on one\n")
        .run();
    assert_eq!(eval(r#"at("one").list().end().ok"#), "1\n");
    assert_eq!(one.test.status_of(&id), "ended");
    assert_eq!(eval(r#"end(at("two").list().to_array()).failed.len"#), "0\n");
    user.args(["eval", r#"at("nobody").list().len"#])
        .status(2)
        .stderr_part("Context not found: no context is called 'nobody'")
        .run();
    user.args(["eval", r#"at("")"#]).status(2).any_stderr().run();
}
