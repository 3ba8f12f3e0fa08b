//! A script's way to the server, and Ctrl-C's way to a script.

use futures_util::future::LocalBoxFuture;

use super::error::INTERRUPTED;
use super::ui::{AtPrompt, at_prompt};
use crate::client::{self, Client};
use crate::config::{Config, SandboxChoice};
use crate::daemon;
use crate::script::{Connection, Interrupt};

/// The local server, which is started at the first call.
pub struct Local {
    pub config: Config,
    /// How a server that this command starts isolates its agents.
    pub sandbox: Option<SandboxChoice>,
}

impl Connection for Local {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        Box::pin(daemon::connect(&self.config, self.sandbox))
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        Box::pin(async { daemon::running(&self.config).await.ok().flatten().map(|(client, _)| client) })
    }
}

/// Passes Ctrl-C on to the script. The second one, while the first is not yet dealt with, ends the program, and so does
/// one at a question; one at the REPL's prompt is for another line.
pub fn watch_ctrl_c(interrupt: Interrupt) {
    let watch = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                match at_prompt() {
                    // The terminal itself has thrown the line away.
                    AtPrompt::Repl => {}
                    AtPrompt::Nobody if !interrupt.is_set() => interrupt.set(),
                    AtPrompt::Nobody | AtPrompt::Question => end(),
                }
            }
        });
    };
    // Without the thread Ctrl-C ends the program at once, as it does by default.
    let _ = std::thread::Builder::new().name("ctrl-c".into()).spawn(watch);
}

#[expect(
    clippy::disallowed_methods,
    reason = "somebody who presses Ctrl-C twice wants out, whatever still runs"
)]
fn end() -> ! {
    std::process::exit(INTERRUPTED)
}
