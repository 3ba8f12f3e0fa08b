//! The protocol: the types that client and server exchange, and nothing else. No I/O, no clock.
//!
//! Field names and shapes are those that the original Superserve clients send and read; what we added
//! is optional there, so that they never notice.

pub mod agent;
pub mod auth;
pub mod error;
pub mod event;
pub mod file;
pub mod ids;
pub mod limits;
pub mod network;
pub mod query;
pub mod secret;
pub mod server;
pub mod session;
pub mod sse;
pub mod timestamp;
pub mod token;

pub use agent::{Agent, AgentConfig};
pub use error::{ErrorBody, ErrorCode, ErrorDetails};
pub use event::{NumberedEvent, RunEvent};
pub use file::{FileEntry, FileKind};
pub use ids::{AgentId, RunId, SessionId};
pub use limits::AgentLimits;
pub use network::{Egress, Network};
pub use query::{Extreme, Field, Grouping, Measure, Number, Order, SessionQuery, SessionStats, StatsQuery};
pub use secret::Secret;
pub use server::{Health, Isolation, ServerInfo, Version};
pub use session::{
    CreateSession, EndReason, EndRow, Message, Receipt, Role, SendMessage, Session, SessionEvent,
    SessionPage, Status,
};
pub use timestamp::Timestamp;
pub use token::{Scope, Token};

/// The protocol's number. Client and server of different numbers do not talk to each other.
pub const PROTOCOL: u32 = 1;
