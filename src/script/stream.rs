//! `sessions::each()`: any number of sessions, a page at a time, in constant memory.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, FnPtr, Map, NativeCallContext};

use super::condition::Condition;
use super::failure::{At, Failure, Fallible};
use super::listing::{Listing, PAGE};
use super::record::Reader;
use super::runtime::Runtime;
use super::sequence::{Key, Question, SortBy, Source, Step, Test, groups, sorted, unique};
use super::session::Session;
use super::sessions::{Sessions, understood};
use crate::wire::Order;

/// Sessions in the order of their creation, and what becomes of each on its way. `Stream` in scripts. Nothing is asked
/// before somebody looks, and each look asks anew.
#[derive(Clone)]
pub struct Stream {
    runtime: Runtime,
    listing: Listing,
    stages: Vec<Stage>,
}

/// A step on the way of each value.
#[derive(Clone)]
enum Stage {
    Keep(Rc<Test>, bool),
    Fits(Rc<Condition>),
    Map(Rc<Key>),
    Skip(usize),
    Take(usize),
}

impl Stream {
    /// All sessions.
    pub fn all(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), listing: Listing::all(runtime.now()), stages: Vec::new() }
    }

    /// Those of a listing.
    pub fn of(runtime: &Runtime, listing: Listing) -> Self {
        Self { runtime: runtime.clone(), listing, stages: Vec::new() }
    }

    fn with(&self, stage: Stage) -> Self {
        let mut stream = self.clone();
        stream.stages.push(stage);
        stream
    }

    /// Whether the values are still sessions.
    pub fn is_of_sessions(&self) -> bool {
        !self.stages.iter().any(|stage| matches!(stage, Stage::Map(_)))
    }

    /// All values that come out: sessions as a list of sessions, others as an array.
    fn collect(&self, ctx: &NativeCallContext) -> Fallible<Collected> {
        let mut values = Array::new();
        self.walk(ctx, &mut |value| {
            values.push(value);
            Ok(ControlFlow::Continue(()))
        })?;
        if !self.is_of_sessions() {
            return Ok(Collected::Values(values));
        }
        Ok(Collected::Sessions(
            values.into_iter().filter_map(Dynamic::try_cast::<Session>).collect::<Vec<_>>().into(),
        ))
    }
}

enum Collected {
    Sessions(super::sequence::List<Session>),
    Values(Array),
}

/// The sessions of a listing, page by page.
struct Pages {
    runtime: Runtime,
    listing: Listing,
    reader: Reader,
    page: VecDeque<Session>,
    cursor: Option<String>,
    is_last: bool,
}

impl Pages {
    fn new(runtime: Runtime, listing: Listing) -> Self {
        let is_last = listing.is_empty();
        let reader = Reader::of(runtime.server());
        Self { runtime, listing, reader, page: VecDeque::new(), cursor: None, is_last }
    }

    fn next(&mut self) -> Result<Option<Session>, Failure> {
        loop {
            while let Some(session) = self.page.pop_front() {
                if self.listing.fits(&session) {
                    return Ok(Some(session));
                }
            }
            if self.is_last {
                return Ok(None);
            }
            let (listing, reader, cursor) = (&self.listing, &self.reader, self.cursor.take());
            let page = self.runtime.call(|client| async move {
                listing.page(&client, reader, Order::Created, PAGE, cursor).await
            })?;
            self.page = page.sessions.into();
            self.cursor = page.next_cursor;
            self.is_last = self.cursor.is_none();
        }
    }
}

