//! What is kept of a session on the script's side, and its reading from JSON: small, and read fast, since there may be
//! a hundred thousand of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rhai::ImmutableString;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::session::Session;
use crate::wire::{self, AgentId, EndReason, Isolation, Receipt, SessionId, Status, Timestamp};

/// A session as the server last told it. Texts that many sessions have are kept once.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: SessionId,
    pub agent: Rc<Owner>,
    pub status: Status,
    pub end_reason: Option<EndReason>,
    pub isolation: Option<Isolation>,
    pub receipt: Option<Receipt>,
    pub title: Option<ImmutableString>,
    pub message_count: u64,
    pub created_at: Timestamp,
    pub last_activity_at: Option<Timestamp>,
    pub idle_timeout_seconds: Option<u64>,
    pub expires_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub error: Option<ImmutableString>,
}

/// Whose session it is.
#[derive(Debug)]
pub struct Owner {
    pub id: AgentId,
    /// As the server gave it.
    pub name: Option<String>,
    /// The name, or the ID if the server gave none.
    pub called: ImmutableString,
    /// The server that a script has named to get the session; none is the one that a command speaks to.
    pub server: Option<Arc<str>>,
}

impl Owner {
    pub fn new(id: AgentId, name: Option<String>, server: Option<Arc<str>>) -> Self {
        let called = name.as_deref().unwrap_or(id.as_str()).into();
        Self { id, name, called, server }
    }
}

impl Record {
    /// A session as this server has told it.
    pub fn of(session: wire::Session, server: Option<Arc<str>>) -> Self {
        Self {
            id: session.id,
            agent: Rc::new(Owner::new(session.agent_id, session.agent_name, server)),
            status: session.status,
            end_reason: session.end_reason,
            isolation: session.isolation,
            receipt: session.receipt,
            title: session.title.map(Into::into),
            message_count: session.message_count,
            created_at: session.created_at,
            last_activity_at: session.last_activity_at,
            idle_timeout_seconds: session.idle_timeout_seconds,
            expires_at: session.expires_at,
            ended_at: session.ended_at,
            error: session.error.map(Into::into),
        }
    }
}

impl Record {
    pub fn to_wire(&self) -> wire::Session {
        wire::Session {
            id: self.id.clone(),
            agent_id: self.agent.id.clone(),
            agent_name: self.agent.name.clone(),
            status: self.status,
            title: self.title.as_ref().map(ToString::to_string),
            message_count: self.message_count,
            created_at: self.created_at,
            last_activity_at: self.last_activity_at,
            idle_timeout_seconds: self.idle_timeout_seconds,
            expires_at: self.expires_at,
            ended_at: self.ended_at,
            end_reason: self.end_reason,
            error: self.error.as_ref().map(ToString::to_string),
            isolation: self.isolation,
            receipt: self.receipt,
        }
    }
}

/// A page of sessions.
pub struct Page {
    pub sessions: Vec<Session>,
    pub next_cursor: Option<String>,
}

/// Reads sessions; keeps each agent once.
#[derive(Debug, Default)]
pub struct Reader {
    /// By their IDs.
    agents: RefCell<HashMap<String, Rc<Owner>>>,
    last: RefCell<Option<Rc<Owner>>>,
    server: Option<Arc<str>>,
}

impl Reader {
    /// Reads what this server answers; none is the one that a command speaks to.
    pub fn of(server: Option<Arc<str>>) -> Self {
        Self { server, ..Self::default() }
    }

    /// A page as `GET /sessions` answers it.
    pub fn page(&self, json: &[u8]) -> serde_json::Result<Page> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "snake_case")]
        enum Key {
            Sessions,
            NextCursor,
            #[serde(other)]
            Other,
        }
        struct PageVisitor<'r>(&'r Reader);
        impl<'de> Visitor<'de> for PageVisitor<'_> {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page of sessions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
                let (mut sessions, mut next_cursor) = (None, None);
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Sessions => sessions = Some(map.next_value_seed(Many(self.0))?),
                        Key::NextCursor => next_cursor = map.next_value()?,
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                // What is no list is not an empty one.
                let sessions = sessions.ok_or_else(|| A::Error::missing_field("sessions"))?;
                Ok(Page { sessions, next_cursor })
            }
        }
        let mut json = serde_json::Deserializer::from_slice(json);
        let page = json.deserialize_map(PageVisitor(self))?;
        json.end()?;
        Ok(page)
    }

    /// An array of sessions, as `sessions list --json` prints it.
    pub fn array(&self, json: &str) -> serde_json::Result<Vec<Session>> {
        let mut json = serde_json::Deserializer::from_str(json);
        let sessions = Many(self).deserialize(&mut json)?;
        json.end()?;
        Ok(sessions)
    }

    fn owner<E: serde::de::Error>(&self, id: &str, name: Option<&str>) -> Result<Rc<Owner>, E> {
        // Sessions of one agent often follow each other.
        if let Some(last) = &*self.last.borrow()
            && last.id.as_str() == id
            && last.name.as_deref() == name
        {
            return Ok(last.clone());
        }
        let known = self.agents.borrow().get(id).filter(|owner| owner.name.as_deref() == name).cloned();
        let owner = match known {
            Some(owner) => owner,
            None => {
                let agent_id = id.parse().map_err(E::custom)?;
                let owner = Rc::new(Owner::new(agent_id, name.map(str::to_owned), self.server.clone()));
                self.agents.borrow_mut().insert(id.to_owned(), owner.clone());
                owner
            }
        };
        *self.last.borrow_mut() = Some(owner.clone());
        Ok(owner)
    }
}

