//! `serve` and `server status|start|stop|logs`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde_json::json;

use super::connection::{Way, warning_line};
use super::error::Report;
use super::login::Given;
use crate::config::{Config, SandboxChoice};
use crate::daemon::{self, Serve};
use crate::render;
use crate::script::Terminal;
use crate::wire::server::Collect;
use crate::wire::{ServerInfo, Timestamp};

/// How many bytes from a log's end are read to find its last lines.
const LOG_TAIL: u64 = 1 << 20;
/// In seconds.
const DAY: u64 = 24 * 3600;

pub type Result = std::result::Result<i32, Report>;

/// Serves in the foreground until a signal.
pub fn serve(mut config: Config, sandbox: Option<SandboxChoice>, options: &Serve) -> Result {
    config.sandbox = sandbox.unwrap_or(config.sandbox);
    daemon::serve(&config, options).map(|()| 0).map_err(|error| Report::from(&error))
}

/// Whether a server runs, and what it says of itself. Starts nothing.
pub fn status(given: &Given<'_>) -> Result {
    let Given { config, terminal, json, fields, .. } = *given;
    let way = Way::new(config, given.choice)?;
    let info = block_on(async {
        match way.running().await? {
            Some(client) => client.server().await.map(Some),
            None => Ok(None),
        }
    })?;
    let text = match (&info, json) {
        (None, true) => render::pretty(&render::only(json!({ "running": false }), fields)),
        (None, false) => {
            terminal.err("No server is running. Any command that needs one starts it.\n");
            String::new()
        }
        (Some(info), true) => render::pretty(&render::only(to_json(info), fields)),
        (Some(info), false) => table(info, Timestamp::from_millis(config.clock.now_millis())),
    };
    terminal.out(&text).map_err(|error| Report::io(&error))?;
    Ok(0)
}

/// Starts the server unless it runs.
pub fn start(
    config: &Config,
    terminal: &dyn Terminal,
    sandbox: Option<SandboxChoice>,
    dry_run: bool,
) -> Result {
    if dry_run && daemon::holder(config).map(|holder| holder.pid).is_none() {
        return would(terminal, "start the server");
    }
    let (info, ran) = block_on(async {
        let ran = daemon::running(config).await?.is_some();
        let warn = |warning: &str| terminal.err(&warning_line(warning));
        Ok((daemon::connect(config, sandbox, &warn).await?.server().await?, ran))
    })?;
    let what = if ran { "runs already" } else { "started" };
    terminal.err(&format!("✓ Server {what} (pid {})\n", info.pid));
    Ok(0)
}

/// Stops the server if it runs, and waits until it is gone.
pub fn stop(config: &Config, terminal: &dyn Terminal, dry_run: bool) -> Result {
    let pid = daemon::holder(config).map(|holder| holder.pid);
    if let (true, Some(pid)) = (dry_run, pid) {
        return would(terminal, &format!("stop the server (pid {pid})"));
    }
    match (block_on(daemon::stop(config))?, pid) {
        (Some(info), _) => terminal.err(&format!("✓ Server stopped (pid {})\n", info.pid)),
        (None, Some(pid)) => terminal.err(&format!("✓ Server stopped (pid {pid})\n")),
        (None, None) => terminal.err("No server is running.\n"),
    }
    Ok(0)
}

/// Tells what `--dry-run` withheld, where these commands tell what they do.
pub fn would(terminal: &dyn Terminal, what: &str) -> Result {
    terminal.err(&format!("would {what}\n"));
    Ok(0)
}

/// Saves a copy of the database and of the agents' code, or writes it to stdout.
pub fn backup(given: &Given<'_>, file: &std::path::Path) -> Result {
    let terminal = given.terminal;
    let way = Way::new(given.config, given.choice)?;
    if given.dry_run {
        return would(terminal, &format!("write {}", file.display()));
    }
    if file.as_os_str() == "-" {
        return print_backup(terminal, &way);
    }
    let bytes = block_on(async { way.connect(terminal).await?.backup().await?.save(file).await })?;
    terminal.err(&format!(
        "✓ Backup written to {} ({:.1} MiB)\n",
        file.display(),
        bytes as f64 / f64::from(1 << 20)
    ));
    Ok(0)
}

