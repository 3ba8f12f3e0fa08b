//! For tests: a terminal that remembers, and a server of canned sessions on a Unix socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::{
    Access, Connection, Host, Interrupt, Limits, Line, Options, Shell, ShellAnswer, ShellOrder, Terminal,
};
use crate::client::{self, Client};
use crate::clock::Clock;
use crate::wire::event::RunError;
use crate::wire::{NumberedEvent, RunEvent, RunId, sse};

/// 2026-03-09T10:19:00Z, at which every test stands.
pub const NOW: i64 = 1_773_051_540_000;

/// Remembers what was written and answers from a list.
#[derive(Default)]
pub struct FakeTerminal {
    pub out: RefCell<String>,
    pub err: RefCell<String>,
    pub lines: RefCell<VecDeque<Line>>,
    pub in_is_terminal: Cell<bool>,
    pub out_is_terminal: Cell<bool>,
    pub out_is_closed: Cell<bool>,
    /// Ctrl-C comes when this is written to stdout.
    pub interrupt_at: RefCell<Option<(&'static str, Interrupt)>>,
}

impl Terminal for FakeTerminal {
    fn out(&self, text: &str) -> io::Result<()> {
        if self.out_is_closed.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.out.borrow_mut().push_str(text);
        if let Some((_, interrupt)) = self.interrupt_at.borrow_mut().take_if(|(at, _)| text.contains(*at)) {
            interrupt.set();
        }
        Ok(())
    }

    fn err(&self, text: &str) {
        self.err.borrow_mut().push_str(text);
    }

    fn out_is_terminal(&self) -> bool {
        self.out_is_terminal.get()
    }

    fn err_is_terminal(&self) -> bool {
        self.out_is_terminal.get()
    }

    fn in_is_terminal(&self) -> bool {
        self.in_is_terminal.get()
    }

    fn out_colour(&self) -> bool {
        false
    }

    fn err_colour(&self) -> bool {
        false
    }

    fn width(&self) -> Option<usize> {
        None
    }

    fn read_line(&self, prompt: &str) -> io::Result<Line> {
        if self.in_is_terminal.get() {
            self.err(prompt);
        }
        Ok(self.lines.borrow_mut().pop_front().unwrap_or(Line::End))
    }

    fn read_hidden(&self, _: &str) -> io::Result<Line> {
        Ok(self.lines.borrow_mut().pop_front().unwrap_or(Line::Text("typed".into())))
    }

    fn bar(&self, _: &str, _: super::Amount) -> Box<dyn super::Bar> {
        Box::new(())
    }
}

/// Answers every command with its stdin, or its own text.
pub struct FakeShell;

impl Shell for FakeShell {
    fn run(&self, order: ShellOrder) -> LocalBoxFuture<'_, io::Result<ShellAnswer>> {
        let stdout = order.stdin.unwrap_or(order.command).into_bytes();
        async { Ok(ShellAnswer { stdout, ..ShellAnswer::default() }) }.boxed_local()
    }
}

/// What the server holds and what it was asked.
#[derive(Default)]
pub struct Held {
    pub sessions: Mutex<Vec<Value>>,
    pub agents: Mutex<Vec<Value>>,
    /// Method and path with its query.
    pub requests: Mutex<Vec<String>>,
    cancelled: Notify,
    /// Set at the `hang` prompt's first event.
    pub hangs: Mutex<Option<Interrupt>>,
}

