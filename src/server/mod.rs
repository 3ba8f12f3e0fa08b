//! The platform over HTTP: every route on one screen, a file of handlers a noun, errors to statuses.
//!
//! Not here: rules (platform) and listeners, start and end of the process (daemon).

mod access;
mod agents;
mod auth;
mod error;
mod files;
mod metrics;
mod openapi;
mod page;
mod request;
mod request_id;
mod runs;
mod secrets;
mod sessions;
mod status;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub use access::{Door, Peer};

use crate::clock::Clock;
use crate::platform::Platform;
use crate::wire::{Scope, Timestamp, Version};

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
    /// What describes the routes; there once they are made.
    document: Arc<OnceLock<String>>,
    /// Where the IDs of requests come from.
    request_ids: Clock,
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
            request_ids: clock.beside(),
            clock,
            identity: Arc::new(identity),
            rates: Arc::new(access::Rates::new(door.rate)),
            door: Arc::new(door),
            owners: Arc::default(),
            traffic: Arc::new(traffic),
            stop,
            document: Arc::default(),
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
        let open = OpenApiRouter::new()
            .routes(routes!(auth::device_code))
            .routes(routes!(auth::device_token))
            .routes(routes!(status::health))
            .routes(routes!(status::version));
        let owners = OpenApiRouter::new()
            .routes(routes!(auth::device_approve))
            .routes(routes!(status::backup))
            .routes(routes!(status::collect))
            .routes(routes!(status::stop))
            .routes(routes!(tokens::list, tokens::create))
            .routes(routes!(tokens::revoke));
        let users = OpenApiRouter::new()
            .routes(routes!(auth::me))
            .routes(routes!(auth::validate))
            .routes(routes!(openapi::document))
            .routes(routes!(metrics::scrape))
            .routes(routes!(status::server))
            .routes(routes!(agents::list, agents::deploy).layer(DefaultBodyLimit::max(MAX_ARCHIVE)))
            .routes(routes!(agents::get, agents::delete))
            .routes(routes!(secrets::list, secrets::set))
            .routes(routes!(secrets::delete))
            .routes(routes!(sessions::list, sessions::create))
            .routes(routes!(sessions::resolve))
            .routes(routes!(sessions::stats))
            .routes(routes!(sessions::watch))
            .routes(routes!(sessions::end_many))
            .routes(routes!(sessions::get, sessions::delete))
            .routes(routes!(sessions::end))
            .routes(routes!(sessions::resume))
            .routes(routes!(sessions::cancel))
            .routes(routes!(files::export))
            .routes(routes!(files::top))
            .routes(routes!(files::get, files::put).layer(DefaultBodyLimit::disable()))
            .routes(routes!(sessions::messages, runs::send))
            .routes(routes!(sessions::network))
            .routes(routes!(runs::events));
        let open = openapi::told(open, |_| None)
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_patience));
        let users = openapi::told(users, |method| Some(access::needed(method)))
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_token));
        let owners = openapi::told(owners, |_| Some(Scope::Admin))
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_admin));
        let v1 = open.merge(users).merge(owners);
        let (v1, document) =
            OpenApiRouter::with_openapi(openapi::outline()).nest("/v1", v1).split_for_parts();
        match openapi::finish(document) {
            Ok(text) => drop(self.document.set(text)),
            Err(error) => tracing::error!(%error, "cannot write the document of the API"),
        }
        let pages = Router::new()
            .route("/device", get(page::show))
            .route("/device/login", post(page::log_in))
            .route("/device/decide", post(page::decide))
            .route_layer(middleware::from_fn_with_state(self.clone(), access::with_patience));
        let router = v1
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
            .layer(middleware::from_fn_with_state(self.clone(), request_id::identify))
            .with_state(self)
    }
}

/// Counts a request as under way until its answer's head is out, and logs it. A run's stream keeps the server up by
/// its run, not as a request.
async fn count(State(server): State<Server>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), asked(request.uri()));
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let under_way = server.busy();
    let response = next.run(request).await;
    drop(under_way);
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    let route = route.as_ref().map(MatchedPath::as_str);
    server.platform.metrics().request(method.as_str(), route, status, took);
    let millis = took.as_secs_f64() * 1e3;
    tracing::info!(
        target: "request",
        { http.method = %method, http.path = path, http.route = route, http.status = status, http.millis = millis },
        "{method} {path} {status} {millis:.1}ms"
    );
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
