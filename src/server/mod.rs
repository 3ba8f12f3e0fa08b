//! The platform over HTTP: every route on one screen, a file of handlers a noun, errors to statuses.
//!
//! Not here: rules (platform) and listeners, start and end of the process (daemon).

mod access;
mod agents;
mod auth;
mod error;
mod files;
mod page;
mod request;
mod runs;
mod secrets;
mod sessions;
mod status;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

pub use access::{Door, Peer};

use crate::clock::Clock;
use crate::platform::Platform;
use crate::wire::{Timestamp, Version};

/// The largest archive of an agent, in bytes.
pub const MAX_ARCHIVE: usize = 256 << 20;
/// So much of a request's path and query is logged, in characters.
const MAX_LOGGED: usize = 500;
/// How long a request's body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(30);

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    platform: Platform,
    clock: Clock,
    identity: Arc<Identity>,
    door: Arc<Door>,
    rates: Arc<access::Rates>,
    owners: Arc<Mutex<page::Owners>>,
    traffic: Arc<Traffic>,
    /// Cancelled when somebody has asked the server to stop.
    stop: CancellationToken,
}

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    pub version: Version,
    pub pid: u32,
    pub socket: String,
    /// Where others are let in: `https://0.0.0.0:8443`.
    pub address: Option<String>,
    pub home: String,
    /// The sandbox's driver, if the machine allows one.
    pub driver: Option<String>,
    /// What the machine refuses of the sandbox, and the remedy.
    pub refusal: Option<String>,
    pub started_at: Timestamp,
}

/// Requests under way, and when the last one was there.
#[derive(Debug)]
struct Traffic {
    under_way: AtomicU64,
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

impl Server {
    /// A server of this platform; `door` says who may come in over the network, `stop` is cancelled when a client asks it
    /// to stop.
    pub fn new(
        platform: Platform,
        clock: Clock,
        identity: Identity,
        door: Door,
        stop: CancellationToken,
    ) -> Self {
        let traffic =
            Traffic { under_way: AtomicU64::new(0), started: Instant::now(), last: AtomicU64::new(0) };
        Self {
            platform,
            clock,
            identity: Arc::new(identity),
            rates: Arc::new(access::Rates::new(door.rate)),
            door: Arc::new(door),
            owners: Arc::default(),
            traffic: Arc::new(traffic),
            stop,
        }
    }

    /// How long no request has been under way.
    pub fn quiet_for(&self) -> Duration {
        if self.traffic.under_way.load(Ordering::SeqCst) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.traffic.last.load(Ordering::SeqCst));
        self.traffic.started.elapsed().saturating_sub(last)
    }

    /// The server counts as busy as long as this is held.
    fn busy(&self) -> UnderWay {
        self.traffic.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(self.traffic.clone())
    }

    /// Every route.
    pub fn router(self) -> Router {
        let open = Router::new()
            .route("/auth/device-code", post(auth::device_code))
            .route("/auth/device-token", post(auth::device_token))
            .route("/health", get(status::health))
            .route("/version", get(status::version));
        let owners = Router::new()
            .route("/auth/device-approve", post(auth::device_approve))
            .route("/server/backup", post(status::backup))
            .route("/server/gc", post(status::collect))
            .route("/server/stop", post(status::stop))
            .route("/tokens", get(tokens::list).post(tokens::create))
            .route("/tokens/{token}", delete(tokens::revoke));
        let users = Router::new()
            .route("/auth/me", get(auth::me))
            .route("/auth/validate", get(auth::validate))
            .route("/server", get(status::server))
            .route(
                "/agents",
                get(agents::list).post(agents::deploy).layer(DefaultBodyLimit::max(MAX_ARCHIVE)),
            )
            .route("/agents/{agent}", get(agents::get).delete(agents::delete))
            .route("/agents/{agent}/secrets", get(secrets::list).patch(secrets::set))
            .route("/agents/{agent}/secrets/{key}", delete(secrets::delete))
            .route("/sessions", get(sessions::list).post(sessions::create))
            .route("/sessions/resolve", get(sessions::resolve))
            .route("/sessions/stats", get(sessions::stats))
            .route("/sessions/watch", get(sessions::watch))
            .route("/sessions/end", post(sessions::end_many))
            .route("/sessions/{id}", get(sessions::get).delete(sessions::delete))
            .route("/sessions/{id}/end", post(sessions::end))
            .route("/sessions/{id}/resume", post(sessions::resume))
            .route("/sessions/{id}/cancel", post(sessions::cancel))
            .route("/sessions/{id}/export", get(files::export))
            .route("/sessions/{id}/files", get(files::get))
            .route(
                "/sessions/{id}/files/{*path}",
                get(files::get).put(files::put).layer(DefaultBodyLimit::disable()),
            )
            .route("/sessions/{id}/messages", get(sessions::messages).post(runs::send))
            .route("/sessions/{id}/network", get(sessions::network))
            .route("/sessions/{id}/events", get(runs::events));
        let v1 = open
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_patience))
            .merge(users.route_layer(middleware::from_fn_with_state(self.clone(), access::with_token)))
            .merge(owners.route_layer(middleware::from_fn_with_state(self.clone(), access::with_admin)));
        let pages = Router::new()
            .route("/device", get(page::show))
            .route("/device/login", post(page::log_in))
            .route("/device/decide", post(page::decide))
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_patience));
        let router = Router::new()
            .nest("/v1", v1)
            .merge(pages)
            .fallback(error::no_route)
            .method_not_allowed_fallback(error::no_method)
            .layer(RequestBodyTimeoutLayer::new(BODY_PAUSE))
            .layer(middleware::from_fn_with_state(self.clone(), access::called_by_name));
        // Outside of the checks, so that a page may read why it was refused.
        let router = match self.door.cors() {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(middleware::from_fn_with_state(self.clone(), count))
            .with_state(self)
    }
}

/// Counts a request as under way until its answer's head is out, and logs it. A run's stream keeps the server up by
/// its run, not as a request.
async fn count(State(server): State<Server>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), asked(request.uri()));
    let begun = Instant::now();
    let under_way = server.busy();
    let response = next.run(request).await;
    drop(under_way);
    tracing::info!(target: "request", "{line} {} {:.1}ms", response.status().as_u16(), begun.elapsed().as_secs_f64() * 1e3);
    response
}

/// Path and query as the log shows them: in ASCII that can be printed, and not too long.
fn asked(uri: &Uri) -> String {
    let whole = uri.path_and_query().map_or(uri.path(), |whole| whole.as_str());
    let mut shown: String =
        whole.chars().take(MAX_LOGGED).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    if whole.chars().nth(MAX_LOGGED).is_some() {
        shown.push_str("...");
    }
    shown
}

struct UnderWay(Arc<Traffic>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::SeqCst);
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
