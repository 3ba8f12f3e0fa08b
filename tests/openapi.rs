//! The document of the API: what it names is there, and what the server answers is as it says.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::PATIENCE;
use crate::request::{Answer, read, request};
use crate::test::{Test, agents};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

struct Document(Value);

impl Document {
    fn of(test: &Test) -> Self {
        let answer = request(test, "GET", "/openapi.json", None);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        Self(answer.json())
    }

    /// Every operation: method, path and what is said of it.
    fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                METHODS.into_iter().filter_map(move |method| Some((method, path.as_str(), item.get(method)?)))
            })
            .collect()
    }

    fn operation(&self, method: &str, path: &str) -> &Value {
        let found = &self.0["paths"][path][method];
        assert!(found.is_object(), "{method} {path} is not in the document");
        found
    }

    #[track_caller]
    fn check(&self, schema: &Value, value: &Value) {
        let whole = json!({ "allOf": [schema], "components": self.0["components"] });
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&whole)
            .unwrap_or_else(|error| panic!("{error}: {schema}"));
        let faults: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{value:#} is not as {schema} says: {faults:#?}");
    }

    /// Looks whether an answer is one of those that the document has for this operation.
    #[track_caller]
    fn fits(&self, method: &str, path: &str, answer: &Answer) {
        let operation = self.operation(method, path);
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        let told = &operation["responses"][answer.status.to_string()];
        assert!(told.is_object(), "{method} {path} may not answer {}: {answer:?}", answer.status);
        let kind =
            answer.header("content-type").and_then(|kind| kind.split(';').next()).expect("a content type");
        let content = &told["content"][kind];
        assert!(content.is_object(), "{method} {path} may not answer {kind}: {told}");
        match kind {
            "application/json" => self.check(&content["schema"], &answer.json()),
            "application/x-ndjson" => {
                for line in answer.body.lines() {
                    let row = serde_json::from_str(line).expect("a line of JSON");
                    self.check(&content["itemSchema"], &row);
                }
            }
            "text/event-stream" => {
                let blocks = answer.body.split("\n\n").filter(|block| !block.starts_with(':'));
                for block in blocks.filter(|block| !block.is_empty()) {
                    self.check_frame(&content["itemSchema"], block);
                }
            }
            _ => assert_eq!(content["schema"]["format"], json!(null), "{content}"),
        }
    }

    /// One event of a stream: its fields, and the JSON that its data is.
    fn check_frame(&self, schema: &Value, block: &str) {
        let fields: serde_json::Map<String, Value> = block
            .lines()
            .map(|line| line.split_once(": ").expect("a field"))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let frame = Value::Object(fields);
        self.check(schema, &frame);
        let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).expect("a name");
        let kinds = self.0["components"]["schemas"][name]["oneOf"].as_array().expect("kinds of events");
        let kind = kinds
            .iter()
            .find(|kind| kind["properties"]["event"]["enum"] == json!([frame["event"]]))
            .unwrap_or_else(|| panic!("no event is called {}", frame["event"]));
        let data = serde_json::from_str(frame["data"].as_str().expect("text")).expect("JSON");
        self.check(&kind["properties"]["data"]["contentSchema"], &data);
    }
}

/// A request with a body of any kind.
fn exchange(test: &Test, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let socket = test.json(["server", "status", "--json"])["socket"].as_str().expect("a socket").to_owned();
    let mut stream = UnixStream::connect(socket).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let head = format!(
        "{method} /v1{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body).expect("a body");
    read(stream)
}

/// What `POST /agents` takes.
fn form(agent: &str) -> Vec<u8> {
    let folder = agents().join(agent);
    let packed = std::process::Command::new("tar").arg("-czC").arg(folder).arg(".").output().expect("tar");
    let part = |name: &str| format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"");
    let mut form = format!("{}; filename=\"agent.tar.gz\"\r\n\r\n", part("file")).into_bytes();
    form.extend(packed.stdout);
    let config =
        json!({ "name": agent, "limits": { "run": 60 }, "network": { "allow": ["api.example.com"] } });
    for (name, text) in [
        ("name", agent.to_owned()),
        ("command", "python3 agent.py".to_owned()),
        ("config", config.to_string()),
    ] {
        form.extend(format!("\r\n{}\r\n\r\n{text}", part(name)).into_bytes());
    }
    form.extend(b"\r\n--cut--\r\n");
    form
}

