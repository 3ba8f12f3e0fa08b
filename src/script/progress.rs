//! A bar that shows on the terminal how far a script is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rhai::NativeCallContext;
use rhai::plugin::*;

use super::failure::Fallible;
use super::host::{Amount, Bar};
use super::runtime::Runtime;
use crate::render;

/// How far something is. `Progress` in scripts.
#[derive(Clone)]
pub struct Progress(Rc<State>);

struct State {
    bar: RefCell<Option<Box<dyn Bar>>>,
    done: Cell<i64>,
}

impl Progress {
    fn set(&self, done: i64) {
        self.0.done.set(done.max(0));
        if let Some(bar) = &*self.0.bar.borrow() {
            bar.set(u64::try_from(self.0.done.get()).unwrap_or_default());
        }
    }
}

/// Bars.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod progress_functions {
    /// Shows a bar on stderr that fills as `step()` is called, `total` times in all, until `finish()` or the script's
    /// end. Nothing is shown where stderr is no terminal, or before a moment has passed.
    ///
    /// ```rhai
    /// let all = list(#{ status: "idle" });
    /// let bar = progress("reading", all.len);
    /// for s in all { s.messages(); bar.step(); }
    /// bar.finish();
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn progress(ctx: NativeCallContext, what: &str, total: i64) -> Fallible<Progress> {
        let terminal = &Runtime::of(&ctx)?.host().terminal.clone();
        let bar =
            terminal.bar(&render::clean_line(what), Amount::Count(u64::try_from(total).unwrap_or_default()));
        Ok(Progress(Rc::new(State { bar: RefCell::new(Some(bar)), done: Cell::new(0) })))
    }

    /// One more is done.
    ///
    /// ```rhai
    /// let bar = progress("counting", 3);
    /// for n in 0..3 { bar.step(); }
    /// ```
    #[rhai_fn(pure)]
    pub fn step(bar: &mut Progress) {
        bar.set(bar.0.done.get().saturating_add(1));
    }

    /// So many are done.
    ///
    /// ```rhai
    /// let bar = progress("counting", 3);
    /// bar.set(2);
    /// ```
    #[rhai_fn(pure)]
    pub fn set(bar: &mut Progress, done: i64) {
        Progress::set(bar, done);
    }

    /// How many are done.
    ///
    /// ```rhai
    /// let bar = progress("counting", 3);
    /// bar.step();
    /// print(bar.done);   // 1
    /// ```
    #[rhai_fn(get = "done", pure)]
    pub fn done(bar: &mut Progress) -> i64 {
        bar.0.done.get()
    }

    /// Takes the bar away.
    ///
    /// ```rhai
    /// progress("counting", 3).finish();
    /// ```
    #[rhai_fn(pure)]
    pub fn finish(bar: &mut Progress) {
        bar.0.bar.take();
    }
}
