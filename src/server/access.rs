//! Who may come in: hosts and origins, tokens and their scopes, how often.
//!
//! What comes over the socket is its owner's, and may do everything: the file's permission and the peer's uid have decided.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use tower_http::cors::CorsLayer;

use super::Server;
use super::error::{Failure, Result};
use super::request_id;
use crate::wire::{ErrorCode, Scope, Token};

/// How often somebody without a good token may ask, a second and at once.
const STRANGER_RATE: u32 = 10;
const STRANGER_BURST: u32 = 60;
/// After so many requests those who have not asked for a while are forgotten.
const SWEEP: u32 = 4096;

/// Where a request comes from; the listener puts it into each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The socket, whose other end is the server's own user.
    Owner,
    Remote(SocketAddr),
}

/// What is let in over the network.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Names and addresses by which requests may call this server, besides those of this machine.
    pub hosts: Vec<String>,
    /// Whether it listens on every address of the machine, so that any of them may be called.
    pub any_address: bool,
    /// Origins whose pages may use the API: `https://app.example.com`.
    pub origins: Vec<String>,
    /// How others reach it, without a final slash; if not given, as they have called it.
    pub public_url: Option<String>,
    pub has_tls: bool,
    /// How many requests a second a token may make; `None` is any number.
    pub rate: Option<NonZeroU32>,
}

/// Counts how often each asks.
#[derive(Debug)]
pub struct Rates {
    tokens: Option<DefaultKeyedRateLimiter<String>>,
    strangers: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU32,
}

impl Rates {
    pub fn new(a_token: Option<NonZeroU32>) -> Self {
        let strangers = NonZeroU32::new(STRANGER_RATE).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(STRANGER_BURST).unwrap_or(NonZeroU32::MIN);
        // What comes at once at the start of a command is let through.
        let quota = |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_add(rate.get()));
        Self {
            tokens: a_token.map(|rate| RateLimiter::keyed(quota(rate))),
            strangers: RateLimiter::keyed(Quota::per_second(strangers).allow_burst(burst)),
            asked: AtomicU32::new(0),
        }
    }

    fn token(&self, token: &Token) -> Result<()> {
        self.sweep();
        match &self.tokens {
            Some(limiter) => limiter.check_key(&token.id).map_err(slow_down),
            None => Ok(()),
        }
    }

    /// One more request of somebody who has shown no good token.
    pub fn stranger(&self, peer: Peer) -> Result<()> {
        let Peer::Remote(address) = peer else { return Ok(()) };
        self.sweep();
        self.strangers.check_key(&network(address.ip())).map_err(slow_down)
    }

    fn sweep(&self) {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.strangers.retain_recent();
            self.strangers.shrink_to_fit();
            if let Some(tokens) = &self.tokens {
                tokens.retain_recent();
            }
        }
    }
}

/// Who holds one address of version 6 holds 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        },
    }
}

fn slow_down(until: NotUntil<<DefaultClock as governor::clock::Clock>::Instant>) -> Failure {
    let wait = until.wait_time_from(DefaultClock::default().now());
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    Failure::new(
        ErrorCode::RateLimited,
        format!("Too many requests. Try again in {seconds} s"),
        "The server's owner sets the limit: server.rate_limit.".to_owned(),
    )
    .retry_after(wait)
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The server's own user, over the socket.
    Owner,
    Token(Token),
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or_else(unauthenticated)
    }
}

/// Where a request comes from. Without a listener that says so, from somewhere unknown.
pub fn peer(extensions: &axum::http::Extensions) -> Peer {
    extensions.get().copied().unwrap_or(Peer::Remote(SocketAddr::from(([0, 0, 0, 0], 0))))
}

/// Lets in who calls this server by a name of its own, and no page of another: a page that a browser shows can reach
/// what listens on its machine, by a name that its maker points there.
pub async fn called_by_name(State(server): State<Server>, request: Request, next: Next) -> Response {
    match peer(request.extensions()) {
        Peer::Owner => next.run(request).await,
        Peer::Remote(_) => match checked(&server.door, &request) {
            Ok(()) => next.run(request).await,
            Err(failure) => failure.into_response(),
        },
    }
}

fn checked(door: &Door, request: &Request) -> Result<()> {
    let host = host(request);
    if !door.knows(host.unwrap_or_default()) {
        return Err(Failure::new(
            ErrorCode::Forbidden,
            format!("This server is not called '{}'", host.unwrap_or_default().escape_default()),
            "Its owner names how it is reached: superserve serve --public-url URL.".to_owned(),
        ));
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("null");
    if door.is_own(origin, host.unwrap_or_default()) || door.origins.iter().any(|known| known == origin) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::Forbidden,
        format!("Pages of '{}' may not use this server", origin.escape_default()),
        "Its owner allows them: superserve serve --cors-origin ORIGIN.".to_owned(),
    ))
}

/// What a request calls the server, with the port if it names one.
pub fn host(request: &Request) -> Option<&str> {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| request.uri().authority().map(|authority| authority.as_str()))
}

impl Door {
    /// Whether this server may be called so. A port doesn't count: there may be another before it.
    fn knows(&self, host: &str) -> bool {
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        name == "localhost"
            || address.is_some_and(|address| address.is_loopback() || self.any_address)
            || self.hosts.contains(&name)
            || self.public_host().is_some_and(|own| own == name)
    }

    fn public_host(&self) -> Option<String> {
        let (_, rest) = self.public_url.as_deref()?.split_once("://")?;
        Some(without_port(rest.split('/').next()?).to_ascii_lowercase())
    }