impl Source for Stream {
    fn walk(&self, ctx: &NativeCallContext, visit: &mut dyn FnMut(Dynamic) -> Step) -> Fallible<()> {
        let mut pages = Pages::new(self.runtime.clone(), self.listing.clone());
        let mut passed: Vec<usize> = vec![0; self.stages.len()];
        let now = self.listing.now();
        // Nothing is asked for what would be cut off at once.
        if self.stages.iter().any(|stage| matches!(stage, Stage::Take(0))) {
            return Ok(());
        }
        while let Some(session) = pages.next().at(ctx)? {
            let mut value = Dynamic::from(session);
            let mut is_kept = true;
            let mut is_last = false;
            for (stage, passed) in self.stages.iter().zip(&mut passed) {
                match stage {
                    Stage::Fits(condition) => {
                        is_kept = value
                            .read_lock::<Session>()
                            .is_some_and(|session| condition.holds(&session, now));
                    }
                    Stage::Keep(test, wanted) => is_kept = test.holds(ctx, value.clone(), now)? == *wanted,
                    Stage::Map(key) => value = key.of(ctx, value, now)?,
                    Stage::Skip(n) => {
                        is_kept = *passed >= *n;
                        *passed += 1;
                    }
                    Stage::Take(n) => {
                        *passed += 1;
                        is_last |= *passed >= *n;
                    }
                }
                if !is_kept {
                    break;
                }
            }
            if is_kept && visit(value)?.is_break() {
                return Ok(());
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    fn answer(&self, ctx: &NativeCallContext, question: Question) -> Fallible<Option<Dynamic>> {
        // The first of a list is the latest, that of a stream the oldest.
        if matches!(question, Question::First) || !self.stages.is_empty() {
            return Ok(None);
        }
        Sessions::many(&self.runtime, self.listing.clone()).answer(ctx, question)
    }

    fn keep(&self, ctx: &NativeCallContext, test: Test, wanted: bool) -> Fallible<Self> {
        if self.is_of_sessions() {
            let understood = understood(ctx, &test, self.listing.now());
            let condition = if wanted { understood.condition } else { understood.condition.negated() };
            if self.stages.is_empty() && (understood.whole || wanted) {
                let narrowed = Self::of(&self.runtime, self.listing.clone().narrowed(condition));
                return Ok(if understood.whole {
                    narrowed
                } else {
                    narrowed.with(Stage::Keep(Rc::new(test), true))
                });
            }
            if understood.whole {
                return Ok(self.with(Stage::Fits(Rc::new(condition))));
            }
        }
        Ok(self.with(Stage::Keep(Rc::new(test), wanted)))
    }

    fn take(&self, _: &NativeCallContext, n: usize) -> Fallible<Self> {
        Ok(self.with(Stage::Take(n)))
    }

    fn skip(&self, _: &NativeCallContext, n: usize) -> Fallible<Self> {
        Ok(self.with(Stage::Skip(n)))
    }
}

/// For `for`, which gives no way to call a function: what calls one on the way is refused.
impl IntoIterator for Stream {
    type Item = Fallible<Dynamic>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item>>;

    fn into_iter(self) -> Self::IntoIter {
        let failed = |failure: Failure| failure.at_position(rhai::Position::NONE);
        if self.stages.iter().any(|stage| matches!(stage, Stage::Keep(..) | Stage::Map(_))) {
            let refusal = Failure::hinted(
                "`for` can't walk a stream that calls functions on its way",
                "Use .each(|s| …), or put the condition inside the loop.",
            );
            return Box::new(std::iter::once(Err(failed(refusal))));
        }
        let mut pages = Pages::new(self.runtime.clone(), self.listing.clone());
        let now = self.listing.now();
        let passed: Vec<Cell<usize>> = self.stages.iter().map(|_| Cell::new(0)).collect();
        let mut ended = self.stages.iter().any(|stage| matches!(stage, Stage::Take(0)));
        Box::new(std::iter::from_fn(move || {
            while !ended {
                let session = match pages.next() {
                    Ok(Some(session)) => session,
                    Ok(None) => break,
                    Err(failure) => {
                        ended = true;
                        return Some(Err(failed(failure)));
                    }
                };
                let is_kept = self.stages.iter().zip(&passed).all(|(stage, passed)| match stage {
                    Stage::Fits(condition) => condition.holds(&session, now),
                    Stage::Skip(n) => passed.replace(passed.get() + 1) >= *n,
                    Stage::Take(n) => {
                        ended |= passed.get() + 1 >= *n;
                        passed.replace(passed.get() + 1) < *n
                    }
                    Stage::Keep(..) | Stage::Map(_) => true,
                });
                if is_kept {
                    return Some(Ok(Dynamic::from(session)));
                }
            }
            None
        }))
    }
}

/// What a stream does in its own way: what needs all values at once gives a list.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod stream_functions {
    /// What the function answers for each, as a stream: it is called when the stream is walked. Error: that of the
    /// function, there.
    ///
    /// ```rhai
    /// sessions::each().map(|s| s.title).each(|title| print(title));
    /// ```
    #[rhai_fn(pure)]
    pub fn map(stream: &mut Stream, function: FnPtr) -> Stream {
        stream.with(Stage::Map(Rc::new(Key::Function(function))))
    }

    /// A field of each, or an expression over the fields, as a stream. Errors: an unknown field, an expression that
    /// makes no sense.
    ///
    /// ```rhai
    /// sessions::each().map("title").each(|title| print(title));
    /// ```
    #[rhai_fn(name = "map", pure, return_raw)]
    pub fn map_text(ctx: NativeCallContext, stream: &mut Stream, key: &str) -> Fallible<Stream> {
        Ok(stream.with(Stage::Map(Rc::new(Key::read(&ctx, key)?))))
    }

    /// All of them in a list, the smallest answer of the function first. Error: values that can't be compared.
    ///
    /// ```rhai
    /// table(sessions::each().filter(|s| s.status == "failed").sort_by(|s| s.created_at));
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn sort_by(ctx: NativeCallContext, stream: &mut Stream, key: FnPtr) -> Fallible<Dynamic> {
        super::sort(&ctx, stream, &SortBy::function(key))
    }

    /// All of them in a list, the smallest value of the field or the expression first. Errors: an unknown field, values
    /// that can't be compared.
    ///
    /// ```rhai
    /// table(sessions::each().filter("status == \"failed\"").sort_by("-message_count"));
    /// ```
    #[rhai_fn(name = "sort_by", pure, volatile, return_raw)]
    pub fn sort_by_text(ctx: NativeCallContext, stream: &mut Stream, key: &str) -> Fallible<Dynamic> {
        super::sort(&ctx, stream, &SortBy::read(&ctx, key)?)
    }

    /// A list for each answer of the function, as a map by the answer as text. Error: that of the function.
    ///
    /// ```rhai
    /// let by_day = sessions::each().group_by(|s| s.age.days);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn group_by(ctx: NativeCallContext, stream: &mut Stream, key: FnPtr) -> Fallible<Map> {
        super::group(&ctx, stream, &Key::Function(key))
    }

    /// A list for each value of the field or the expression, as a map by the value as text. Errors: an unknown field,
    /// an expression that makes no sense.
    ///
    /// ```rhai
    /// let by_agent = sessions::each().group_by("agent");
    /// ```
    #[rhai_fn(name = "group_by", pure, volatile, return_raw)]
    pub fn group_by_text(ctx: NativeCallContext, stream: &mut Stream, key: &str) -> Fallible<Map> {
        super::group(&ctx, stream, &Key::read(&ctx, key)?)
    }

    /// The first of each answer of the function, in a list. Error: that of the function.
    ///
    /// ```rhai
    /// table(sessions::each().unique(|s| s.agent));
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn unique(ctx: NativeCallContext, stream: &mut Stream, key: FnPtr) -> Fallible<Dynamic> {
        super::unique_of(&ctx, stream, &Key::Function(key))
    }

    /// The first of each value of the field or the expression, in a list. Errors: an unknown field, an expression that
    /// makes no sense.
    ///
    /// ```rhai
    /// table(sessions::each().unique("agent"));
    /// ```
    #[rhai_fn(name = "unique", pure, volatile, return_raw)]
    pub fn unique_text(ctx: NativeCallContext, stream: &mut Stream, key: &str) -> Fallible<Dynamic> {
        super::unique_of(&ctx, stream, &Key::read(&ctx, key)?)
    }

    /// All of them in a list: sessions as a list of sessions, other values as an array.
    ///
    /// ```rhai
    /// let failed = sessions::each().filter(|s| s.status == "failed").to_list();
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn to_list(ctx: NativeCallContext, stream: &mut Stream) -> Fallible<Dynamic> {
        Ok(match stream.collect(&ctx)? {
            Collected::Sessions(list) => Dynamic::from(Sessions::from(list)),
            Collected::Values(values) => values.into(),
        })
    }

    /// The stream as text.
    ///
    /// ```rhai
    /// print(sessions::each());   // a stream of sessions
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(stream: &mut Stream) -> String {
        let of = if stream.is_of_sessions() { "sessions" } else { "values" };
        format!("a stream of {of}")
    }
}

fn keys(ctx: &NativeCallContext, stream: &Stream, key: &Key) -> Fallible<(Collected, Vec<Dynamic>)> {
    let collected = stream.collect(ctx)?;
    let keys = match &collected {
        Collected::Sessions(list) => key.all(ctx, list)?,
        Collected::Values(values) => key.all(ctx, values)?,
    };
    Ok((collected, keys))
}

fn sort(ctx: &NativeCallContext, stream: &Stream, by: &SortBy) -> Fallible<Dynamic> {
    Ok(match stream.collect(ctx)? {
        Collected::Sessions(list) => Dynamic::from(Sessions::from(sorted(ctx, &list, &by.all(ctx, &list)?)?)),
        Collected::Values(values) => sorted(ctx, &values, &by.all(ctx, &values)?)?.into(),
    })
}

fn unique_of(ctx: &NativeCallContext, stream: &Stream, key: &Key) -> Fallible<Dynamic> {
    Ok(match keys(ctx, stream, key)? {
        (Collected::Sessions(list), keys) => Dynamic::from(Sessions::from(unique(&list, &keys))),
        (Collected::Values(values), keys) => unique(&values, &keys).into(),
    })
}

fn group(ctx: &NativeCallContext, stream: &Stream, key: &Key) -> Fallible<Map> {
    Ok(match keys(ctx, stream, key)? {
        (Collected::Sessions(list), keys) => {
            let group = |(name, list): (String, _)| (name.into(), Dynamic::from(Sessions::from(list)));
            groups(&list, &keys).into_iter().map(group).collect()
        }
        (Collected::Values(values), keys) => {
            groups(&values, &keys).into_iter().map(|(name, values)| (name.into(), values.into())).collect()
        }
    })
}
