//! The calls.

use std::marker::PhantomData;

use futures_util::{Stream, stream};
use reqwest::multipart::Form;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;

use super::download::Download;
use super::package::Package;
use super::sent::Sent;
use super::{Client, Error, Result};
use crate::wire::agent::AgentList;
use crate::wire::network::EgressLog;
use crate::wire::secret::{SecretKeys, SetSecrets, wrong_key};
use crate::wire::server::{Collect, Freed, StopServer};
use crate::wire::session::{EndMany, ResolvedIds, Transcript};
use crate::wire::{
    Agent, CreateSession, Egress, EndRow, ErrorCode, Message, Order, RunId, ServerInfo, Session, SessionId,
    SessionPage, SessionQuery, SessionStats, StatsQuery, Version,
};

impl Client {
    /// `GET /version`.
    pub async fn version(&self) -> Result<Version> {
        self.get("/version").await
    }

    /// `GET /server`.
    pub async fn server(&self) -> Result<ServerInfo> {
        self.get("/server").await
    }

    /// `POST /server/stop`: the server drains and exits after it has answered.
    pub async fn stop_server(&self, stop: StopServer) -> Result<ServerInfo> {
        self.post("/server/stop", &stop).await
    }

    /// `POST /server/backup`: a copy of the database and of the agents' code.
    pub async fn backup(&self) -> Result<Download> {
        let request = self.request(Method::POST, "/server/backup").json(&serde_json::json!({}));
        Ok(Download(self.ask(request).await?))
    }

    /// `POST /server/gc`: lets go of what is past its time, or only counts it.
    pub async fn collect(&self, collect: Collect) -> Result<Freed> {
        self.post("/server/gc", &collect).await
    }

    /// `POST /agents`: a new agent, or a new revision of the one with this name.
    /// `sent` says meanwhile how much of its archive has been sent.
    pub async fn deploy(&self, package: Package, sent: &Sent) -> Result<Agent> {
        let config =
            serde_json::to_string(&package.config).map_err(|error| Error::Protocol(error.to_string()))?;
        let form = Form::new()
            .part("file", sent.part(package.archive).file_name("agent.tar.gz"))
            .text("name", package.name)
            .text("command", package.config.command.unwrap_or_default())
            .text("config", config);
        self.call(self.request(Method::POST, "/agents").multipart(form)).await
    }

    /// `GET /agents`: all of them, by name.
    pub async fn agents(&self) -> Result<Vec<Agent>> {
        Ok(self.get::<AgentList>("/agents").await?.agents)
    }

    /// `GET /agents/{name or id}`.
    pub async fn agent(&self, agent: &str) -> Result<Agent> {
        self.get(&format!("/agents/{}", segment(agent)?)).await
    }

    /// `DELETE /agents/{name or id}`: ends its sessions too.
    pub async fn delete_agent(&self, agent: &str) -> Result<()> {
        self.ask(self.request(Method::DELETE, &format!("/agents/{}", segment(agent)?))).await?;
        Ok(())
    }

    /// `GET /agents/{name or id}/secrets`: the keys of its secrets.
    pub async fn secrets(&self, agent: &str) -> Result<Vec<String>> {
        Ok(self.get::<SecretKeys>(&format!("/agents/{}/secrets", segment(agent)?)).await?.keys)
    }

    /// `PATCH /agents/{name or id}/secrets`: sets them, all or none; the keys that it has then.
    pub async fn set_secrets(&self, agent: &str, secrets: SetSecrets) -> Result<Vec<String>> {
        let path = format!("/agents/{}/secrets", segment(agent)?);
        Ok(self.call::<SecretKeys>(self.request(Method::PATCH, &path).json(&secrets)).await?.keys)
    }

    /// `DELETE /agents/{name or id}/secrets/{key}`: the keys that are left.
    pub async fn delete_secret(&self, agent: &str, key: &str) -> Result<Vec<String>> {
        if let Some(message) = wrong_key(key) {
            return Err(Error::Input { message, hint: None });
        }
        let path = format!("/agents/{}/secrets/{}", segment(agent)?, percent_encoded(key));
        Ok(self.call::<SecretKeys>(self.request(Method::DELETE, &path)).await?.keys)
    }

    /// `POST /sessions`.
    pub async fn create_session(&self, session: &CreateSession) -> Result<Session> {
        self.post("/sessions", session).await
    }

    /// `GET /sessions`: one page of whole sessions: the query's fields don't count.
    pub async fn sessions(&self, query: &SessionQuery) -> Result<SessionPage> {
        let whole = SessionQuery { fields: Vec::new(), ..query.clone() };
        self.call(self.request(Method::GET, "/sessions").query(&page_pairs(&whole))).await
    }

    /// `GET /sessions`: one page as it came, in JSON, with the query's fields alone.
    pub async fn sessions_raw(&self, query: &SessionQuery) -> Result<Vec<u8>> {
        let request = self.request(Method::GET, "/sessions").query(&page_pairs(query));
        Ok(self.ask(request).await?.bytes().await?.into())
    }