    /// Whether an origin is this server itself, as it was called.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, named)) = origin.split_once("://") else { return false };
        let public = self.public_url.as_deref().is_some_and(|url| {
            let end = url
                .split_once("://")
                .map_or(0, |(scheme, rest)| scheme.len() + 3 + rest.find('/').unwrap_or(rest.len()));
            url.get(..end).is_some_and(|own| own.eq_ignore_ascii_case(origin))
        });
        let called =
            scheme == if self.has_tls { "https" } else { "http" } && named.eq_ignore_ascii_case(host);
        public || called
    }

    /// Where this server is, for links: as its owner says, else as it was called.
    pub fn url(&self, host: &str) -> String {
        match &self.public_url {
            Some(url) => url.clone(),
            None => format!("{}://{host}", if self.has_tls { "https" } else { "http" }),
        }
    }

    /// What lets browsers use the API from the origins that are allowed; `None` if none are.
    pub fn cors(&self) -> Option<CorsLayer> {
        let origins: Vec<HeaderValue> =
            self.origins.iter().filter_map(|origin| origin.parse().ok()).collect();
        if origins.is_empty() {
            return None;
        }
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let asked = [header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static("last-event-id")];
        Some(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods(methods)
                .allow_headers(asked)
                .expose_headers([header::RETRY_AFTER, request_id::HEADER])
                .max_age(Duration::from_secs(3600)),
        )
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// The least scope that a method takes where nothing else is said.
pub fn needed(method: &str) -> Scope {
    if matches!(method, "GET" | "HEAD" | "OPTIONS") { Scope::Read } else { Scope::Write }
}

/// Asks for a token that may read, or, where something is changed, write.
pub async fn with_token(State(server): State<Server>, request: Request, next: Next) -> Response {
    let needed = needed(request.method().as_str());
    admit(&server, needed, request, next).await.into_response()
}

/// Asks for a token that may do everything.
pub async fn with_admin(State(server): State<Server>, request: Request, next: Next) -> Response {
    admit(&server, Scope::Admin, request, next).await.into_response()
}

/// For what is open to all: asks for nothing but patience.
pub async fn with_patience(State(server): State<Server>, request: Request, next: Next) -> Response {
    match server.rates.stranger(peer(request.extensions())) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn admit(server: &Server, needed: Scope, mut request: Request, next: Next) -> Result<Response> {
    let from = peer(request.extensions());
    let caller = match from {
        Peer::Owner => Caller::Owner,
        Peer::Remote(_) => {
            let token = known(server, from, request.headers()).await?;
            if token.scope < needed {
                return Err(Failure::new(
                    ErrorCode::Forbidden,
                    format!(
                        "The token '{}' has the scope {}, and this takes {needed}",
                        token.name, token.scope
                    ),
                    format!(
                        "Ask the server's owner for another: superserve tokens create NAME --scope {needed}."
                    ),
                ));
            }
            Caller::Token(token)
        }
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The token that a request shows.
async fn known(server: &Server, from: Peer, headers: &HeaderMap) -> Result<Token> {
    let Some(text) = bearer(headers) else {
        server.rates.stranger(from)?;
        return Err(unauthenticated());
    };
    let Some(token) = server.platform.authenticate(text).await? else {
        server.rates.stranger(from)?;
        return Err(Failure::new(
            ErrorCode::Unauthenticated,
            "The token is not valid: it was revoked, has expired, or is another server's. Log in again with: superserve login",
            None,
        ));
    };
    server.rates.token(&token)?;
    Ok(token)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (kind, text) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(text.trim()).filter(|text| kind.eq_ignore_ascii_case("bearer") && !text.is_empty())
}

fn unauthenticated() -> Failure {
    Failure::new(
        ErrorCode::Unauthenticated,
        "Not authenticated: this server wants a token. Log in with: superserve login",
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        Door {
            hosts: vec!["192.0.2.7".into(), "box.lan".into()],
            public_url: Some("https://agents.example.com:8443/x".into()),
            ..Door::default()
        }
    }

    #[test]
    fn is_called_by_its_names_alone() {
        let door = door();
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:9",
            "[::1]:8080",
            "[::1]",
            "192.0.2.7",
            "box.lan:1",
            "agents.example.com",
            "box.lan.",
        ] {
            assert!(door.knows(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "192.0.2.8",
            "127.0.0.1.evil.example",
            "example.com",
            "[::2]",
        ] {
            assert!(!door.knows(host), "{host}");
        }
        let open = Door { any_address: true, ..door };
        assert!(open.knows("192.0.2.8:80") && open.knows("[2001:db8::1]") && !open.knows("evil.example"));
    }

    #[test]
    fn its_own_pages_are_known() {
        let door = door();
        assert!(door.is_own("http://box.lan:80", "box.lan:80"));
        assert!(door.is_own("https://agents.example.com:8443", "10.0.0.1"));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "https://box.lan:80",
            "http://box.lan",
            "https://agents.example.com:84433",
        ] {
            assert!(!door.is_own(origin, "box.lan:80"), "{origin}");
        }
    }

    #[test]
    fn a_network_of_version_6_counts_as_one() {
        let rates = Rates::new(None);
        let from = |text: &str| Peer::Remote(SocketAddr::new(text.parse().expect("an address"), 1));
        for n in 0..STRANGER_BURST {
            assert!(rates.stranger(from(&format!("2001:db8::{n:x}"))).is_ok());
        }
        assert!(rates.stranger(from("2001:db8::ffff")).is_err());
        assert!(rates.stranger(from("2001:db8:0:1::1")).is_ok());
        assert!(rates.stranger(Peer::Owner).is_ok());
    }
}
