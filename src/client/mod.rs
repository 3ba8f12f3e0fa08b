//! One method a call to a server; the only way to the platform from the script's side.

mod ask;
mod auth;
mod download;
mod error;
mod events;
mod files;
mod package;
mod request;
mod sent;
mod watch;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::wire::Secret;

pub use download::Download;
pub use error::{Error, Result};
pub use events::RunStream;
pub use files::{Content, not_in_workspace};
pub use package::{Package, folder_name, script_command};
pub use request::digits;
pub use sent::Sent;

/// The longest path that a socket's address holds, in bytes (`sun_path` without its final NUL).
pub const MAX_SOCKET_PATH: usize = 107;

/// How the local server is called in URLs, which nobody sees but errors.
const SOCKET: &str = "superserve.socket";
/// How long a connection to a server may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may send nothing: it sends a comment every 15 s where there is nothing to say, and every other call
/// answers within 30 s or says something meanwhile.
const SILENCE: Duration = Duration::from_secs(90);

/// Speaks to one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Ends in `/v1`.
    base: String,
    is_local: bool,
    /// What a script calls the server, where it has named one.
    name: Option<Arc<str>>,
    /// Held open while a long path is reached through it.
    _folder: Option<Arc<OwnedFd>>,
}

impl Client {
    /// A client of the server that listens, or will listen, on this Unix socket.
    pub fn unix(socket: &Path) -> Result<Self> {
        let (address, folder) = socket_address(socket).map_err(|error| Error::Unreachable {
            message: format!("cannot reach the server at {}: {error}", socket.display()),
            hint: None,
        })?;
        let http = builder().unix_socket(address).no_proxy().tls_certs_only([]).build()?;
        let base = format!("http://{SOCKET}/v1");
        Ok(Self { http, base, is_local: true, name: None, _folder: folder.map(Arc::new) })
    }

    /// A client of the server at this URL, such as `https://agents.example.com`. `token` goes to it and nowhere else: no
    /// redirection is followed.
    pub fn remote(url: &str, token: Option<&Secret>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
            let mut value = value.map_err(|_| Error::Input {
                message: "the token holds what no token can".into(),
                hint: Some("Log in anew: superserve login.".into()),
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            http,
            base: format!("{}/v1", url.trim_end_matches('/')),
            is_local: false,
            name: None,
            _folder: None,
        })
    }
}

impl Client {
    /// The same, under this name.
    pub fn named(self, name: Arc<str>) -> Self {
        Self { name: Some(name), ..self }
    }

    /// What a script calls the server; none is the one that a command speaks to.
    pub fn name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }
}

fn builder() -> reqwest::ClientBuilder {
    // A second client finds it there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .read_timeout(SILENCE)
        .user_agent(concat!("superserve/", env!("CARGO_PKG_VERSION")))
}

/// A path under which this socket can be bound and connected. A path too long for a socket's address is
/// reached through an open folder, which must stay open as long as the path is used.
pub fn socket_address(socket: &Path) -> std::io::Result<(PathBuf, Option<OwnedFd>)> {
    use rustix::fs::{Mode, OFlags};
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((socket.to_owned(), None));
    }
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Ok((socket.to_owned(), None));
    };
    let folder = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name), Some(folder)))
}