    /// `GET /sessions/stats`: what is counted over the sessions for which the query's conditions hold; its page, its
    /// order and its fields don't count.
    pub async fn stats(&self, query: &SessionQuery, stats: &StatsQuery) -> Result<SessionStats> {
        let request = self.request(Method::GET, "/sessions/stats");
        self.call(request.query(&conditions(query)).query(&stats_pairs(stats))).await
    }

    /// `GET /sessions/{id}`.
    pub async fn session(&self, id: &SessionId) -> Result<Session> {
        self.get(&format!("/sessions/{id}")).await
    }

    /// The session that a user means: an ID with or without `ses_`, a unique prefix of one, `@last` or
    /// `@last:AGENT`. An empty one is refused before any request.
    pub async fn resolve(&self, text: &str) -> Result<SessionId> {
        if let Some(rest) = text.strip_prefix("@last") {
            return self.last(text, rest).await;
        }
        let prefix = digits(text)?;
        if let Ok(id) = format!("{}{prefix}", SessionId::PREFIX).parse() {
            return Ok(id);
        }
        let mut ids = self.matching(&prefix).await?;
        match ids.len() {
            1 => Ok(ids.remove(0)),
            0 => Err(no_session(text)),
            _ => Err(ambiguous(text, &ids)),
        }
    }

    /// `GET /sessions/resolve`: the sessions whose digits begin so, at most 1000.
    pub async fn matching(&self, digits: &str) -> Result<Vec<SessionId>> {
        let request = self.request(Method::GET, "/sessions/resolve").query(&[("id_prefix", digits)]);
        Ok(self.call::<ResolvedIds>(request).await?.ids)
    }

    async fn last(&self, text: &str, rest: &str) -> Result<SessionId> {
        let agent = match rest.strip_prefix(':') {
            // A variable that is not set must not mean another agent's session.
            Some("") => {
                return Err(Error::Input {
                    message: format!("'{text}' names no agent"),
                    hint: Some("Write @last for the session that was active last, or @last:AGENT.".into()),
                });
            }
            Some(agent) => Some(agent.to_owned()),
            None if rest.is_empty() => None,
            None => return Err(no_session(text)),
        };
        let status =
            crate::wire::Status::ALL.into_iter().filter(|s| *s != crate::wire::Status::Ended).collect();
        let agent = agent.into_iter().collect();
        let query = SessionQuery { status, agent, limit: Some(1), ..SessionQuery::default() };
        self.sessions(&query)
            .await?
            .sessions
            .into_iter()
            .next()
            .map(|session| session.id)
            .ok_or_else(|| no_session(text))
    }

    /// `POST /sessions/{id}/end`.
    pub async fn end_session(&self, id: &SessionId) -> Result<Session> {
        let request = self.request(Method::POST, &format!("/sessions/{id}/end")).json(&serde_json::json!({}));
        self.call_again(request).await
    }

    /// `POST /sessions/end`: a row a session, as each is done. Dropping the stream stops it after those in flight. Those
    /// of `unless_active` are not ended while they work on a message.
    pub async fn end_sessions(
        &self,
        ids: &[SessionId],
        unless_active: &[SessionId],
    ) -> Result<impl Stream<Item = Result<EndRow>> + use<>> {
        let texts = |ids: &[SessionId]| ids.iter().map(ToString::to_string).collect();
        let body = EndMany { ids: texts(ids), unless_active: texts(unless_active) };
        let response = self.ask(self.request(Method::POST, "/sessions/end").json(&body)).await?;
        let lines = Lines::<EndRow>::of(response);
        Ok(stream::unfold(lines, |mut lines| async move { lines.next().await.map(|row| (row, lines)) }))
    }

    /// `POST /sessions/{id}/resume`.
    pub async fn resume_session(&self, id: &SessionId) -> Result<Session> {
        self.post(&format!("/sessions/{id}/resume"), &serde_json::json!({})).await
    }

    /// `POST /sessions/{id}/cancel`.
    pub async fn cancel_session(&self, id: &SessionId) -> Result<Session> {
        self.post(&format!("/sessions/{id}/cancel"), &serde_json::json!({})).await
    }

    /// `DELETE /sessions/{id}`: forgets an ended session.
    pub async fn delete_session(&self, id: &SessionId) -> Result<()> {
        self.ask(self.request(Method::DELETE, &format!("/sessions/{id}"))).await?;
        Ok(())
    }

    /// `GET /sessions/{id}/messages`: the transcript.
    pub async fn messages(&self, id: &SessionId) -> Result<Vec<Message>> {
        Ok(self.get::<Transcript>(&format!("/sessions/{id}/messages")).await?.messages)
    }

    /// `GET /sessions/{id}/messages`: what of the transcript belongs to this run.
    pub async fn messages_of(&self, id: &SessionId, run: &RunId) -> Result<Vec<Message>> {
        let request = self.request(Method::GET, &format!("/sessions/{id}/messages"));
        Ok(self.call::<Transcript>(request.query(&[("run_id", run.as_str())])).await?.messages)
    }

