//! The server process: lock, store, sandbox, platform, socket; then until a signal, a stop or idleness.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::listen::{Bound, Connections, Listen, ListenError};
use super::lock::Lock;
use super::{Report, START, log, private_folder, process, version};
use crate::client::socket_address;
use crate::config::{Config, SandboxChoice};
use crate::harness::Limits;
use crate::platform::{self, Platform};
use crate::sandbox::{self, Spawner};
use crate::server::{Door, Identity, MAX_ARCHIVE, Server};
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError};
use crate::wire::Timestamp;

/// How often it is looked at whether sessions are due to expire.
const EXPIRY: Duration = Duration::from_secs(30);
/// How often what is past its time is let go of, and how long after the start for the first time: not while the
/// command waits that started the server.
const COLLECTION: Duration = Duration::from_secs(3600);
const FIRST_COLLECTION: Duration = Duration::from_secs(60);
/// How long a running turn gets when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the end of a session waits for the last byte to be gone.
const WIPE: Duration = Duration::from_secs(10);
/// How long an agent gets to leave by itself.
const END_GRACE: Duration = Duration::from_secs(2);
/// The same in a home that is thrown away.
const THROWAWAY_GRACE: Duration = Duration::from_millis(100);
/// How long a cancelled agent gets to wait for input again.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// How long open streams get after the last run has ended.
const STREAMS: Duration = Duration::from_secs(2);

/// How long a server in the foreground waits for its lock.
const LOOK: Duration = Duration::from_millis(200);

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct Serve {
    /// Where to listen; the home's own socket if not given.
    pub socket: Option<PathBuf>,
    /// In the background: waits for an earlier server to go, reports on stdout, exits when idle.
    pub background: bool,
    /// Ends when its stdin does, without patience for agents: nothing that is in this home is wanted any more then.
    pub throwaway: bool,
    /// Where others are let in, who need a token; nowhere if not given.
    pub listen: Option<Listen>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("A server runs already on {home} (pid {pid})", home = home.display())]
    AlreadyRunning { home: PathBuf, pid: u32 },
    #[error("cannot use {path}: {source}", path = path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot listen on {path}: {reason}", path = path.display())]
    Socket { path: PathBuf, reason: String },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Platform(#[from] platform::Error),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("the server failed: {0}")]
    Io(#[from] io::Error),
}

impl ServeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning { .. } => Some(
                "Use it, stop it with superserve server stop, or set SUPERSERVE_HOME to another folder."
                    .to_owned(),
            ),
            Self::Folder { .. } => Some("Set SUPERSERVE_HOME to a folder that you may write.".to_owned()),
            Self::Socket { .. } => Some("Give another path with --socket.".to_owned()),
            Self::Listen(error) => Some(error.hint()),
            Self::Store(error) => error.hint(),
            Self::Platform(error) => error.hint(),
            Self::Vault(error) => Some(error.hint()),
            Self::Io(_) => None,
        }
    }
}

