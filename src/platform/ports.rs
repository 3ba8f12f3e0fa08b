//! The ports of the machine's own loopback on which HTTP agents without a network of their own listen: one agent each,
//! so that no message reaches another session's agent.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::failure::Failure;

/// Loopback answers at once or, with a full queue, never.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Those that are taken by agents of this server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Ports(Arc<Mutex<HashSet<u16>>>);

/// A port that is one agent's until this is dropped.
#[derive(Debug)]
pub struct Taken {
    ports: Ports,
    port: u16,
}

impl Ports {
    /// Takes a port for an agent. Fails if another agent has it, or somebody listens on it.
    pub async fn take(&self, port: u16) -> Result<Taken, Failure> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Err(Failure::port_taken(port, "another session's agent"));
        }
        let taken = Taken { ports: self.clone(), port };
        let look = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(_)) => Err(Failure::port_taken(port, "another program")),
            _ => Ok(taken),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_one_agents_at_a_time() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Ports::default();
        assert!(ports.take(port).await.unwrap_err().message.contains("another program"));
        drop(listener);
        let taken = ports.take(port).await.unwrap();
        assert!(ports.take(port).await.unwrap_err().message.contains("another session's agent"));
        drop(taken);
        ports.take(port).await.unwrap();
    }
}