    /// `GET /sessions/{id}/network`: what was decided about the session's network, the oldest first.
    pub async fn network(&self, id: &SessionId) -> Result<Vec<Egress>> {
        Ok(self.get::<EgressLog>(&format!("/sessions/{id}/network")).await?.entries)
    }
}

/// The lines of an NDJSON answer.
pub(super) struct Lines<T> {
    response: Response,
    buffer: Vec<u8>,
    /// So much of the buffer has been handed on.
    read: usize,
    done: bool,
    row: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn of(response: Response) -> Self {
        Self { response, buffer: Vec::new(), read: 0, done: false, row: PhantomData }
    }

    pub(super) async fn next(&mut self) -> Option<Result<T>> {
        loop {
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.get(..end).unwrap_or_default();
                let row = serde_json::from_slice(line).map_err(|error| Error::Protocol(error.to_string()));
                self.read += end + 1;
                return Some(row);
            }
            if self.done {
                return None;
            }
            // Once a piece, not once a line: a piece holds many.
            self.buffer.drain(..self.read);
            self.read = 0;
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    self.buffer.clear();
                    return Some(Err(error.into()));
                }
            }
        }
    }
}

type Pairs = Vec<(&'static str, String)>;

/// The conditions of a query.
fn conditions(query: &SessionQuery) -> Pairs {
    let mut pairs: Pairs = query.status.iter().map(|status| ("status", status.to_string())).collect();
    pairs.extend(query.agent.iter().map(|agent| ("agent", agent.clone())));
    pairs.extend(query.agent_name.iter().map(|name| ("agent_name", name.clone())));
    let numbers = [
        ("idle_longer_than", query.idle_longer_than),
        ("min_messages", query.min_messages),
        ("max_messages", query.max_messages),
    ];
    let moments = [
        ("created_before", query.created_before),
        ("created_after", query.created_after),
        ("active_before", query.active_before),
        ("active_after", query.active_after),
    ];
    pairs.extend(numbers.into_iter().filter_map(|(key, number)| Some((key, number?.to_string()))));
    pairs.extend(moments.into_iter().filter_map(|(key, at)| Some((key, at?.to_string()))));
    pairs.extend(query.title_contains.iter().map(|text| ("title_contains", text.clone())));
    pairs
}

fn page_pairs(query: &SessionQuery) -> Pairs {
    let mut pairs = conditions(query);
    if !query.fields.is_empty() {
        pairs.push(("fields", joined(&query.fields)));
    }
    if let Some(limit) = query.limit {
        pairs.push(("limit", limit.to_string()));
    }
    if let Some(cursor) = &query.cursor {
        pairs.push(("cursor", cursor.clone()));
    }
    if query.order == Order::Created {
        pairs.push(("order", "created".to_owned()));
    }
    pairs
}

fn stats_pairs(stats: &StatsQuery) -> Pairs {
    let pairs = [
        ("sum", joined(&stats.sum)),
        ("min", joined(&stats.min)),
        ("max", joined(&stats.max)),
        ("count_by", joined(&stats.count_by)),
    ];
    pairs.into_iter().filter(|(_, words)| !words.is_empty()).collect()
}

fn joined<T: ToString>(words: &[T]) -> String {
    words.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// The digits of an ID as a user gives it: `ses_`, dashes and blanks around it don't count. An error if nothing is left,
/// which needs no server to be told.
pub fn digits(text: &str) -> Result<String> {
    let digits = SessionId::written_digits(text.trim());
    if digits.is_empty() {
        return Err(Error::api(
            ErrorCode::Invalid,
            "the session ID is empty",
            "Run superserve sessions list to see your sessions.".to_owned(),
        ));
    }
    Ok(digits)
}

/// A name or an ID as one part of a path. What could not be one is refused here, so that no text can reach another
/// route.
fn segment(text: &str) -> Result<&str> {
    let fits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fits { Ok(text) } else { Err(no_agent(text)) }
}

/// A text as a part of a path.
pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn no_agent(text: &str) -> Error {
    Error::api(
        ErrorCode::NotFound,
        format!("Agent not found: no agent is called '{text}'"),
        "Run superserve agents list to see your agents.".to_owned(),
    )
}

fn no_session(text: &str) -> Error {
    Error::api(
        ErrorCode::NotFound,
        format!("Session not found: no session matches '{text}'"),
        "Run superserve sessions list to see your sessions.".to_owned(),
    )
}

/// How many of the matches an ambiguous ID names.
const MATCHES_SHOWN: usize = 10;

fn ambiguous(text: &str, ids: &[SessionId]) -> Error {
    let shown: Vec<&str> = ids.iter().take(MATCHES_SHOWN).map(SessionId::short).collect();
    let more = match ids.len().saturating_sub(MATCHES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::api(
        ErrorCode::Ambiguous,
        format!("Ambiguous ID '{text}' — matches: {}{more}", shown.join(", ")),
        "Give more digits.".to_owned(),
    )
}
