//! Connections: accepted on the socket or at an address, spoken to in HTTP/1.1, let go of in order.
//!
//! Our own loop, since axum's has neither TLS nor limits on a request's head, which somebody may send for ever.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::certificate;
use super::unread::Unread;
use crate::server::Peer;

/// How long a request's head may take, and a connection stay without a request.
const HEAD: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So many connections over the network at a time; those that come later wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// How long somebody over the network may take nothing of what was sent, until the connection is given up.
const STALLED: Duration = Duration::from_secs(120);
/// After how much silence it is asked whether the other side is there still.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long to wait if no connection can be accepted, as when too many files are open.
const BREATH: Duration = Duration::from_millis(100);

/// How to listen for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `HOST:PORT`.
    pub address: String,
    /// A certificate with its chain, and its key, as PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether others may come without TLS.
    pub insecure: bool,
}

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {reason}")]
    Address { address: String, reason: String },
    #[error("{0} can be reached by others, and without TLS everybody in between reads the tokens")]
    Insecure(SocketAddr),
    #[error("cannot use {what} {path}: {reason}", path = path.display())]
    Tls { what: &'static str, path: PathBuf, reason: String },
}

impl ListenError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Address { .. } => "Give a free address of this machine: --listen 127.0.0.1:8080.".to_owned(),
            Self::Insecure(_) => "Give --tls-cert FILE and --tls-key FILE, or listen on 127.0.0.1 behind a proxy that has TLS. \
                                  --insecure says that you know it."
                .to_owned(),
            Self::Tls { .. } => "Give PEM files: --tls-cert the certificate with its chain, --tls-key its key.".to_owned(),
        }
    }
}

/// Bound, and not accepting yet.
pub struct Bound {
    listeners: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    /// Where: the first one, for people to read.
    pub address: SocketAddr,
    pub is_any: bool,
}

impl Bound {
    /// Binds every address of this name. Errors: it is none of this machine or in use; others could read along; the
    /// certificate or its key can't be used.
    pub async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let failed = |reason: String| ListenError::Address { address: listen.address.clone(), reason };
        let tls = listen.tls.as_ref().map(|(cert, key)| certificate::config(cert, key)).transpose()?;
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&listen.address)
            .await
            .map_err(|error| failed(error.to_string()))?
            .collect();
        if tls.is_none()
            && !listen.insecure
            && let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
        {
            return Err(ListenError::Insecure(*open));
        }
        let (mut listeners, mut refused) = (Vec::new(), "it has no address".to_owned());
        // With port 0 the second address gets the port that the first one was given.
        let mut port = None;
        for mut address in addresses {
            address.set_port(port.unwrap_or(address.port()));
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    port = listener.local_addr().ok().map(|address| address.port());
                    listeners.push(listener);
                }
                Err(error) => refused = error.to_string(),
            }
        }
        let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) else {
            return Err(failed(refused));
        };
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        Ok(Self { listeners, tls, address, is_any: address.ip().is_unspecified() })
    }

    /// The scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Those who are connected.
#[derive(Clone, Debug)]
pub struct Connections {
    router: Router,
    /// Nobody new, and no further request of those who are here.
    no_more: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    pub fn new(router: Router) -> Self {
        Self { router, no_more: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Accepts on the socket until the end.
    pub fn accept_owner(&self, listener: UnixListener) {
        let this = self.clone();
        self.tasks.spawn(async move {
            while let Some(accepted) = this.next(listener.accept()).await {
                let Some((stream, _)) = accepted else { continue };
                // The file's permission has let it through already; should that be widened by hand, this still holds.
                let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
                if uid != Some(0) && uid != Some(rustix::process::geteuid().as_raw()) {
                    tracing::warn!(uid, "another user came by the socket and was sent away");
                    continue;
                }
                this.tasks.spawn(this.clone().speak(stream, Peer::Owner));
            }
        });
    }

    /// Accepts at the bound addresses until the end.
    pub fn accept_others(&self, bound: Bound) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in bound.listeners {
            let (this, tls, places) = (self.clone(), bound.tls.clone(), places.clone());
            self.tasks.spawn(async move {
                loop {
                    let place = tokio::select! {
                        place = places.clone().acquire_owned() => place,
                        () = this.no_more.cancelled() => return,
                    };
                    let Some(accepted) = this.next(listener.accept()).await else { return };
                    let Some((stream, address)) = accepted else { continue };
                    let (this, tls) = (this.clone(), tls.clone());
                    this.tasks.clone().spawn(async move {
                        let _place = place;
                        this.greet(stream, address, tls).await;
                    });
                }
            });
        }
    }

    /// The next connection; `Some(None)` if it could not be accepted, `None` at the end.
    async fn next<T>(&self, accept: impl Future<Output = io::Result<T>>) -> Option<Option<T>> {
        tokio::select! {
            accepted = accept => match accepted {
                Ok(accepted) => Some(Some(accepted)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                    Some(None)
                }
            },
            () = self.no_more.cancelled() => None,
        }
    }

    async fn greet(self, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>) {
        let peer = Peer::Remote(address);
        let _ = stream.set_nodelay(true);
        // Somebody who is gone without a word, or never takes what was sent, must not stay for ever.
        let _ = sockopt::set_socket_keepalive(stream.as_fd(), true);
        let _ = sockopt::set_tcp_keepidle(stream.as_fd(), KEEP_ALIVE);
        let _ = sockopt::set_tcp_user_timeout(
            stream.as_fd(),
            u32::try_from(STALLED.as_millis()).unwrap_or(u32::MAX),
        );
        let Some(tls) = tls else { return self.speak(stream, peer).await };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.speak(stream, peer).await,
            Ok(Err(error)) => tracing::info!(%address, %error, "no TLS came about"),
            Err(_) => tracing::info!(%address, "a TLS handshake took too long"),
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let router = self.router;
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            // Who waits for a word to go on gets the answer instead, and sends nothing more.
            let waits = request.headers().contains_key(header::EXPECT);
            let body = |body| if waits { Body::new(body) } else { Body::new(Unread::new(body)) };
            router.clone().oneshot(request.map(body))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // How a connection ends is the other side's affair: it may leave in the middle of anything.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = self.no_more.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    /// Accepts nobody any more; those who are here may hear their answers to the end.
    pub fn close(&self) {
        self.no_more.cancel();
        self.tasks.close();
    }

    /// Waits until everybody has left.
    pub async fn gone(&self) {
        self.tasks.wait().await;
    }
}
