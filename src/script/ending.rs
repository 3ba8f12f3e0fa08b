//! Ending sessions, one or many, and what is told of it.

use std::collections::{HashMap, HashSet};

use futures_util::StreamExt;
use rhai::Array;
use rhai::plugin::*;
use serde_json::{Value, json};

use super::failure::Failure;
use super::host::Amount;
use super::output;
use super::runtime::{Change, Runtime};
use super::sequence::List;
use super::session::Session;
use super::sessions::Sessions;
use super::target::{self, Target};
use super::value;
use crate::client::{self, Client};
use crate::wire::{EndRow, SessionId, Status};

/// What became of one of many.
#[derive(Clone, Debug)]
pub struct DoneRow {
    /// As the caller named it.
    given: String,
    /// The whole ID, or as it was given if no session was found.
    id: String,
    session: Option<Session>,
    error: Option<client::Error>,
}

impl DoneRow {
    pub const FIELDS: [&'static str; 5] = ["given", "id", "ok", "error", "session"];

    fn failed(target: &Target, error: client::Error) -> Self {
        let given = target.given().to_owned();
        Self { id: given.clone(), given, session: None, error: Some(error) }
    }

    /// The session that was ended, as it is now.
    pub fn ended(&self) -> Option<&Session> {
        self.session.as_ref().filter(|_| self.error.is_none())
    }

    pub fn field(&self, name: &str) -> Option<Dynamic> {
        Some(match name {
            "error" => self.error.clone().map_or(Dynamic::UNIT, |error| Dynamic::from(Failure::Api(error))),
            "given" => self.given.as_str().into(),
            "id" => self.id.as_str().into(),
            "ok" => self.error.is_none().into(),
            "session" => self.session.clone().map_or(Dynamic::UNIT, Dynamic::from),
            _ => return None,
        })
    }

    /// The session, or `{id, error}`.
    pub fn to_json(&self) -> Value {
        match (&self.session, &self.error) {
            (Some(session), None) => session.to_json(),
            (_, Some(error)) => json!({ "id": self.id, "error": Failure::Api(error.clone()).to_json() }),
            (None, None) => json!({ "id": self.id }),
        }
    }
}

/// What became of many, in the order in which they were named. `Done` in scripts.
pub type Done = List<DoneRow>;

/// Ends one session; its failure is the answer.
pub fn one(runtime: &Runtime, target: Target) -> Result<Session, Failure> {
    if let Some(error) = target.refusal() {
        return Err(error.into());
    }
    if runtime.options().dry_run {
        let session = runtime.call(|client| async move {
            match &target {
                Target::Session(session) => Ok(session.clone()),
                Target::Text(text) => {
                    let session = client.session(&client.resolve(text).await?).await?;
                    Ok(Session::of(session, client.name()))
                }
            }
        })?;
        runtime.would(&format!("end {}", session.0.id.short()))?;
        return Ok(session);
    }
    let session = runtime.call(|client| async move {
        let id = target.id(&client).await?;
        client.end_session(&id).await
    })?;
    runtime.changed(Change::EndSession);
    Ok(runtime.session(session))
}

/// Ends many in one request; a failure of one is a row. A session was chosen as it was listed: one that was not at work
/// then and is now is a row that failed, since nobody has meant that. An ID is meant however it is. Error: the request
/// itself failed.
pub fn many(runtime: &Runtime, targets: Vec<Target>) -> Result<Done, Failure> {
    let refused = targets.iter().map(|target| Some(DoneRow::failed(target, target.refusal()?)));
    if let Some(rows) = refused.collect::<Option<Vec<_>>>() {
        return Ok(Done::from(rows));
    }
    let runtime = &target::on_one_server(runtime, &targets)?;
    let dry_run = runtime.options().dry_run;
    let rows = runtime.block_on(async {
        let client = runtime.client().await?;
        let mut rows = Vec::with_capacity(targets.len());
        for target in &targets {
            let found = target.id(&client).await;
            let session = match target {
                Target::Session(session) => Some(session.clone()),
                Target::Text(_) => None,
            };
            rows.push(match found {
                Ok(id) => DoneRow { given: target.given().into(), id: id.to_string(), session, error: None },
                Err(error @ (client::Error::Unreachable { .. } | client::Error::Protocol(_))) => {
                    return Err(error.into());
                }
                Err(error) => DoneRow::failed(target, error),
            });
        }
        let mut known = HashSet::new();
        let (mut ids, mut unless_active): (Vec<SessionId>, Vec<SessionId>) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|row| row.error.is_none()) {
            let Ok(id) = row.id.parse::<SessionId>() else { continue };
            if known.insert(id.clone()) {
                let was_idle = row.session.as_ref().is_some_and(|s| s.0.status != Status::Active);
                if was_idle {
                    unless_active.push(id.clone());
                }
                ids.push(id);
            }
        }
        if dry_run {
            // The same answer as success would give, without the call.
            for row in rows.iter_mut().filter(|row| row.error.is_none() && row.session.is_none()) {
                if let Ok(id) = row.id.parse() {
                    row.session = Some(Session::of(client.session(&id).await?, client.name()));
                }
            }
        } else if !ids.is_empty() {
            let ended = end_all(runtime, &client, &ids, &unless_active).await?;
            for row in rows.iter_mut().filter(|row| row.error.is_none()) {
                fill(runtime, row, ended.get(&row.id));
            }
        }
        Ok(rows)
    })?;
    if dry_run {
        for row in rows.iter().filter(|row| row.error.is_none()) {
            let short = row.id.parse::<SessionId>().map(|id| id.short().to_owned());
            runtime.would(&format!("end {}", short.unwrap_or_else(|_| row.id.clone())))?;
        }
    }
    Ok(Done::from(rows))
}

