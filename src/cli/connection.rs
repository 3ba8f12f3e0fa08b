//! A script's way to the server, and Ctrl-C's way to a script.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use super::error::INTERRUPTED;
use super::shell;
use super::ui::{AtPrompt, at_prompt};
use crate::client::{self, Client};
use crate::config::{Config, SandboxChoice};
use crate::daemon;
use crate::script::{Connection, Interrupt, Terminal};

/// The local server, which is started at the first call.
pub struct Local {
    pub config: Config,
    /// How a server that this command starts isolates its agents.
    pub sandbox: Option<SandboxChoice>,
    pub terminal: Rc<dyn Terminal>,
}

impl Connection for Local {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        Box::pin(async {
            let warn = |warning: &str| self.terminal.err(&warning_line(warning));
            daemon::connect(&self.config, self.sandbox, &warn).await
        })
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        Box::pin(async { daemon::running(&self.config).await.ok().flatten().map(|(client, _)| client) })
    }
}

/// What a server that was just started has to say, with what to do about it.
pub fn warning_line(warning: &str) -> String {
    format!("! {warning}\n  superserve doctor tells more.\n")
}

/// Passes Ctrl-C on to the script. The second one, while the first is not yet dealt with, ends the program, and so does
/// one at a question; one at the REPL's prompt is for another line. Who may start other programs (`has_shell`) ends them too when the program is told to end.
pub fn watch_signals(interrupt: Interrupt, has_shell: bool) {
    let watch = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let ends = async { if has_shell { told_to_end().await } else { std::future::pending().await } };
            tokio::pin!(ends);
            loop {
                tokio::select! {
                    pressed = tokio::signal::ctrl_c() => {
                        if pressed.is_err() {
                            return;
                        }
                        match at_prompt() {
                            // The terminal itself has thrown the line away.
                            AtPrompt::Repl => {}
                            AtPrompt::Nobody if !interrupt.is_set() => interrupt.set(),
                            AtPrompt::Nobody | AtPrompt::Question => end(INTERRUPTED),
                        }
                    }
                    code = &mut ends => end(code),
                }
            }
        });
    };
    // Without the thread Ctrl-C ends the program at once, as it does by default.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(watch);
}

/// Waits for a signal that ends programs; the exit code that stands for it.
async fn told_to_end() -> i32 {
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    let kind = tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    128 + kind.as_raw_value()
}

#[expect(
    clippy::disallowed_methods,
    reason = "somebody who presses Ctrl-C twice wants out, whatever still runs"
)]
fn end(code: i32) -> ! {
    shell::kill_running();
    std::process::exit(code)
}