/// Serves until a signal, a stop or idleness ends it.
pub fn serve(config: &Config, options: &Serve) -> Result<(), ServeError> {
    if options.background {
        // A terminal that closes takes its session's processes with it; the server is none of them.
        let _ = rustix::process::setsid();
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Some(fault) = &config.fault {
        crate::fault::arm(fault);
    }
    raise_open_files();
    // Its memory holds secrets in the clear now and then: no core dump of it, and no look into it by other processes of its
    // user. It ends with the exec of the spawner.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    log::start(config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run(config, options));
    if let (true, Err(error)) = (options.background, &ended) {
        tracing::error!("{error}");
        report(&Report::Failed { message: error.to_string(), hint: error.hint() })?;
    }
    runtime.shutdown_timeout(STREAMS);
    ended
}

async fn run(config: &Config, options: &Serve) -> Result<(), ServeError> {
    private_folder(&config.home)
        .map_err(|source| ServeError::Folder { path: config.home.clone(), source })?;
    let lock = lock(config, options).await?;
    let shared = lock.share()?;
    // Never let go of: the kernel frees it when this process is gone, and so whoever waits for the lock waits for that.
    std::mem::forget(lock);
    let mut signals = Signals::new()?;
    let spawner = Spawner::new(Arc::new(move || process::start_spawner(shared.try_clone()?)));
    let choice = match config.sandbox {
        SandboxChoice::Auto => sandbox::Choice::Auto,
        SandboxChoice::Native => sandbox::Choice::Native,
        SandboxChoice::Bwrap => sandbox::Choice::Bwrap,
        SandboxChoice::Landlock => sandbox::Choice::Landlock,
        SandboxChoice::None => sandbox::Choice::None,
    };
    let wish = sandbox::Wish { choice, only_full: config.only_full };
    let opened = sandbox::open(wish, spawner, &config.home, config.uid_base).await;
    let refusal = match &opened {
        Ok(opened) => opened.weaker.clone(),
        Err(refusal) => Some(refusal.clone()),
    };
    if let Some(refusal) = &refusal {
        tracing::warn!("{refusal}. {}", refusal.remedy);
    }
    let warning = opened.as_ref().ok().and_then(|opened| {
        let refusal = opened.weaker.as_ref()?;
        let isolation = opened.sandbox.isolation().as_str();
        Some(format!("Agents run with {isolation} isolation: {refusal}"))
    });
    let driver = opened.as_ref().ok().map(|opened| opened.sandbox.name());
    let sandbox = opened.map(|opened| opened.sandbox);
    // Before anything is read: somebody who gives a wrong address hears it at once.
    let bound = match &options.listen {
        Some(listen) => Some(Bound::bind(listen).await?),
        None => None,
    };
    let store = Store::open(&config.database()).await?;
    let platform =
        Platform::open(platform_options(config, options)?, store.clone(), sandbox, config.clock.clone())
            .await?;
    let listening = Listening::bind(socket_of(config, options))?;
    let stop = CancellationToken::new();
    let address = bound.as_ref().map(|bound| format!("{}://{}", bound.scheme(), bound.address));
    let identity = Identity {
        version: version(),
        pid: std::process::id(),
        socket: listening.path.display().to_string(),
        address: address.clone(),
        home: config.home.display().to_string(),
        driver: driver.map(str::to_owned),
        refusal: refusal.map(|refusal| format!("{refusal}. {}", refusal.remedy)),
        started_at: Timestamp::from_millis(config.clock.now_millis()),
    };
    let door = door(config, options, bound.as_ref());
    let server = Server::new(platform.clone(), config.clock.clone(), identity, door, stop.clone());
    tracing::info!("listening on {}", listening.path.display());
    let connections = Connections::new(server.clone().router());
    connections.accept_owner(listening.listener);
    if let (Some(bound), Some(address)) = (bound, address) {
        if bound.scheme() == "http" && !bound.address.ip().is_loopback() {
            tracing::warn!("others are let in without TLS: everybody in between reads tokens and sessions");
        }
        if platform.tokens().await?.is_empty() {
            tracing::warn!(
                "nobody can come in over the network yet: make a token with superserve tokens create NAME"
            );
        }
        connections.accept_others(bound);
        tracing::info!("listening on {address}");
    }
    if options.background {
        report(&Report::Ready { warning })?;
    }
    let why = tokio::select! {
        name = signals.next() => name,
        () = stop.cancelled() => "asked to stop",
        () = idle(&server, &platform, config.idle_exit.filter(|_| options.background)) => "idle",
        () = expire(&platform) => "expiry failed",
        () = collect(&platform), if !options.throwaway => "retention failed",
        () = closed_stdin(), if options.throwaway => "nobody needs it any more",
    };
    tracing::info!("stopping: {why}");
    // First the socket, so that a command that comes now starts a server of its own, which waits for our lock.
    let _ = std::fs::remove_file(&listening.path);
    connections.close();
    platform.shut_down().await;
    let _ = tokio::time::timeout(STREAMS, connections.gone()).await;
    store.close().await;
    tracing::info!("stopped: {why}");
    Ok(())
}

/// Who is let in over the network.
fn door(config: &Config, options: &Serve, bound: Option<&Bound>) -> Door {
    let (Some(bound), Some(listen)) = (bound, &options.listen) else { return Door::default() };
    // As it was written, and as it turned out.
    let written = listen.address.rsplit_once(':').map(|(host, _)| host.to_ascii_lowercase());
    Door {
        hosts: written.into_iter().chain([bound.address.ip().to_string()]).collect(),
        any_address: bound.is_any,
        origins: config.cors.clone(),
        public_url: config.public_url.clone(),
        has_tls: bound.scheme() == "https",
        rate: config.rate_limit,
    }
}

fn platform_options(config: &Config, options: &Serve) -> Result<platform::Options, ServeError> {
    Ok(platform::Options {
        home: config.home.clone(),
        limits: Limits {
            quiet: config.turn_quiet,
            turn: config.turn_timeout,
            startup: config.startup_timeout,
            cancel_grace: CANCEL_GRACE,
        },
        expire_after: config.expire_after,
        keep_events: config.keep_events,
        keep_ended: config.keep_ended,
        uid_base: config.uid_base,
        end_grace: if options.throwaway { THROWAWAY_GRACE } else { END_GRACE },
        max_warm: config.max_warm,
        wipe_within: WIPE,
        drain: if options.throwaway { Duration::ZERO } else { DRAIN },
        max_upload: MAX_ARCHIVE as u64,
        path: config.search_path.clone(),
        install_limit: config.dependencies_timeout,
        install_env: config.install_env.clone(),
        vault: Vault::new(&config.home, config.secret_key.as_ref())?,
    })
}

/// Where to listen. Absolute, since commands that run elsewhere look for it.
fn socket_of(config: &Config, options: &Serve) -> PathBuf {
    let socket = options.socket.clone().unwrap_or_else(|| config.socket());
    std::path::absolute(&socket).unwrap_or(socket)
}

async fn lock(config: &Config, options: &Serve) -> Result<Lock, ServeError> {
    let path = config.home.join("server.lock");
    let folder = |source| ServeError::Folder { path: path.clone(), source };
    let lock = if options.background {
        Lock::wait(&path, START).await.ok()
    } else {
        // Somebody who looks whether a server runs holds it for a moment.
        Lock::wait(&path, LOOK).await.ok()
    };
    let Some(mut lock) = lock else {
        let pid = super::holder(config).map_or(0, |holder| holder.pid);
        return Err(ServeError::AlreadyRunning { home: config.home.clone(), pid });
    };
    lock.sign(std::process::id(), &socket_of(config, options)).map_err(folder)?;
    Ok(lock)
}

/// Never answers while the server is of use.
async fn idle(server: &Server, platform: &Platform, after: Option<Duration>) {
    let Some(after) = after else { return std::future::pending().await };
    let mut ticks =
        tokio::time::interval((after / 4).clamp(Duration::from_millis(50), Duration::from_secs(10)));
    loop {
        ticks.tick().await;
        if server.quiet_for() < after {
            continue;
        }
        let activity = platform.activity().await;
        if activity.active_runs == 0 && activity.live_agents == 0 {
            return;
        }
    }
}

/// Answers at the end of stdin: when whoever holds its other end lets it go, or is gone.
async fn closed_stdin() {
    let pipe = rustix::io::dup(rustix::stdio::stdin()).map_err(io::Error::from);
    let Ok(mut pipe) = pipe.and_then(tokio::net::unix::pipe::Receiver::from_owned_fd) else { return };
    let mut byte = [0];
    while pipe.read(&mut byte).await.is_ok_and(|count| count > 0) {}
}

/// Lets go of what is past its time, now and again.
async fn collect(platform: &Platform) {
    tokio::time::sleep(FIRST_COLLECTION).await;
    let mut ticks = tokio::time::interval(COLLECTION);
    loop {
        ticks.tick().await;
        if let Err(error) = platform.collect(false).await {
            tracing::warn!(%error, "cannot let go of what is past its time");
        }
    }
}

async fn expire(platform: &Platform) {
    let mut ticks = tokio::time::interval(EXPIRY);
    loop {
        ticks.tick().await;
        platform.expire_due().await;
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// A bound socket.
struct Listening {
    path: PathBuf,
    listener: UnixListener,
    /// Held open while a long path is reached through it.
    _folder: Option<OwnedFd>,
}

impl Listening {
    fn bind(path: PathBuf) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::Socket { path: path.clone(), reason };
        let io = |error: io::Error| failed(error.to_string());
        let path = std::path::absolute(&path).map_err(io)?;
        let folder = super::parent(&path);
        if !folder.exists() {
            private_folder(&folder).map_err(io)?;
        }
        let (address, held) = socket_address(&path).map_err(io)?;
        remove_stale(&path, &address).map_err(failed)?;
        let listener = UnixListener::bind(&address).map_err(io)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self { path: path.clone(), listener, _folder: held })
    }
}

/// Removes a socket that a dead server left behind: only a socket, and only if a connection is refused.
fn remove_stale(path: &Path, address: &Path) -> Result<(), String> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err("something else than a socket is there".to_owned());
    }
    match std::os::unix::net::UnixStream::connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("another server listens there".to_owned()),
    }
}

/// Tells the command that started us, and gives stdout back, so that nobody waits for us.
fn report(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let null = File::options().write(true).open("/dev/null")?;
    // If the command has gone away, nobody needs the report.
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    rustix::stdio::dup2_stdout(null)?;
    Ok(())
}

/// A session holds several files open; the soft limit is made for programs that use select().
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