async fn end_all(
    runtime: &Runtime,
    client: &Client,
    ids: &[SessionId],
    unless_active: &[SessionId],
) -> Result<HashMap<String, EndRow>, Failure> {
    let mut ended = HashMap::with_capacity(ids.len());
    let bar = runtime.host().terminal.bar("ending", Amount::Count(ids.len() as u64));
    let stream = client.end_sessions(ids, unless_active).await?;
    tokio::pin!(stream);
    while let Some(row) = stream.next().await {
        let row = row?;
        if row.ok {
            runtime.changed(Change::EndSession);
        }
        ended.insert(row.id.clone(), row);
        bar.set(ended.len() as u64);
    }
    Ok(ended)
}

fn fill(runtime: &Runtime, row: &mut DoneRow, ended: Option<&EndRow>) {
    match ended {
        Some(EndRow { ok: true, session, .. }) => {
            if let Some(session) = session {
                row.session = Some(runtime.session(session.clone()));
            }
        }
        Some(EndRow { error: Some(error), .. }) => {
            row.error = Some(client::Error::Api {
                code: error.details.code,
                message: error.message.clone(),
                hint: error.details.hint.clone(),
            });
        }
        Some(EndRow { error: None, .. }) => {
            row.error = Some(client::Error::Protocol(format!("{} was not ended, without a reason", row.id)));
        }
        None => {
            row.error = Some(client::Error::Protocol(format!("the answer ended before {} was done", row.id)));
        }
    }
}

/// What `end` of a list answers, and its rows.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod ending_methods {
    /// How many were ended.
    ///
    /// ```rhai
    /// print(list(#{ status: "idle" }).end().ok);
    /// ```
    #[rhai_fn(get = "ok", pure)]
    pub fn ok(done: &mut Done) -> i64 {
        i64::try_from(done.iter().filter(|row| row.error.is_none()).count()).unwrap_or(i64::MAX)
    }

    /// The rows of those that weren't ended.
    ///
    /// ```rhai
    /// for row in list().end().failed { warn(`${row.id}: ${row.error.message}`); }
    /// ```
    #[rhai_fn(get = "failed", pure)]
    pub fn failed(done: &mut Done) -> Done {
        Done::from(done.iter().filter(|row| row.error.is_some()).cloned().collect::<Vec<_>>())
    }

    /// The sessions that were ended, as they are now.
    ///
    /// ```rhai
    /// table(list(#{ status: "idle" }).end().sessions);
    /// ```
    #[rhai_fn(get = "sessions", pure)]
    pub fn sessions(done: &mut Done) -> Sessions {
        done.iter()
            .filter(|row| row.error.is_none())
            .filter_map(|row| row.session.clone())
            .collect::<Vec<_>>()
            .into()
    }

    /// The rows as JSON: each the session, or its ID and the error.
    ///
    /// ```rhai
    /// print(list().end().to_json());
    /// ```
    #[rhai_fn(pure)]
    pub fn to_json(done: &mut Done) -> String {
        output::pretty(&value::to_json(&Dynamic::from(done.clone())))
    }

    /// What was done, as text.
    ///
    /// ```rhai
    /// print(list(#{ status: "idle" }).end());
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn done_to_string(done: &mut Done) -> String {
        let failed = done.iter().filter(|row| row.error.is_some()).count();
        format!("ended {}, failed {failed}", done.iter().count() - failed)
    }

    /// The session's whole ID; as it was given if none was found.
    ///
    /// ```rhai
    /// for row in list().end() { print(row.id); }
    /// ```
    #[rhai_fn(get = "id", pure)]
    pub fn id(row: &mut DoneRow) -> String {
        row.id.clone()
    }

    /// The ID as it was given.
    ///
    /// ```rhai
    /// for row in end(["5a3f"]) { print(row.given); }   // 5a3f
    /// ```
    #[rhai_fn(get = "given", pure)]
    pub fn given(row: &mut DoneRow) -> String {
        row.given.clone()
    }

    /// Whether it was ended.
    ///
    /// ```rhai
    /// for row in list().end() { if !row.ok { warn(row.id); } }
    /// ```
    #[rhai_fn(get = "ok", pure)]
    pub fn row_ok(row: &mut DoneRow) -> bool {
        row.error.is_none()
    }

    /// The session as it is now; `()` if it wasn't found.
    ///
    /// ```rhai
    /// for row in list().end() { print(row.session.status); }
    /// ```
    #[rhai_fn(get = "session", pure)]
    pub fn session(row: &mut DoneRow) -> Dynamic {
        row.field("session").unwrap_or_default()
    }

    /// Why it wasn't ended, with `.code`, `.message` and `.hint`; `()` if it was.
    ///
    /// ```rhai
    /// for row in end(["ffff"]).failed { print(row.error.message); }
    /// ```
    #[rhai_fn(get = "error", pure)]
    pub fn error(row: &mut DoneRow) -> Dynamic {
        row.field("error").unwrap_or_default()
    }

    /// A row as text: its ID and what became of it.
    ///
    /// ```rhai
    /// for row in list().end() { print(row); }
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn row_to_string(row: &mut DoneRow) -> String {
        match &row.error {
            None => format!("{}: ended", row.id),
            Some(error) => format!("{}: {error}", row.id),
        }
    }

    /// The IDs of all rows, as an array.
    ///
    /// ```rhai
    /// print(list().end().ids);
    /// ```
    #[rhai_fn(get = "ids", pure)]
    pub fn ids(done: &mut Done) -> Array {
        done.iter().map(|row| row.id.as_str().into()).collect()
    }
}