/// A server; gone with its socket when dropped.
pub struct FakeServer {
    pub held: Arc<Held>,
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

fn session(digits: &str, agent: &str, status: &str, title: &str, count: u64, minutes_ago: i64) -> Value {
    let at = |millis| crate::wire::Timestamp::from_millis(millis).to_string();
    json!({
        "id": format!("ses_{digits:0<32}"), "agent_id": "agt_abc123def456", "agent_name": agent, "status": status,
        "title": title, "message_count": count, "created_at": at(NOW - 3 * 86_400_000),
        "last_activity_at": at(NOW - minutes_ago * 60_000),
    })
}

fn agent(name: &str, revision: u64, hash: &str) -> Value {
    json!({
        "id": "agt_abc123def456", "name": name, "command": "sh agent.sh", "created_at": "2026-03-01T00:00:00Z",
        "updated_at": "2026-03-02T00:00:00Z", "revision": revision, "source_hash": hash,
    })
}

impl FakeServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let held = Arc::new(Held::default());
        *held.sessions.lock().expect("not poisoned") = vec![
            session("11aa", "notes", "active", "count to ten", 2, 1),
            session("8d4e6f1a3b2c", "writer", "idle", "Write a Python script", 1, 60),
            session("5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c", "notes", "idle", "remember to buy milk", 3, 180),
            session("9e5f7a2b4c3d", "notes", "ended", "Debug my code", 5, 2 * 24 * 60),
        ];
        *held.agents.lock().expect("not poisoned") =
            vec![agent("notes", 1, "old"), agent("writer", 4, "same")];
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (path, state) = (socket.clone(), held.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::bind(path).expect("a socket");
                ready.send(()).expect("the test waits");
                tokio::select! {
                    _ = stopped => {}
                    served = async { axum::serve(listener, router(state)).await } => served.expect("to serve"),
                }
            });
        });
        is_ready.recv().expect("the server is ready");
        Self { held, socket, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    /// What was asked since this was last called.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.held.requests.lock().expect("not poisoned"))
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What every call about secrets is answered.
async fn secrets() -> Response {
    Json(json!({"keys": ["API_KEY"]})).into_response()
}

fn router(held: Arc<Held>) -> Router {
    Router::new()
        .route("/v1/agents", get(agents).post(deploy))
        .route("/v1/agents/{name}", get(get_agent).delete(delete_agent))
        .route("/v1/agents/{name}/secrets", get(secrets).patch(secrets))
        .route("/v1/agents/{name}/secrets/{key}", delete(secrets))
        .route("/v1/sessions", get(sessions).post(create))
        .route("/v1/sessions/stats", get(stats))
        .route("/v1/sessions/watch", get(watch))
        .route("/v1/sessions/end", post(end_many))
        .route("/v1/sessions/resolve", get(resolve))
        .route("/v1/sessions/{id}", get(get_session).delete(forget))
        .route("/v1/sessions/{id}/cancel", post(cancel))
        .route("/v1/sessions/{id}/end", post(end))
        .route("/v1/sessions/{id}/events", get(events))
        .route("/v1/sessions/{id}/export", get(export))
        .route("/v1/sessions/{id}/files", get(files))
        .route("/v1/sessions/{id}/files/{*path}", get(files).put(put_file))
        .route("/v1/sessions/{id}/messages", get(messages).post(send))
        .route("/v1/sessions/{id}/network", get(network))
        .route("/v1/sessions/{id}/resume", post(resume))
        .layer(axum::middleware::from_fn_with_state(
            held.clone(),
            async |State(held): State<Arc<Held>>,
                   request: axum::extract::Request,
                   next: axum::middleware::Next| {
                let asked = format!("{} {}", request.method(), request.uri());
                held.requests.lock().expect("not poisoned").push(asked);
                next.run(request).await
            },
        ))
        .with_state(held)
}

fn refused(status: StatusCode, code: &str, sentence: &str) -> Response {
    let body = json!({ "detail": sentence, "details": { "code": code, "hint": "Look again." } });
    (status, Json(body)).into_response()
}

fn asked(uri: &Uri, name: &str) -> Vec<String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
}