#[test]
fn answers_are_as_the_document_says() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let document = Document::of(&test);
    let mut asked = BTreeSet::new();
    let mut ask = |method: &'static str, path: &str, url: &str, status: u16, body: Option<&str>| {
        let answer = request(&test, &method.to_uppercase(), url, body);
        assert_eq!(answer.status, status, "{method} {url}: {answer:?}");
        document.fits(method, &format!("/v1{path}"), &answer);
        if status < 300 {
            asked.insert((method, format!("/v1{path}")));
        }
        answer
    };
    let session = "/sessions/{id}";
    let of = |rest: &str| format!("/sessions/{id}{rest}");
    ask("get", "/health", "/health", 200, None);
    ask("get", "/version", "/version", 200, None);
    ask("get", "/openapi.json", "/openapi.json", 200, None);
    ask("get", "/metrics", "/metrics", 200, None);
    ask("get", "/server", "/server", 200, None);
    ask("get", "/auth/me", "/auth/me", 200, None);
    ask("get", "/auth/validate", "/auth/validate", 200, None);
    let code = ask("post", "/auth/device-code", "/auth/device-code", 200, None).json();
    let asks = json!({ "device_code": code["device_code"] }).to_string();
    ask("post", "/auth/device-token", "/auth/device-token", 200, Some(&asks));
    let decides = json!({ "user_code": code["user_code"], "name": "laptop" }).to_string();
    ask("post", "/auth/device-approve", "/auth/device-approve", 200, Some(&decides));
    ask("post", "/auth/device-approve", "/auth/device-approve", 404, Some(&decides));
    ask("post", "/auth/device-token", "/auth/device-token", 200, Some(&asks));
    let token = Some("{\"name\": \"ci\", \"scope\": \"read\", \"expires_in\": 60}");
    ask("post", "/tokens", "/tokens", 201, token);
    ask("post", "/tokens", "/tokens", 409, token);
    ask("post", "/tokens", "/tokens", 422, Some("{\"name\": \"\"}"));
    ask("get", "/tokens", "/tokens", 200, None);
    ask("delete", "/tokens/{token}", "/tokens/ci", 200, None);
    ask("delete", "/tokens/{token}", "/tokens/ci", 404, None);
    ask("post", "/server/gc", "/server/gc", 200, Some("{\"dry_run\": true}"));
    ask("get", "/agents", "/agents?limit=5", 200, None);
    ask("get", "/agents", "/agents?limit=many", 422, None);
    ask("get", "/agents/{agent}", "/agents/echo", 200, None);
    ask("get", "/agents/{agent}", "/agents/nobody", 404, None);
    let secret = Some("{\"secrets\": {\"API_KEY\": \"hunter2\"}}");
    ask("patch", "/agents/{agent}/secrets", "/agents/echo/secrets", 200, secret);
    ask("patch", "/agents/{agent}/secrets", "/agents/echo/secrets", 422, Some("{}"));
    ask("get", "/agents/{agent}/secrets", "/agents/echo/secrets", 200, None);
    ask("delete", "/agents/{agent}/secrets/{key}", "/agents/echo/secrets/API_KEY", 200, None);
    ask("delete", "/agents/{agent}/secrets/{key}", "/agents/echo/secrets/API_KEY", 404, None);
    let made =
        ask("post", "/sessions", "/sessions", 201, Some("{\"agent_id\": \"echo\", \"title\": \"one\"}"));
    let other = made.json()["id"].as_str().expect("an ID").to_owned();
    ask("post", "/sessions", "/sessions", 422, Some("{}"));
    ask("post", "/sessions", "/sessions", 404, Some("{\"agent_id\": \"nobody\"}"));
    ask("get", "/sessions", "/sessions?limit=1&order=created", 200, None);
    ask("get", "/sessions", "/sessions?fields=status,title,last_activity_at", 200, None);
    ask("get", "/sessions", "/sessions?agent=nobody", 404, None);
    let stats = "/sessions/stats?sum=message_count&min=created_at,message_count&max=last_activity_at&count_by=agent,status";
    ask("get", "/sessions/stats", stats, 200, None);
    ask("get", "/sessions/resolve", &format!("/sessions/resolve?id_prefix={}", &id[4..8]), 200, None);
    ask("get", session, &of(""), 200, None);
    ask("get", session, "/sessions/zzz", 404, None);
    ask("post", "/sessions/{id}/messages", &of("/messages"), 200, Some("{\"prompt\": \"again\"}"));
    ask("post", "/sessions/{id}/messages", &of("/messages"), 422, Some("{\"prompt\": \"\"}"));
    ask("get", "/sessions/{id}/messages", &of("/messages"), 200, None);
    ask("get", "/sessions/{id}/events", &of("/events?after=0"), 200, None);
    ask("get", "/sessions/{id}/events", &format!("/sessions/{other}/events"), 404, None);
    ask("get", "/sessions/{id}/network", &of("/network"), 200, None);
    ask("put", "/sessions/{id}/files/{path}", &of("/files/notes/a.txt?executable=true"), 200, Some("text"));
    ask("get", "/sessions/{id}/files/{path}", &of("/files/notes/a.txt"), 200, None);
    ask("get", "/sessions/{id}/files/{path}", &of("/files/notes/b.txt"), 404, None);
    ask("get", "/sessions/{id}/files/{path}", &of("/files/notes?list=true"), 200, None);
    ask("get", "/sessions/{id}/files", &of("/files?list=true&recursive=true"), 200, None);
    ask("get", "/sessions/{id}/files", &of("/files"), 422, None);
    ask("post", "/sessions/{id}/resume", &of("/resume"), 200, None);
    ask("post", "/sessions/{id}/cancel", &of("/cancel"), 200, None);
    ask("delete", session, &of(""), 409, None);
    ask("post", "/sessions/{id}/end", &of("/end"), 200, None);
    ask("post", "/sessions/{id}/resume", &of("/resume"), 409, None);
    ask("get", session, &of(""), 200, None);
    let many = json!({ "ids": [other, "ses_0"] }).to_string();
    ask("post", "/sessions/end", "/sessions/end", 200, Some(&many));
    ask("delete", session, &of(""), 200, None);
    let deployed = exchange(&test, "POST", "/agents", "multipart/form-data; boundary=cut", &form("echo"));
    assert_eq!(deployed.status, 200, "{deployed:?}");
    document.fits("post", "/v1/agents", &deployed);
    document.fits("post", "/v1/agents", &request(&test, "POST", "/agents", Some("{}")));
    ask("delete", "/agents/{agent}", "/agents/echo", 200, None);

    // Archives, a stream without an end, and the end of the server.
    let elsewhere = [
        ("get", "/v1/sessions/watch"),
        ("get", "/v1/sessions/{id}/export"),
        ("post", "/v1/agents"),
        ("post", "/v1/server/backup"),
        ("post", "/v1/server/stop"),
    ];
    let all: BTreeSet<(&str, String)> =
        document.operations().into_iter().map(|(method, path, _)| (method, path.to_owned())).collect();
    asked.extend(elsewhere.map(|(method, path)| (method, path.to_owned())));
    assert_eq!(asked, all, "every operation is asked for once, and no other");
}

