//! One method a call to a server; the only way to the platform from the script's side.

mod download;
mod error;
mod files;
mod package;
mod request;
mod watch;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use download::Download;
pub use error::{Error, Result};
pub use files::{Content, not_in_workspace};
pub use package::Package;
pub use request::{RunStream, digits};

/// The longest path that a socket's address holds, in bytes (`sun_path` without its final NUL).
pub const MAX_SOCKET_PATH: usize = 107;

/// Speaks to one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Ends in `/v1`.
    base: String,
    socket: PathBuf,
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
        let http = reqwest::Client::builder().unix_socket(address).no_proxy().build()?;
        let base = "http://localhost/v1".to_owned();
        Ok(Self { http, base, socket: socket.to_owned(), _folder: folder.map(Arc::new) })
    }

    /// The socket that this client speaks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
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
