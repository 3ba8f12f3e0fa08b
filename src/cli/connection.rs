//! A script's way to the server, and Ctrl-C's way to a script.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use super::contexts::{Choice, Contexts, Target};
use super::error::{INTERRUPTED, Report};
use super::fullscreen;
use super::shell;
use super::ui::{AtPrompt, at_prompt};
use crate::client::{self, Client};
use crate::config::{Config, SandboxChoice};
use crate::daemon;
use crate::script::{Connection, Interrupt, Terminal};

/// The way to the server that a command speaks to.
#[derive(Clone)]
pub struct Way {
    config: Config,
    target: Target,
    /// How a server that this command starts isolates its agents.
    sandbox: Option<SandboxChoice>,
}

impl Way {
    /// Errors: contexts that can't be read; one that isn't there.
    pub fn new(config: &Config, choice: &Choice) -> Result<Self, Report> {
        let target = Contexts::load(config)?.target(config, choice)?;
        Ok(Self { config: config.clone(), target, sandbox: None })
    }

    /// The way to the server of this machine.
    pub fn local(config: &Config) -> Self {
        Self { config: config.clone(), target: Target::Local, sandbox: None }
    }

    /// The same, for a command that says how agents are isolated. Error: a remote server has decided that itself.
    pub fn with_sandbox(self, sandbox: Option<SandboxChoice>) -> Result<Self, Report> {
        if let (Some(_), Target::Remote { url, .. }) = (sandbox, &self.target) {
            return Err(Report::usage(
                format!("--sandbox counts only for the server of this machine, and this one is {url}"),
                "Take it away, or name the local server: --context local.",
            ));
        }
        Ok(Self { sandbox, ..self })
    }

    /// A client of the server; the local one is started if none runs.
    pub async fn connect(&self, terminal: &dyn Terminal) -> client::Result<Client> {
        match self.target.remote() {
            Some(client) => client,
            None => {
                let warn = |warning: &str| terminal.err(&warning_line(warning));
                daemon::connect(&self.config, self.sandbox, &warn).await
            }
        }
    }

    /// A client of the server if it is a remote one.
    pub fn remote(&self) -> Option<client::Result<Client>> {
        self.target.remote()
    }

    /// A client of a server that runs already.
    pub async fn running(&self) -> client::Result<Option<Client>> {
        match self.target.remote() {
            Some(client) => client.map(Some),
            None => Ok(daemon::running(&self.config).await?.map(|(client, _)| client)),
        }
    }
}

/// A script's connection.
pub struct Route {
    pub way: Way,
    pub terminal: Rc<dyn Terminal>,
}

impl Connection for Route {
    fn connect(&self) -> LocalBoxFuture<'_, client::Result<Client>> {
        Box::pin(self.way.connect(self.terminal.as_ref()))
    }

    fn running(&self) -> LocalBoxFuture<'_, Option<Client>> {
        Box::pin(async { self.way.running().await.ok().flatten() })
    }

    fn at(&self, name: &str) -> LocalBoxFuture<'_, client::Result<Client>> {
        let target = Contexts::load(&self.way.config).and_then(|contexts| contexts.target_named(name));
        Box::pin(async move {
            let target = target
                .map_err(|report| client::Error::Input { message: report.message, hint: report.hint })?;
            Way { target, sandbox: None, ..self.way.clone() }.connect(self.terminal.as_ref()).await
        })
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
    fullscreen::leave();
    std::process::exit(code)
}
