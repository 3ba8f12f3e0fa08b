//! One message to an HTTP agent and its answer, over a connection of their own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustix::net::Shutdown;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::sandbox::Tree;

/// A sandbox that makes no socket in this time never will.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// What takes longer to accept a connection doesn't listen yet.
const KNOCK_LIMIT: Duration = Duration::from_secs(1);
const ACCEPTED: &str =
    "application/json, application/x-ndjson, text/event-stream, text/plain;q=0.9, */*;q=0.1";

/// An agent that is reached by HTTP.
#[derive(Debug)]
pub struct Address {
    pub port: u16,
    pub session: String,
}

/// What comes of an exchange, in this order.
#[derive(Debug)]
pub enum Piece {
    /// The agent has taken the connection.
    Connected,
    Head {
        status: u16,
        content_type: String,
    },
    Body(Bytes),
    End,
    /// There will be no more, in words for the user.
    Broken(String),
}

/// An exchange that goes on. Dropping it closes the connection.
pub struct Exchange {
    pub pieces: mpsc::Receiver<Piece>,
    hang_up: CancellationToken,
    task: JoinHandle<()>,
}

impl Exchange {
    /// Sends `POST /run` with this message.
    pub async fn begin(tree: &dyn Tree, address: &Address, content: &str, turn: u64) -> Self {
        let body = json!({
            "prompt": content,
            "message": content,
            "session_id": address.session,
            "turn": turn,
        });
        let socket = dial(tree).await;
        let port = address.port;
        // One at a time: who reads slowly makes the agent wait.
        let (sender, pieces) = mpsc::channel(1);
        let hang_up = CancellationToken::new();
        let hung_up = hang_up.clone();
        let task = tokio::spawn(async move {
            let last = match exchange(socket, port, body.to_string(), &sender, &hung_up).await {
                Ok(()) => Piece::End,
                Err(why) => Piece::Broken(why),
            };
            // Nobody may listen any more.
            let _ = sender.send(last).await;
        });
        Self { pieces, hang_up, task }
    }

    /// Tells the agent that nobody waits for the rest of its answer. That is still read, for its end is the agent's
    /// word that it has given up.
    pub fn hang_up(&self) {
        self.hang_up.cancel();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the agent takes connections.
pub async fn knock(tree: &dyn Tree, port: u16) -> bool {
    let knock = async { connect(dial(tree).await?, port).await };
    matches!(tokio::time::timeout(KNOCK_LIMIT, knock).await, Ok(Ok(_)))
}

async fn dial(tree: &dyn Tree) -> io::Result<OwnedFd> {
    tokio::time::timeout(DIAL_LIMIT, tree.dial()).await?
}

async fn connect(socket: OwnedFd, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(address).await?;
    // A port among those that the kernel gives out may be given to the very socket that asks for it.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

async fn exchange(
    socket: io::Result<OwnedFd>,
    port: u16,
    body: String,
    sender: &mpsc::Sender<Piece>,
    hung_up: &CancellationToken,
) -> Result<(), String> {
    let unreachable = |error: io::Error| format!("cannot connect to port {port}: {error}");
    let stream = connect(socket.map_err(unreachable)?, port).await.map_err(unreachable)?;
    let copy = stream.as_fd().try_clone_to_owned().map_err(unreachable)?;
    let _ = sender.send(Piece::Connected).await;
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    let request = hyper::Request::post("/run")
        .header(HOST, format!("127.0.0.1:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, ACCEPTED)
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let talk = async {
        let answer = requests.send_request(request).await.map_err(|error| told(&error))?;
        let content_type = answer.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        let content_type = String::from_utf8_lossy(content_type.unwrap_or_default()).into_owned();
        let _ = sender.send(Piece::Head { status: answer.status().as_u16(), content_type }).await;
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(|error| told(&error))?.into_data() {
                let _ = sender.send(Piece::Body(bytes)).await;
            }
        }
        Ok(())
    };
    let drive = async {
        // How it ended, the one who reads the answer is told as well.
        let _ = connection.await;
        std::future::pending().await
    };
    let hang_up = async {
        hung_up.cancelled().await;
        let _ = rustix::net::shutdown(&copy, Shutdown::Write);
        std::future::pending().await
    };
    tokio::select! {
        done = talk => done,
        () = drive => Ok(()),
        () = hang_up => Ok(()),
    }
}

/// An error with its cause, which says more.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
