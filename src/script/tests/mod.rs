//! Scripts against a server of canned sessions: what they print, what they ask, what stops them.

mod conditions;
mod dialogue;
mod language;
mod platform;
mod repl;

use super::fake::{FakeServer, FakeTerminal, host};
use super::*;

struct Ran {
    result: Result<Outcome, Error>,
    out: String,
    err: String,
}

impl Ran {
    /// What a script printed that ended well.
    #[track_caller]
    fn printed(self) -> String {
        match self.result {
            Ok(Outcome::Done) => self.out,
            other => panic!("{other:?}, out {:?}, err {:?}", self.out, self.err),
        }
    }

    #[track_caller]
    fn error(self) -> Error {
        match self.result {
            Err(error) => error,
            other => panic!("{other:?}, out {:?}, err {:?}", self.out, self.err),
        }
    }
}

fn run_with(
    server: Option<&FakeServer>,
    options: Options,
    set: impl FnOnce(&FakeTerminal, &Host),
    text: &str,
) -> Ran {
    let (host, terminal) = host(server, options);
    set(&terminal, &host);
    let script = Script { name: "test.rhai".into(), path: None, text: text.to_owned().into() };
    let result = Engine::new(host).run(&script, Args::default());
    Ran { result, out: terminal.out.take(), err: terminal.err.take() }
}

/// A script without a server.
fn run(text: &str) -> Ran {
    run_with(None, Options::default(), |_, _| {}, text)
}

/// A script with a fresh server.
fn on_server(text: &str) -> Ran {
    let server = FakeServer::start();
    run_with(Some(&server), Options::default(), |_, _| {}, text)
}

fn eval(options: Options, expression: &str) -> Ran {
    let server = FakeServer::start();
    let (host, terminal) = host(Some(&server), options);
    let result = Engine::new(host).eval(expression);
    Ran { result, out: terminal.out.take(), err: terminal.err.take() }
}
