//! What a script asks its user, and how it ends or waits.

use rhai::plugin::*;
use rhai::{Array, NativeCallContext};

use super::Line;
use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;
use crate::render;

/// The answer to a yes-or-no question.
fn confirm_on(runtime: &Runtime, question: &str) -> Result<bool, Failure> {
    let options = runtime.options();
    if options.yes || options.dry_run {
        return Ok(true);
    }
    let terminal = &runtime.host().terminal;
    if !terminal.in_is_terminal() {
        return Err(Failure::Usage {
            message: format!("a confirmation is needed, and nobody can answer: {question}"),
            hint: Some("Give --yes to go on without being asked.".into()),
        });
    }
    loop {
        let line = terminal.read_line(&format!("{} [y/N] ", render::clean_line(question)))?;
        runtime.paused();
        match line {
            Line::Text(answer) => match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "" | "n" | "no" => return Ok(false),
                _ => {}
            },
            Line::End => return Ok(false),
            Line::Interrupted => {
                runtime.host().interrupt.set();
                return Err(Failure::Stopped);
            }
        }
    }
}

/// Questions, and the script's own course.
#[export_module]
pub mod control_functions {
    use super::Span as Duration;

    /// Reads a line of stdin, as a `String` without its end; the question is shown only on a terminal, on stderr. `()`
    /// at the end of stdin. Error: stdin can't be read.
    ///
    /// ```rhai
    /// let name = prompt("Which agent? ");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn prompt(ctx: NativeCallContext, question: &str) -> Fallible<Dynamic> {
        let runtime = Runtime::of(&ctx)?;
        let line = runtime.host().terminal.read_line(&render::clean(question)).at(&ctx)?;
        runtime.paused();
        match line {
            Line::Text(text) => Ok(text.into()),
            Line::End => Ok(Dynamic::UNIT),
            Line::Interrupted => {
                runtime.host().interrupt.set();
                Err(Failure::Stopped.at(&ctx))
            }
        }
    }

    /// Asks a yes-or-no question on the terminal; only `y` and `yes` mean yes. `--yes` and `--dry-run` answer yes.
    /// Error: there is no terminal to ask at (exit code 2).
    ///
    /// ```rhai
    /// let idle = list(#{ status: "idle" });
    /// if confirm(`End ${idle.len} sessions?`) { idle.end(); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn confirm(ctx: NativeCallContext, question: &str) -> Fallible<bool> {
        confirm_on(&Runtime::of(&ctx)?, question).at(&ctx)
    }

    /// Ends the script because it was called in a way that makes no sense: the sentence, a hint what to do
    /// (`""`: none), exit code 2. Error: always this one.
    ///
    /// ```rhai
    /// if args.len > 1 { usage_error("there are too many words", "Give one agent."); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn usage_error(ctx: NativeCallContext, sentence: &str, hint: &str) -> Fallible<()> {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        Err(Failure::Usage { message: sentence.to_owned(), hint }.at(&ctx))
    }

    /// All lines of stdin, as an array of `String`s without their ends. At a terminal they are read until Ctrl-D.
    /// Error: stdin can't be read.
    ///
    /// ```rhai
    /// end(read_lines());
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn read_lines(ctx: NativeCallContext) -> Fallible<Array> {
        let runtime = Runtime::of(&ctx)?;
        let mut lines = Array::new();
        loop {
            match runtime.host().terminal.read_line("").at(&ctx)? {
                Line::Text(text) => lines.push(text.into()),
                Line::End => return Ok(lines),
                Line::Interrupted => {
                    runtime.host().interrupt.set();
                    return Err(Failure::Stopped.at(&ctx));
                }
            }
        }
    }

    /// Ends the script with this exit code, from any depth: an `Int` from 0 to 255. Can't be caught. Error: it is
    /// something else.
    ///
    /// ```rhai
    /// exit(if list(#{ status: "failed" }).is_empty() { 0 } else { 1 });
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn exit(ctx: NativeCallContext, code: Dynamic) -> Fallible<()> {
        let code =
            if code.is_unit() { Some(0) } else { code.as_int().ok().and_then(|n| i32::try_from(n).ok()) };
        match code.filter(|code| (0..=255).contains(code)) {
            Some(code) => Err(Runtime::of(&ctx)?.exit(code).at(&ctx)),
            None => Err(Failure::script("an exit code is a whole number from 0 to 255").at(&ctx)),
        }
    }

    /// Ends the script with 0.
    ///
    /// ```rhai
    /// exit();
    /// ```
    #[rhai_fn(name = "exit", volatile, return_raw)]
    pub fn exit_well(ctx: NativeCallContext) -> Fallible<()> {
        Err(Runtime::of(&ctx)?.exit(0).at(&ctx))
    }

    /// Whether stdin is a terminal, at which somebody can be asked.
    ///
    /// ```rhai
    /// if stdin_is_terminal() { prompt("Which agent? "); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn stdin_is_terminal(ctx: NativeCallContext) -> Fallible<bool> {
        Ok(Runtime::of(&ctx)?.host().terminal.in_is_terminal())
    }

    /// A variable of the environment, as a `String`; `()` if it isn't set, empty or no UTF-8.
    ///
    /// ```rhai
    /// print(env("HOME"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn env(ctx: NativeCallContext, name: &str) -> Fallible<Dynamic> {
        let runtime = Runtime::of(&ctx)?;
        Ok((runtime.host().env)(name).map_or(Dynamic::UNIT, Dynamic::from))
    }

    /// Waits this long; Ctrl-C stops it.
    ///
    /// ```rhai
    /// sleep(1.millis);
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn sleep(ctx: NativeCallContext, duration: Duration) -> Fallible<()> {
        let time = std::time::Duration::from_millis(u64::try_from(duration.0).unwrap_or(0));
        let runtime = Runtime::of(&ctx)?;
        runtime.paused();
        runtime
            .block_on(async {
                tokio::time::sleep(time).await;
                Ok(())
            })
            .at(&ctx)
    }

    /// Waits so many seconds; Ctrl-C stops it.
    ///
    /// ```rhai
    /// sleep(0);
    /// ```
    #[rhai_fn(name = "sleep", volatile, return_raw)]
    pub fn sleep_seconds(ctx: NativeCallContext, seconds: i64) -> Fallible<()> {
        sleep(ctx, Span(seconds.saturating_mul(1000)))
    }

    /// Waits so many seconds and parts of them; none if negative. Ctrl-C stops it.
    ///
    /// ```rhai
    /// sleep(0.001);
    /// ```
    #[rhai_fn(name = "sleep", volatile, return_raw)]
    pub fn sleep_fraction(ctx: NativeCallContext, seconds: f64) -> Fallible<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a fraction of a millisecond doesn't matter; casts saturate"
        )]
        sleep(ctx, Span((seconds * 1000.0) as i64))
    }
}
