//! Why a call to the server failed.

use std::path::PathBuf;

use crate::wire::{ErrorBody, ErrorCode};

pub type Result<T> = std::result::Result<T, Error>;

/// A failed call, or a question that could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, or an ID was refused before it was asked.
    #[error("{message}")]
    Api { code: ErrorCode, message: String, hint: Option<String> },
    /// No server answers, or none could be started.
    #[error("{message}")]
    Unreachable { message: String, hint: Option<String> },
    /// The server answered something that is not our protocol.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
    /// Something on this side: a folder, a file, an argument.
    #[error("{message}")]
    Input { message: String, hint: Option<String> },
    /// A file or folder named by the user isn't there.
    #[error("{what} not found: {path}", path = path.display())]
    Missing { what: &'static str, path: PathBuf, hint: Option<String> },
}

impl Error {
    /// An error in the server's own shape.
    pub fn api(code: ErrorCode, message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self::Api { code, message: message.into(), hint: hint.into() }
    }

    /// The word that programs can test.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Api { code, .. } => code.as_str(),
            Self::Input { .. } => "invalid",
            Self::Missing { .. } => "not_found",
            Self::Protocol(_) => "protocol",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// The HTTP status that stands for it; 0 if no server answers, or none was asked.
    pub fn status(&self) -> u16 {
        match self {
            Self::Api { code, .. } => code.status(),
            Self::Input { .. } | Self::Missing { .. } | Self::Protocol(_) | Self::Unreachable { .. } => 0,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api { hint, .. }
            | Self::Input { hint, .. }
            | Self::Missing { hint, .. }
            | Self::Unreachable { hint, .. } => hint.as_deref(),
            Self::Protocol(_) => {
                Some("Is it a superserve server, and of this version? See superserve server status.")
            }
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self::Api { code: body.details.code, message: body.detail, hint: body.details.hint }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_decode() {
            return Self::Protocol(error.to_string());
        }
        let (message, hint) = match error.url().filter(|url| url.host_str() != Some(super::SOCKET)) {
            Some(url) => unreachable(&error, url),
            None => (
                format!("cannot reach the server: {}", cause(&error)),
                "Run superserve server status to see whether it runs, superserve server logs for its log.",
            ),
        };
        Self::Unreachable { message, hint: Some(hint.to_owned()) }
    }
}

/// What the system has said: reqwest's own text only names the URL again.
pub(super) fn cause(error: &reqwest::Error) -> &(dyn std::error::Error + 'static) {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = inner(cause) {
        cause = inner;
    }
    cause
}

fn inner<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    // An I/O error that holds another one passes over it in `source`.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

/// A server as errors name it.
pub(super) fn server_of(url: &reqwest::Url) -> String {
    match url.host_str() {
        Some(super::SOCKET) => "the server".to_owned(),
        _ => url.origin().ascii_serialization(),
    }
}

/// Why a server somewhere else can't be reached, and what to look at.
fn unreachable(error: &reqwest::Error, url: &reqwest::Url) -> (String, &'static str) {
    use std::io::ErrorKind;
    let server = server_of(url);
    let cause = cause(error);
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        let hint = match tls {
            rustls::Error::InvalidMessage(_) => {
                "It speaks no TLS there: is the port right, or is it http://?"
            }
            rustls::Error::InvalidCertificate(_) => {
                "Its certificate is not one that this machine trusts for this name. If it is your own, name its authority: \
                 SSL_CERT_FILE=ca.pem."
            }
            _ => "Is the port right, and does the server speak TLS?",
        };
        return (format!("cannot trust {server}: {tls}"), hint);
    }
    if error.is_timeout() {
        return (
            format!("{server} doesn't answer"),
            "Is it overloaded, or is a firewall in between that drops what is sent?",
        );
    }
    let hint = match kind {
        Some(ErrorKind::ConnectionRefused) => {
            "Nobody listens there: does the server run, and is the port right?"
        }
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => {
            "The connection broke off. Try again; its owner finds why in superserve server logs."
        }
        _ if error.is_connect() => "Is the URL right, and is this machine connected?",
        _ => "Is it a superserve server, and does it want https://?",
    };
    (format!("cannot reach {server}: {cause}"), hint)
}
