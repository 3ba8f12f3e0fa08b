//! Whom a call means: a session, or an ID as somebody wrote it.

use rhai::Dynamic;

use super::failure::Failure;
use super::runtime::Runtime;
use super::session::Session;
use super::sessions::Sessions;
use super::value;
use crate::client::{self, Client};
use crate::wire::SessionId;

/// Which session is meant.
pub enum Target {
    Session(Session),
    /// An ID or its beginning, as the user gave it.
    Text(String),
}

/// The runtime of the server on which all of these are; IDs are on the one that is asked. Error: they are on several.
pub fn on_one_server(runtime: &Runtime, targets: &[Target]) -> Result<Runtime, Failure> {
    let servers = targets.iter().map(|target| match target {
        Target::Session(session) => session.server(),
        Target::Text(_) => runtime.server(),
    });
    let mut servers: Vec<_> = servers.collect();
    servers.sort();
    servers.dedup();
    match servers.len() {
        0 => Ok(runtime.clone()),
        1 => Ok(runtime.clone().at(servers.pop().flatten())),
        _ => Err(Failure::hinted(
            "these sessions are on several servers",
            "Take those of one server at a time.",
        )),
    }
}

impl Target {
    /// One session or ID, those of an array, or those of a list. Error: it names no session.
    pub fn read_all(value: Dynamic) -> Result<Vec<Self>, Failure> {
        if let Some(sessions) = value.read_lock::<Sessions>() {
            return Ok(sessions.load()?.iter().cloned().map(Self::Session).collect());
        }
        match value.is_array() {
            true => value.into_array().unwrap_or_default().into_iter().map(Self::read).collect(),
            false => Self::read(value).map(|target| vec![target]),
        }
    }

    /// One session or ID. Error: it names no session.
    pub fn read(value: Dynamic) -> Result<Self, Failure> {
        if let Some(session) = value.clone().try_cast::<Session>() {
            return Ok(Self::Session(session));
        }
        let kind = value::type_name(&value);
        value.into_string().map(Self::Text).map_err(|_| {
            Failure::hinted(
                format!("{kind} names no session"),
                "Give IDs or sessions: \"5a3f\", @last, list()[0].",
            )
        })
    }

    /// As the caller named it.
    pub fn given(&self) -> &str {
        match self {
            Self::Session(session) => session.0.id.as_str(),
            Self::Text(text) => text,
        }
    }

    /// Why no server needs to be asked: an empty ID names nothing.
    pub fn refusal(&self) -> Option<client::Error> {
        match self {
            Self::Session(_) => None,
            Self::Text(text) => client::digits(text).err(),
        }
    }

    /// Its ID. Errors: none or several are meant.
    pub async fn id(&self, client: &Client) -> client::Result<SessionId> {
        match self {
            Self::Session(session) => Ok(session.0.id.clone()),
            Self::Text(text) => client.resolve(text).await,
        }
    }
}
