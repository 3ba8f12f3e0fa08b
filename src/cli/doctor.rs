//! `doctor`: what this machine gives superserve, one line a check.

use serde_json::json;

use super::error::Report;
use super::server::Result;
use crate::config::Config;
use crate::daemon::{self, Check, State};
use crate::render;
use crate::script::Terminal;

/// Tells what was found; the exit code is 1 if agents can't be run as the settings ask for it.
pub fn doctor(config: &Config, terminal: &dyn Terminal, json: bool, fields: &[String]) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Report::io(&error))?;
    let checks = runtime.block_on(daemon::doctor(config));
    let text = match json {
        true => render::pretty(&render::only(json!(checks), fields)),
        false => checks.iter().map(line).collect(),
    };
    terminal.out(&text).map_err(|error| Report::io(&error))?;
    Ok(i32::from(checks.iter().any(|check| check.state == State::Fail)))
}

fn line(check: &Check) -> String {
    let mark = match check.state {
        State::Ok => '✓',
        State::Warn => '!',
        State::Fail => '✗',
    };
    let hint = check.hint.as_ref().map(|hint| format!("  {:11} {hint}\n", "")).unwrap_or_default();
    format!("{mark} {:11} {}\n{hint}", check.name, check.detail)
}