#[test]
fn a_watched_session_is_told_as_the_document_says() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let document = Document::of(&test);
    let stream = crate::request::send(&test, "GET", &format!("/sessions/watch?id={id}"), None, "close");
    request(&test, "POST", &format!("/sessions/{id}/end"), None);
    request(&test, "DELETE", &format!("/sessions/{id}"), None);
    test.stop_server();
    let answer = read(stream);
    assert!(answer.body.contains("session.updated") && answer.body.contains("session.deleted"), "{answer:?}");
    document.fits("get", "/v1/sessions/watch", &answer);
}

#[test]
fn the_document_is_whole() {
    let test = Test::new();
    test.args(["server", "start"]).any_stderr().run();
    let document = Document::of(&test);
    assert_eq!(document.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut ids = BTreeSet::new();
    for (method, path, operation) in document.operations() {
        let place = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().expect("an ID")),
            "{place}: its ID is another's"
        );
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "{place}: {operation}");
        assert!(operation["tags"][0].is_string(), "{place} has no noun");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            assert!(
                parameters.iter().any(|one| one["in"] == "path" && one["name"] == part),
                "{place}: {part} is not described"
            );
        }
        let responses = operation["responses"].as_object().expect("responses");
        for (status, response) in responses {
            assert!(
                response["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{place} {status}"
            );
            assert!(response["headers"]["X-Request-Id"].is_object(), "{place} {status}");
            if status.as_str() >= "400" {
                let body = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(body, "#/components/schemas/ErrorBody", "{place} {status}");
            }
        }
        let open = ["/v1/auth/device-code", "/v1/auth/device-token", "/v1/health", "/v1/version"];
        let owners = ["/v1/auth/device-approve", "/v1/server/", "/v1/tokens"];
        let scope = match method {
            _ if owners.iter().any(|start| path.starts_with(start)) => "admin",
            "get" => "read",
            _ => "write",
        };
        let needed = if open.contains(&path) { json!([{}]) } else { json!([{ "bearer": [scope] }]) };
        assert_eq!(operation["security"], needed, "{place}");
        // What it names is there.
        let path = ["{agent}", "{id}", "{key}", "{path}", "{token}"]
            .iter()
            .fold(path.to_owned(), |path, parameter| path.replace(parameter, "0"));
        if path != "/v1/server/stop" && !path.ends_with("/watch") && !path.ends_with("/backup") {
            let url = path.strip_prefix("/v1").expect("/v1");
            let answer = request(&test, &method.to_uppercase(), url, None);
            assert!(answer.status != 405 && !answer.body.contains("No such route"), "{place}: {answer:?}");
        }
    }
    assert!(ids.len() > 30, "{ids:?}");
    let schemas = document.0["components"]["schemas"].as_object().expect("schemas");
    let text = document.0.to_string();
    let named: BTreeSet<&str> = text
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().expect("a name"))
        .collect();
    let known: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
    assert_eq!(named, known, "schemas that are named, and those that are there");
    for (name, schema) in schemas {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}: {schema}");
    }
    assert!(!text.contains("[`"), "links of the code's own pages stand in the document");
}

/// Router and document come from the same list; a plain `route` would be in the router alone.
#[test]
fn no_route_is_left_out() {
    let source =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/mod.rs")).expect("a file");
    assert!(source.contains(".routes(routes!("), "{source}");
    // Pages for people are no part of the API.
    let undescribed: Vec<&str> =
        source.split(".route(").skip(1).filter(|rest| !rest.trim_start().starts_with("\"/device")).collect();
    assert_eq!(undescribed, Vec::<&str>::new(), "routes that nothing describes");
}
