//! `sh`: other programs, for those who allow them.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{ImmutableString, Map, NativeCallContext};
use serde_json::{Value, json};

use super::ShellOrder;
use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;
use super::suggestion;
use super::value;

/// What a command did. `Ran` in scripts.
#[derive(Clone, Debug, Default)]
pub struct Ran(Rc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    code: i64,
    stdout: ImmutableString,
    stderr: ImmutableString,
}

impl Ran {
    pub const FIELDS: [&str; 4] = ["ok", "code", "stdout", "stderr"];

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<Dynamic> {
        Some(match name {
            "ok" => (self.0.code == 0).into(),
            "code" => self.0.code.into(),
            "stdout" => self.0.stdout.clone().into(),
            "stderr" => self.0.stderr.clone().into(),
            _ => return None,
        })
    }

    pub fn stdout(&self) -> &str {
        &self.0.stdout
    }

    pub fn to_json(&self) -> Value {
        json!({
            "ok": self.0.code == 0,
            "code": self.0.code,
            "stdout": self.0.stdout.as_str(),
            "stderr": self.0.stderr.as_str(),
        })
    }
}

/// What `sh` takes besides the command.
#[derive(Default)]
struct Orders {
    stdin: Option<String>,
    timeout: Option<Span>,
}

impl Orders {
    const KEYS: [&str; 2] = ["stdin", "timeout"];

    fn read(options: &Map) -> Result<Self, Failure> {
        let mut orders = Self::default();
        for (key, given) in options.iter().filter(|(_, given)| !given.is_unit()) {
            let wrong = |wanted: &str| {
                Failure::script(format!("`{key}` must be {wanted}, and is {}", value::type_name(given)))
            };
            match key.as_str() {
                "stdin" => orders.stdin = Some(given.clone().into_string().map_err(|_| wrong("text"))?),
                "timeout" => {
                    let span = given.clone().try_cast::<Span>();
                    orders.timeout = Some(span.ok_or_else(|| wrong("a duration like 30.seconds"))?);
                }
                unknown => {
                    return Err(Failure::hinted(
                        format!("sh knows no `{unknown}`"),
                        suggestion::did_you_mean(unknown, Self::KEYS.into_iter())
                            .unwrap_or_else(|| format!("It knows {}.", Self::KEYS.join(", "))),
                    ));
                }
            }
        }
        Ok(orders)
    }
}

fn run(runtime: &Runtime, command: &str, orders: Orders) -> Result<Ran, Failure> {
    if !runtime.host().access.sh {
        return Err(Failure::Forbidden {
            message: "this script may not run other programs".to_owned(),
            hint: "Allow it if you trust the script: --allow-sh".to_owned(),
        });
    }
    if command.contains('\0') {
        return Err(Failure::script("a command can't hold a NUL character"));
    }
    if runtime.options().dry_run {
        runtime.would(&format!("run {command}"))?;
        return Ok(Ran::default());
    }
    runtime.paused();
    let most = runtime.host().limits.string;
    let order = ShellOrder { command: command.to_owned(), stdin: orders.stdin, most };
    let answer = runtime.block_on(async {
        let running = runtime.host().shell.run(order);
        let ended = match orders.timeout {
            Some(span) => {
                let time = std::time::Duration::from_millis(u64::try_from(span.0).unwrap_or(0));
                tokio::time::timeout(time, running)
                    .await
                    .map_err(|_| Failure::Timeout(format!("`{command}` took longer than {span}")))?
            }
            None => running.await,
        };
        ended.map_err(|error| Failure::script(format!("cannot run `{command}`: {error}")))
    })?;
    if answer.too_much {
        return Err(Failure::hinted(
            format!("`{command}` wrote more than a text may hold: {} MiB", most >> 20),
            "Send its output to a file.",
        ));
    }
    let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    };
    Ok(Ran(Rc::new(Parts {
        code: answer.code.into(),
        stdout: text(answer.stdout),
        stderr: text(answer.stderr),
    })))
}

/// Other programs.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod shell_functions {
    /// Runs a command line of `/bin/sh` in the working folder and waits for its end. Only with `--allow-sh`; with
    /// `--dry-run` it is told, not done. An exit code that is not 0 is an answer, not an error. The command reads nothing.
    /// Ctrl-C ends it and all that it has started; so does its own end. Errors: it is not allowed, or can't be started.
    ///
    /// ```rhai
    /// let ran = sh("ls | wc -l");
    /// if !ran.ok { warn(ran.stderr); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn sh(ctx: NativeCallContext, command: &str) -> Fallible<Ran> {
        run(&Runtime::of(&ctx)?, command, Orders::default()).at(&ctx)
    }

    /// The same with `stdin`, a text that the command reads, and `timeout`, a duration after which it is ended. Error: it
    /// was ended so (`timeout`).
    ///
    /// ```rhai
    /// let sorted = sh("sort", #{ stdin: "b\na\n", timeout: 10.seconds }).stdout;
    /// ```
    #[rhai_fn(name = "sh", volatile, return_raw)]
    pub fn sh_with(ctx: NativeCallContext, command: &str, options: Map) -> Fallible<Ran> {
        let orders = Orders::read(&options).at(&ctx)?;
        run(&Runtime::of(&ctx)?, command, orders).at(&ctx)
    }

    /// Whether the command exited with 0.
    ///
    /// ```rhai
    /// print(sh("true").ok);
    /// ```
    #[rhai_fn(get = "ok", pure)]
    pub fn ok(ran: &mut Ran) -> bool {
        ran.0.code == 0
    }

    /// The command's exit code; 128 and the signal's number if a signal ended it.
    ///
    /// ```rhai
    /// exit(sh("make").code);
    /// ```
    #[rhai_fn(get = "code", pure)]
    pub fn code(ran: &mut Ran) -> i64 {
        ran.0.code
    }

    /// What the command wrote on stdout. What is not UTF-8 becomes a replacement character.
    ///
    /// ```rhai
    /// let lines = sh("ls").stdout.split("\n");
    /// ```
    #[rhai_fn(get = "stdout", pure)]
    pub fn stdout(ran: &mut Ran) -> ImmutableString {
        ran.0.stdout.clone()
    }

    /// What the command wrote on stderr.
    ///
    /// ```rhai
    /// let ran = sh("make");
    /// if !ran.ok { warn(ran.stderr); }
    /// ```
    #[rhai_fn(get = "stderr", pure)]
    pub fn stderr(ran: &mut Ran) -> ImmutableString {
        ran.0.stderr.clone()
    }

    /// What a command did, as text: its stdout.
    ///
    /// ```rhai
    /// print(sh("date"));
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn ran_to_string(ran: &mut Ran) -> ImmutableString {
        ran.0.stdout.clone()
    }
}