struct Many<'r>(&'r Reader);

impl<'de> DeserializeSeed<'de> for Many<'_> {
    type Value = Vec<Session>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Many<'_> {
    type Value = Vec<Session>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of sessions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut sessions = Vec::new();
        while let Some(session) = array.next_element_seed(One(self.0))? {
            sessions.push(session);
        }
        Ok(sessions)
    }
}

struct One<'r>(&'r Reader);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Session;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Session, D::Error> {
        json.deserialize_map(self)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    AgentId,
    AgentName,
    Title,
    Status,
    MessageCount,
    CreatedAt,
    LastActivityAt,
    IdleTimeoutSeconds,
    ExpiresAt,
    EndedAt,
    EndReason,
    Error,
    Isolation,
    Receipt,
    #[serde(other)]
    Other,
}

/// A text that is copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// An ID without a copy in between.
fn id<'de, A: MapAccess<'de>>(map: &mut A) -> Result<SessionId, A::Error> {
    map.next_value::<Text<'de>>()?.0.parse().map_err(A::Error::custom)
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Session;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Session, A::Error> {
        let (mut session_id, mut agent_id, mut agent_name) = (None, None, None);
        let (mut status, mut message_count, mut created_at) = (None, None, None);
        let (mut title, mut error): (Option<Text<'de>>, Option<Text<'de>>) = (None, None);
        let (mut last_activity_at, mut idle_timeout_seconds, mut expires_at) = (None, None, None);
        let (mut ended_at, mut end_reason, mut isolation, mut receipt) = (None, None, None, None);
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Id => session_id = Some(id(&mut map)?),
                Key::AgentId => agent_id = Some(map.next_value::<Text<'de>>()?.0),
                Key::AgentName => agent_name = map.next_value::<Option<Text<'de>>>()?.map(|name| name.0),
                Key::Title => title = map.next_value()?,
                Key::Status => status = Some(map.next_value()?),
                Key::MessageCount => message_count = Some(map.next_value()?),
                Key::CreatedAt => created_at = Some(map.next_value()?),
                Key::LastActivityAt => last_activity_at = map.next_value()?,
                Key::IdleTimeoutSeconds => idle_timeout_seconds = map.next_value()?,
                Key::ExpiresAt => expires_at = map.next_value()?,
                Key::EndedAt => ended_at = map.next_value()?,
                Key::EndReason => end_reason = map.next_value()?,
                Key::Error => error = map.next_value()?,
                Key::Isolation => isolation = map.next_value()?,
                Key::Receipt => receipt = map.next_value()?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let agent_id = agent_id.ok_or_else(|| A::Error::missing_field("agent_id"))?;
        let text = |text: Text<'de>| ImmutableString::from(&*text.0);
        Ok(Session(Rc::new(Record {
            id: session_id.ok_or_else(|| A::Error::missing_field("id"))?,
            agent: self.0.owner(&agent_id, agent_name.as_deref())?,
            status: status.ok_or_else(|| A::Error::missing_field("status"))?,
            end_reason,
            isolation,
            receipt,
            title: title.map(text),
            message_count: message_count.ok_or_else(|| A::Error::missing_field("message_count"))?,
            created_at: created_at.ok_or_else(|| A::Error::missing_field("created_at"))?,
            last_activity_at,
            idle_timeout_seconds,
            expires_at,
            ended_at,
            error: error.map(text),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"sessions":[
        {"id":"ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c","agent_id":"agt_abc123def456","agent_name":"my-agent","title":"a \"b\"",
         "status":"active","message_count":3,"created_at":"2026-03-09T10:15:00Z","last_activity_at":"2026-03-09T10:17:00.250Z","new":[1]},
        {"id":"ses_8d4e6f1a3b2c4f6a8b0c9d1e2f3a4b5c","agent_id":"agt_abc123def456","agent_name":"my-agent","title":null,
         "status":"ended","message_count":0,"created_at":"2026-03-09T10:15:00Z","last_activity_at":null,
         "ended_at":"2026-03-09T10:16:00Z","end_reason":"expired","isolation":"full","error":"e"}],"next_cursor":"c"}"#;

    #[test]
    fn a_page_is_read_as_the_wires_own_types_read_it() {
        let reader = Reader::default();
        let page = reader.page(PAGE.as_bytes()).expect("a page");
        let wire: wire::SessionPage = serde_json::from_str(PAGE).expect("a page");
        assert_eq!(page.next_cursor, wire.next_cursor);
        let read: Vec<wire::Session> = page.sessions.iter().map(|session| session.0.to_wire()).collect();
        assert_eq!(read, wire.sessions);
        assert!(Rc::ptr_eq(&page.sessions[0].0.agent, &page.sessions[1].0.agent), "the agent is kept once");
    }

    #[test]
    fn what_is_no_session_is_refused() {
        let reader = Reader::default();
        for wrong in ["{}", "[1]", "[{}]", "[] x", r#"[{"id":"ses_1"}]"#, ""] {
            assert!(reader.array(wrong).is_err(), "{wrong}");
        }
        assert!(reader.array(" [ ] ").expect("none").is_empty());
    }
}