fn print_backup(terminal: &dyn Terminal, way: &Way) -> Result {
    if terminal.out_is_terminal() {
        let hint = "Name a file, or redirect it: superserve server backup - > backup.tar.gz";
        return Err(Report::usage("an archive is nothing for a terminal".to_owned(), hint));
    }
    let mut written = Ok(());
    block_on(async {
        let mut backup = way.connect(terminal).await?.backup().await?;
        while let Some(piece) = backup.next().await? {
            written = terminal.out_bytes(&piece);
            if written.is_err() {
                break;
            }
        }
        Ok(())
    })?;
    written.map(|()| 0).map_err(|error| Report::io(&error))
}

/// Lets go of what is past its time, or tells what would go.
pub fn collect(given: &Given<'_>) -> Result {
    let Given { config, terminal, dry_run, json, fields, .. } = *given;
    let way = Way::new(config, given.choice)?;
    let freed = block_on(async { way.connect(terminal).await?.collect(Collect { dry_run }).await })?;
    let text = match json {
        true => render::pretty(&render::only(json!(freed), fields)),
        false => {
            let kept = |after: Option<std::time::Duration>| match after {
                Some(after) if after.as_secs() % DAY == 0 => {
                    format!("over {} days ago", after.as_secs() / DAY)
                }
                Some(after) => format!("over {} ago", humantime::format_duration(after)),
                None => "kept for ever".to_owned(),
            };
            let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
            let database = match dry_run {
                true => mib(freed.database_before),
                false => format!("{}, was {}", mib(freed.database_after), mib(freed.database_before)),
            };
            render::fields(&[
                ("Sessions", format!("{} (ended {})", freed.sessions, kept(config.keep_ended))),
                ("Events", format!("{} (of runs that ended {})", freed.events, kept(config.keep_events))),
                ("Revisions", freed.revisions.to_string()),
                ("Folders", freed.folders.to_string()),
                ("Database", database),
            ])
        }
    };
    if dry_run {
        terminal.err("Nothing is let go of: this is what would be.\n");
    }
    terminal.out(&text).map(|()| 0).map_err(|error| Report::io(&error))
}

/// The last `lines` of the server's log.
pub fn logs(config: &Config, terminal: &dyn Terminal, lines: usize) -> Result {
    let path = config.log();
    let text = match tail(&path, lines) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            terminal.err(&format!("There is no log yet: no server has run on {}.\n", config.home.display()));
            return Ok(0);
        }
        Err(error) => return Err(Report::io(&error)),
    };
    let text = if terminal.out_is_terminal() { render::clean(&text) } else { text };
    terminal.out(&text).map(|()| 0).map_err(|error| Report::io(&error))
}

fn tail(path: &std::path::Path, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let mut last = String::new();
    for line in &all[all.len().saturating_sub(lines)..] {
        let _ = writeln!(last, "{line}");
    }
    Ok(last)
}

fn to_json(info: &ServerInfo) -> serde_json::Value {
    let info = ServerInfo { started_at: info.started_at.whole_seconds(), ..info.clone() };
    let mut fields = json!({ "running": true });
    if let (Some(fields), Ok(serde_json::Value::Object(info))) =
        (fields.as_object_mut(), serde_json::to_value(info))
    {
        fields.extend(info);
    }
    fields
}

fn table(info: &ServerInfo, now: Timestamp) -> String {
    let isolation = match (&info.isolation, &info.sandbox_error) {
        (Some(isolation), None) => isolation.as_str().to_owned(),
        (Some(isolation), Some(error)) => format!("{}: {error}", isolation.as_str()),
        (None, Some(error)) => format!("refused: {error}"),
        (None, None) => "unknown".to_owned(),
    };
    let mut fields = vec![
        ("Running", "yes".to_owned()),
        ("PID", info.pid.to_string()),
        ("Version", format!("{} (build {})", info.version, info.build)),
        ("Started", format!("{} ({})", render::ago(info.started_at, now), render::moment(info.started_at))),
        ("Sessions", info.sessions.to_string()),
        ("Active runs", info.active_runs.to_string()),
        ("Isolation", isolation),
        ("Home", info.home.clone()),
        ("Socket", info.socket.clone()),
    ];
    fields.extend(info.address.clone().map(|address| ("Address", address)));
    render::fields(&fields)
}

pub fn block_on<T>(work: impl Future<Output = crate::client::Result<T>>) -> std::result::Result<T, Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Report::io(&error))?;
    runtime.block_on(work).map_err(|error| Report::from(&error))
}
