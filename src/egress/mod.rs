//! What an agent with an allow-list reaches of the network: names are answered and connections relayed by its rules.
//!
//! Everything that the agent asks for arrives at sockets in its own network namespace, which the sandbox has handed out.
//! A name for which a rule stands gets an address that means it in this session alone; a connection to it is made by
//! the server, to an address that it has looked up and checked itself. Not here: who keeps what was decided (platform).

mod address;
mod dns;
mod hello;
mod names;
mod relay;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::wire::Network;
use crate::wire::network::{DNS_PORT, Decision};
use names::Names;

/// So many connections of a session are open at a time; further ones wait.
const MOST_CONNECTIONS: usize = 256;

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub decision: Decision,
    /// The name, or the address if it was none that a name stood for.
    pub host: String,
    /// None for a name that got no address.
    pub port: Option<u16>,
    pub reason: Option<String>,
}

/// How a connection went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes that the agent has sent and received.
    pub sent: u64,
    pub received: u64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Where decisions are kept.
pub trait Ledger: Send + Sync {
    /// Keeps a decision; it is carried out after this has answered. The number names it, if it could be kept.
    fn decided(&self, note: Note) -> BoxFuture<'_, Option<i64>>;
    /// Keeps how the connection of that decision went.
    fn ended(&self, number: i64, outcome: Outcome) -> BoxFuture<'_, ()>;
}

/// What all tasks of one agent share.
struct Gate {
    network: Network,
    names: Names,
    ledger: Arc<dyn Ledger>,
    connections: Arc<Semaphore>,
    end: CancellationToken,
    tasks: TaskTracker,
}

/// The network of one running agent. Dropping it closes every connection.
pub struct Egress {
    _end: DropGuard,
}

impl Egress {
    /// Serves the sockets of an agent's namespace, as `sandbox::Process` has them, until it is dropped. Its tasks are run
    /// by `tasks`.
    ///
    /// # Errors
    /// If a socket can't be used.
    pub fn open(
        sockets: Vec<OwnedFd>,
        network: Network,
        ledger: Arc<dyn Ledger>,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let end = CancellationToken::new();
        let gate = Arc::new(Gate {
            network,
            names: Names::default(),
            ledger,
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            end: end.clone(),
            tasks: tasks.clone(),
        });
        let egress = Self { _end: end.drop_guard() };
        for (place, socket) in sockets.into_iter().enumerate() {
            if place == 0 {
                let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
                gate.spawn(dns::serve_udp(gate.clone(), socket));
                continue;
            }
            let listener = TcpListener::from(socket);
            let port = listener.local_addr()?.port();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            match port {
                DNS_PORT => gate.spawn(dns::serve_tcp(gate.clone(), listener)),
                _ => gate.spawn(relay::serve(gate.clone(), listener)),
            }
        }
        Ok(egress)
    }
}

impl Gate {
    /// Runs a task until the agent is gone.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn denied(&self, host: impl Into<String>, port: Option<u16>, reason: impl Into<String>) {
        let note = Note { decision: Decision::Denied, host: host.into(), port, reason: Some(reason.into()) };
        self.ledger.decided(note).await;
    }
}
