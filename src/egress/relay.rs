//! Connections of an agent: decided by its rules, made by the server, and passed on byte by byte.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::address::is_public;
use super::{Gate, Note, Outcome, hello};
use crate::wire::network::Decision;

/// The port at which a connection must begin with TLS, for the name that it was opened for.
const TLS_PORT: u16 = 443;
/// How long looking up a name may take, and how long making a connection to one address.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 4;
/// After so long without a byte in either direction a connection is closed.
const SILENCE: Duration = Duration::from_secs(3600);
/// How long it is waited after a failure that would come again at once, as having no files left.
const PAUSE: Duration = Duration::from_millis(100);
const CHUNK: usize = 16 << 10;

/// Accepts the connections to one port, whatever address they are meant for.
pub async fn serve(gate: Arc<Gate>, listener: TcpListener) {
    loop {
        let Ok(permit) = gate.connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let serving = gate.clone();
                // Not stopped at the agent's end, but told of it: what has been relayed is still to be noted.
                gate.tasks.spawn(async move {
                    let _permit = permit;
                    relay(&serving, client).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What a connection is meant for.
struct Target {
    /// The name, or the address as text.
    host: String,
    port: u16,
    /// Set if no name stands for the address that the agent has connected to.
    address: Option<IpAddr>,
}

async fn relay(gate: &Gate, mut client: TcpStream) {
    let Ok(local) = client.local_addr() else { return };
    let target = match local.ip() {
        IpAddr::V4(address) => match gate.names.name(address) {
            Some(name) => Target { host: name.to_string(), port: local.port(), address: None },
            None => Target { host: address.to_string(), port: local.port(), address: Some(address.into()) },
        },
        IpAddr::V6(address) => {
            Target { host: address.to_string(), port: local.port(), address: Some(address.into()) }
        }
    };
    let opened = tokio::select! {
        biased;
        () = gate.end.cancelled() => return reset(client),
        opened = open(gate, &target, &mut client) => opened,
    };
    let (server, first) = match opened {
        Ok(opened) => opened,
        Err(refused) => {
            let host = match (refused.decision, refused.server) {
                // Whom the agent really meant is what its owner wants to know.
                (Decision::Denied, Some(server)) => server,
                _ => target.host,
            };
            let note = Note {
                decision: refused.decision,
                host,
                port: Some(target.port),
                reason: Some(refused.reason),
            };
            gate.ledger.decided(note).await;
            return reset(client);
        }
    };
    let note = Note { decision: Decision::Allowed, host: target.host, port: Some(target.port), reason: None };
    let number = gate.ledger.decided(note).await;
    let counts = Counts {
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        last: AtomicU64::new(0),
        begun: Instant::now(),
    };
    let failure = tokio::select! {
        biased;
        () = gate.end.cancelled() => Some("the agent's process ended".to_owned()),
        spliced = splice(client, server, &first, &counts) => spliced.err().map(|error| error.to_string()),
        () = counts.silence() => Some("it was silent for too long".to_owned()),
    };
    if let Some(number) = number {
        let (sent, received) = (counts.sent.load(Ordering::Relaxed), counts.received.load(Ordering::Relaxed));
        gate.ledger.ended(number, Outcome { sent, received, failure }).await;
    }
}

/// Why a connection was not made: by a rule, or by the network.
struct Refused {
    decision: Decision,
    reason: String,
    /// The server that TLS would have asked for, where that is the reason.
    server: Option<String>,
}

impl Refused {
    fn rule(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Denied, reason: reason.into(), server: None }
    }

    fn network(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Allowed, reason: reason.into(), server: None }
    }
}

/// Decides about a connection and makes it; answers also what was read of the client meanwhile.
async fn open(gate: &Gate, target: &Target, client: &mut TcpStream) -> Result<(TcpStream, Vec<u8>), Refused> {
    let rules = gate.network.rules();
    let port = target.port;
    if let Some(address) = target.address {
        if !rules.iter().any(|rule| rule.allows_address(address, port)) {
            return Err(Refused::rule("no rule names this address"));
        }
        return Ok((connect(&[SocketAddr::new(address, port)], |_| true).await?, Vec::new()));
    }
    let name = &target.host;
    if !rules.iter().any(|rule| rule.allows_name(name, port)) {
        return Err(Refused::rule("no rule names this host and port"));
    }
    let mut first = Vec::new();
    if port == TLS_PORT {
        let hello = hello::read(client).await.map_err(Refused::rule)?;
        match hello.server {
            Some(server) if server == *name => first = hello.bytes,
            Some(server) => {
                let reason = format!("TLS asks for it, but the connection is to {name}");
                return Err(Refused { server: Some(server), ..Refused::rule(reason) });
            }
            None => return Err(Refused::rule("TLS names no server")),
        }
    }
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name.as_str(), port))).await;
    let found: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) => return Err(Refused::network("no address is known for it")),
        Err(_elapsed) => return Err(Refused::network("looking up its address took too long")),
    };
    let named = |address: IpAddr| rules.iter().any(|rule| rule.allows_address(address, port));
    let fine: Vec<SocketAddr> =
        found.iter().copied().filter(|at| is_public(at.ip()) || named(at.ip())).collect();
    match (fine.is_empty(), found.first()) {
        (true, Some(at)) => {
            let reason =
                format!("it is at {}, which is private and which no rule names", at.ip().to_canonical());
            Err(Refused::rule(reason))
        }
        (true, None) => Err(Refused::network("no address is known for it")),
        (false, _) => Ok((connect(&fine, named).await?, first)),
    }
}

/// A connection to the first of these addresses that takes one. They have been checked: nothing is looked up again.
/// One that turns out to be this machine's own must be `named` by a rule.
async fn connect(addresses: &[SocketAddr], named: impl Fn(IpAddr) -> bool) -> Result<TcpStream, Refused> {
    let mut refused = Refused::network("no address is known for it");
    for address in addresses.iter().take(MOST_ADDRESSES) {
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(server)) => {
                // From and to the same address: a service of this machine at its public address.
                if server.local_addr().is_ok_and(|own| own.ip() == address.ip()) && !named(address.ip()) {
                    refused = Refused::rule(format!(
                        "it is at {}, this machine, and no rule names that",
                        address.ip()
                    ));
                    continue;
                }
                let _ = server.set_nodelay(true);
                return Ok(server);
            }
            Ok(Err(error)) => refused = Refused::network(format!("{}: {error}", address.ip())),
            Err(_elapsed) => refused = Refused::network(format!("{}: no answer", address.ip())),
        }
    }
    Err(refused)
}

/// How much has passed, and when last.
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    /// Milliseconds after `begun`.
    last: AtomicU64,
    begun: Instant,
}

impl Counts {
    fn touch(&self) {
        self.last
            .store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Answers when nothing has passed for too long.
    async fn silence(&self) {
        loop {
            let until = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + SILENCE;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Passes on both directions until both have ended; one may end long before the other.
async fn splice(client: TcpStream, server: TcpStream, first: &[u8], counts: &Counts) -> io::Result<()> {
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    to_server.write_all(first).await?;
    counts.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
    tokio::try_join!(
        pump(from_client, to_server, &counts.sent, counts),
        pump(from_server, to_client, &counts.received, counts),
    )?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    count: &AtomicU64,
    counts: &Counts,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        counts.touch();
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Ends a connection so that its other end takes it for refused, not for an empty answer.
fn reset(client: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
}