fn decoded(text: &str) -> String {
    reqwest::Url::parse(&format!("x:?q={text}"))
        .expect("a query")
        .query_pairs()
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// The sessions for which the query's conditions hold, or a refusal.
fn fitting(held: &Held, uri: &Uri) -> Result<Vec<Value>, Response> {
    let one = |name: &str| asked(uri, name).first().map(|text| decoded(text));
    let (status, agent, named) = (asked(uri, "status"), asked(uri, "agent"), asked(uri, "agent_name"));
    if agent.iter().any(|agent| agent == "ghost") {
        let sentence = "Agent not found: no agent is called 'ghost'";
        return Err(refused(StatusCode::NOT_FOUND, "not_found", sentence));
    }
    let time = |text: &str| text.parse::<crate::wire::Timestamp>().expect("a time");
    let limits = |value: &Value, before: &str, after: &str| {
        let at = time(value.as_str().expect("a time"));
        one(before).is_none_or(|limit| at < time(&limit)) && one(after).is_none_or(|limit| at > time(&limit))
    };
    let number = |name: &str| one(name).map(|text| text.parse::<u64>().expect("a number"));
    let mut found = held.sessions.lock().expect("not poisoned").clone();
    found.retain(|session| {
        let count = session["message_count"].as_u64().expect("a number");
        let active = Some(&session["last_activity_at"]).filter(|at| !at.is_null());
        let active = active.unwrap_or(&session["created_at"]);
        let any =
            |list: &[String], key: &str| list.is_empty() || list.iter().any(|one| session[key] == **one);
        any(&status, "status")
            && any(&agent, "agent_name")
            && any(&named, "agent_name")
            && limits(&session["created_at"], "created_before", "created_after")
            && limits(active, "active_before", "active_after")
            && number("min_messages").is_none_or(|least| count >= least)
            && number("max_messages").is_none_or(|most| count <= most)
            && one("title_contains").is_none_or(|part| {
                let title = session["title"].as_str().unwrap_or_default().to_ascii_lowercase();
                title.contains(&part.to_ascii_lowercase())
            })
    });
    Ok(found)
}

async fn sessions(State(held): State<Arc<Held>>, uri: Uri) -> Response {
    let mut found = match fitting(&held, &uri) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    if asked(&uri, "order") == ["created"] {
        found.sort_by_key(|session| session["id"].to_string());
    }
    let from: usize = asked(&uri, "cursor").first().map_or(0, |cursor| cursor.parse().expect("a cursor"));
    // Small pages, so that a whole list needs more than one.
    let limit = asked(&uri, "limit").first().map_or(3, |limit| limit.parse().expect("a number"));
    let limit = limit.min(3.max(found.len() / 2));
    let page: Vec<Value> = found.iter().skip(from).take(limit).cloned().collect();
    let next = from + page.len();
    let cursor = (next < found.len()).then(|| next.to_string());
    Json(json!({ "sessions": page, "next_cursor": cursor })).into_response()
}

async fn stats(State(held): State<Arc<Held>>, uri: Uri) -> Response {
    let found = match fitting(&held, &uri) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let mut answer = json!({ "count": found.len() });
    for name in asked(&uri, "sum") {
        let sum: u64 = found.iter().filter_map(|session| session[&name].as_u64()).sum();
        answer["sum"] = json!({ name: sum });
    }
    for (sort, name) in
        ["min", "max"].into_iter().flat_map(|sort| asked(&uri, sort).into_iter().map(move |n| (sort, n)))
    {
        let mut values: Vec<&Value> = found.iter().map(|session| &session[&name]).collect();
        values.sort_by_key(|value| (value.as_u64(), value.to_string()));
        let value = if sort == "min" { values.first() } else { values.last() };
        answer[sort] = json!({ name: value });
    }
    for name in asked(&uri, "count_by") {
        let key = if name == "agent" { "agent_name" } else { &name };
        let mut counts = std::collections::BTreeMap::new();
        for session in &found {
            *counts.entry(session[key].as_str().expect("text").to_owned()).or_insert(0) += 1;
        }
        answer["counts"] = json!({ name: counts });
    }
    Json(answer).into_response()
}

/// The named sessions as they are; then those that are active become idle. Of all, if none is named, only the latter.
async fn watch(State(held): State<Arc<Held>>, uri: Uri) -> Response {
    let mut text = String::new();
    let mut sessions = held.sessions.lock().expect("not poisoned");
    let named = asked(&uri, "id");
    for again in [false, true].into_iter().filter(|again| *again || !named.is_empty()) {
        for session in
            sessions.iter_mut().filter(|s| named.is_empty() || named.iter().any(|id| s["id"] == **id))
        {
            if again && session["status"] == "active" {
                session["status"] = json!("idle");
            } else if again {
                continue;
            }
            let session = serde_json::from_value(session.clone()).expect("a session");
            text += &sse::encode_change(&crate::wire::SessionEvent::Updated(session));
        }
    }
    let head = stream::once(async { Ok::<_, io::Error>(Bytes::from(text)) });
    ([("content-type", "text/event-stream")], Body::from_stream(head.chain(stream::pending())))
        .into_response()
}

async fn create(State(held): State<Arc<Held>>, Json(body): Json<Value>) -> Response {
    let agent = body["agent_id"].as_str().expect("an agent");
    if agent == "ghost" {
        return refused(StatusCode::NOT_FOUND, "not_found", "Agent not found: no agent is called 'ghost'");
    }
    let mut made = session("c0ffee", "notes", "pending", "", 0, 0);
    made["title"] = body["title"].clone();
    held.sessions.lock().expect("not poisoned").push(made.clone());
    (StatusCode::CREATED, Json(made)).into_response()
}

async fn resolve(State(held): State<Arc<Held>>, uri: Uri) -> Response {
    let prefix = format!("ses_{}", asked(&uri, "id_prefix")[0]);
    let sessions = held.sessions.lock().expect("not poisoned");
    let ids: Vec<&str> = sessions.iter().filter_map(|session| session["id"].as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().filter(|id| id.starts_with(&prefix)).collect();
    Json(json!({ "ids": ids })).into_response()
}

fn with_session(held: &Held, id: &str, change: impl FnOnce(&mut Value)) -> Response {
    let mut sessions = held.sessions.lock().expect("not poisoned");
    match sessions.iter_mut().find(|session| session["id"] == *id) {
        Some(session) => {
            change(session);
            Json(session.clone()).into_response()
        }
        None => refused(StatusCode::NOT_FOUND, "not_found", "Session not found"),
    }
}

async fn get_session(State(held): State<Arc<Held>>, Path(id): Path<String>) -> Response {
    with_session(&held, &id, |_| {})
}

async fn forget(State(held): State<Arc<Held>>, Path(id): Path<String>) -> Response {
    held.sessions.lock().expect("not poisoned").retain(|session| session["id"] != *id);
    StatusCode::NO_CONTENT.into_response()
}

async fn end(State(held): State<Arc<Held>>, Path(id): Path<String>) -> Response {
    with_session(&held, &id, |session| session["status"] = json!("ended"))
}

async fn resume(State(held): State<Arc<Held>>, Path(id): Path<String>) -> Response {
    let ended = {
        let sessions = held.sessions.lock().expect("not poisoned");
        sessions.iter().any(|session| session["id"] == *id && session["status"] == "ended")
    };
    if ended {
        return refused(StatusCode::CONFLICT, "ended", "Session has ended and cannot be resumed");
    }
    with_session(&held, &id, |_| {})
}

async fn cancel(State(held): State<Arc<Held>>, Path(id): Path<String>) -> Response {
    held.cancelled.notify_waiters();
    held.cancelled.notify_one();
    with_session(&held, &id, |session| session["status"] = json!("idle"))
}

/// Those whose ID begins with `8d` can't be ended here.
async fn end_many(State(held): State<Arc<Held>>, Json(body): Json<Value>) -> Response {
    let mut lines = String::new();
    let mut sessions = held.sessions.lock().expect("not poisoned");
    for id in body["ids"].as_array().expect("IDs") {
        let session = sessions.iter_mut().find(|session| session["id"] == *id).expect("a known ID");
        let row = if id.as_str().is_some_and(|id| id.starts_with("ses_8d")) {
            json!({ "id": id, "ok": false, "error": { "message": "Session is busy", "code": "busy" } })
        } else {
            session["status"] = json!("ended");
            json!({ "id": id, "ok": true, "session": session })
        };
        lines.push_str(&format!("{row}\n"));
    }
    lines.into_response()
}

/// Every path is a file with `buy milk` in it, but `missing`.
async fn files(uri: Uri) -> Response {
    if uri.path().ends_with("/missing") {
        return refused(StatusCode::NOT_FOUND, "not_found", "There is no 'missing' in the workspace");
    }
    if asked(&uri, "list").is_empty() {
        return ([("x-superserve-executable", "true")], "buy milk\n").into_response();
    }
    let entry = |path: &str, kind: &str, size: u64| {
        let entry =
            json!({ "path": path, "kind": kind, "size": size, "modified_at": "2026-03-09T10:15:00Z" });
        format!("{entry}\n")
    };
    format!("{}{}", entry("notes", "folder", 0), entry("a.txt", "file", 9)).into_response()
}

async fn put_file(Path((_, path)): Path<(String, String)>, body: Bytes) -> Response {
    let at = "2026-03-09T10:15:00Z";
    Json(json!({ "path": path, "kind": "file", "size": body.len(), "modified_at": at })).into_response()
}

/// An archive with what `export.json` says; that of a new session lacks something.
async fn export(Path(id): Path<String>) -> Response {
    let missing: &[Value] =
        if id.starts_with("ses_c0") { &[json!({ "path": "a", "reason": "no" })] } else { &[] };
    let notes = json!({
        "entries": 2,
        "notes": [{ "path": "pipe", "reason": "a pipe can't be kept" }],
        "missing": missing,
    });
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in [("session.json", "{}".to_owned()), ("export.json", notes.to_string())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_bytes()).expect("an entry");
    }
    archive.into_inner().and_then(|gz| gz.finish()).expect("an archive").into_response()
}

async fn messages(State(_): State<Arc<Held>>, Path(_): Path<String>) -> Response {
    let run = RunId::from_random(1);
    Json(json!({ "messages": [
        { "role": "user", "content": "buy milk", "at": "2026-03-09T10:15:00Z", "run_id": run },
        { "role": "agent", "content": "noted", "at": "2026-03-09T10:15:01Z", "run_id": run, "partial": true },
    ] }))
    .into_response()
}

async fn network(State(_): State<Arc<Held>>, Path(_): Path<String>) -> Response {
    Json(json!({ "entries": [
        { "at": "2026-03-09T10:15:00Z", "decision": "allowed", "host": "api.example.com", "port": 443, "sent": 517,
          "received": 4096, "reason": null },
        { "at": "2026-03-09T10:15:01Z", "decision": "denied", "host": "evil.example", "port": null, "sent": 0,
          "received": 0, "reason": "no rule names it" },
    ] }))
    .into_response()
}

/// What each prompt does.
/// What every session's latest run said.
async fn events(held: State<Arc<Held>>, id: Path<String>) -> Response {
    send(held, id, Json(json!({ "prompt": "count to ten" }))).await.into_response()
}

async fn send(State(held): State<Arc<Held>>, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    let prompt = body["prompt"].as_str().expect("a prompt").to_owned();
    let run_id = RunId::from_random(7);
    let session_id = id.parse().expect("an ID");
    let delta = |content: &str| RunEvent::Delta { content: content.to_owned() };
    let completed =
        RunEvent::Completed { duration_ms: 1100, max_turns_reached: None, max_turns_message: None };
    let failed = |message: &str, code: &str| RunEvent::Failed {
        error: RunError {
            message: message.to_owned(),
            code: Some(code.to_owned()),
            stderr: Some("line 1: oops".to_owned()),
        },
    };
    let mut events = vec![RunEvent::Started { run_id: run_id.clone(), session_id }];
    let hangs = prompt == "hang";
    match prompt.as_str() {
        "hang" => events.push(delta("working")),
        "fail" => events.extend([delta("I will"), failed("the agent exited with 1", "agent_exited")]),
        "timeout" => events.push(failed("the run took too long", "timeout")),
        "colour" => events.extend([delta("\u{1b}[3"), delta("1mred\u{1b}[0m\u{7}\n"), completed.clone()]),
        "silent" => events.push(completed.clone()),
        "tool" => events.extend([
            delta("Let me look.\n"),
            RunEvent::ToolStart { tool: "bash".into(), input: json!("cat /workspace/notes") },
            RunEvent::ToolEnd { duration_ms: 200 },
            delta("Milk.\n\n"),
            completed.clone(),
        ]),
        other => events.extend([delta("You said: "), delta(other), completed.clone()]),
    }
    let number = events.len() as u64;
    let text: String = events
        .into_iter()
        .zip(1..)
        .map(|(event, number)| sse::encode(&NumberedEvent { run_id: run_id.clone(), number, event }))
        .collect();
    let begun = stream::iter([Ok::<_, io::Error>(Bytes::from(text))]);
    let rest = async move {
        if !hangs {
            return Ok(Bytes::new());
        }
        if let Some(interrupt) = held.hangs.lock().expect("not poisoned").take() {
            interrupt.set();
        }
        held.cancelled.notified().await;
        let event = NumberedEvent { run_id, number: number + 1, event: RunEvent::Cancelled {} };
        Ok(Bytes::from(sse::encode(&event)))
    };
    Body::from_stream(begun.chain(stream::once(rest))).into_response()
}

async fn agents(State(held): State<Arc<Held>>) -> Response {
    Json(json!({ "agents": *held.agents.lock().expect("not poisoned") })).into_response()
}

async fn get_agent(State(held): State<Arc<Held>>, Path(name): Path<String>) -> Response {
    let agents = held.agents.lock().expect("not poisoned");
    match agents.iter().find(|agent| agent["name"] == *name || agent["id"] == *name) {
        Some(agent) => Json(agent).into_response(),
        None => refused(StatusCode::NOT_FOUND, "not_found", "Agent not found"),
    }
}

async fn delete_agent(State(held): State<Arc<Held>>, Path(name): Path<String>) -> Response {
    held.agents.lock().expect("not poisoned").retain(|agent| agent["name"] != *name);
    StatusCode::NO_CONTENT.into_response()
}

async fn deploy(State(held): State<Arc<Held>>, mut form: axum::extract::Multipart) -> Response {
    let mut name = String::new();
    while let Some(field) = form.next_field().await.expect("a field") {
        if field.name() == Some("name") {
            name = field.text().await.expect("a name");
        }
    }
    let mut agents = held.agents.lock().expect("not poisoned");
    let revision = agents
        .iter()
        .find(|agent| agent["name"] == *name)
        .map_or(0, |agent| agent["revision"].as_u64().expect("a revision"));
    agents.retain(|agent| agent["name"] != *name);
    agents.push(agent(&name, revision + 1, "new"));
    Json(agents.last().cloned()).into_response()
}

/// Connects to a [`FakeServer`], or to nothing.
struct FakeConnection(Option<PathBuf>);

impl Connection for FakeConnection {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        async {
            match &self.0 {
                Some(socket) => Client::unix(socket),
                None => Err(client::Error::Unreachable { message: "no server here".into(), hint: None }),
            }
        }
        .boxed_local()
    }

    fn at(&self, _: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        self.connect()
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        async { self.0.as_deref().and_then(|socket| Client::unix(socket).ok()) }.boxed_local()
    }
}

/// A host with this server, or none, and its terminal.
pub fn host(server: Option<&FakeServer>, options: Options) -> (Host, Rc<FakeTerminal>) {
    let terminal = Rc::new(FakeTerminal::default());
    let host = Host {
        connection: Rc::new(FakeConnection(server.map(|server| server.socket.clone()))),
        terminal: terminal.clone(),
        shell: Rc::new(FakeShell),
        access: Access::default(),
        clock: Clock::system().at(NOW),
        options,
        fields: Rc::new([]),
        interrupt: Interrupt::default(),
        limits: Limits::default(),
        env: Rc::new(|name| (name == "HOME").then(|| "/home/ann".to_owned())),
    };
    (host, terminal)
}
