//! What values in an order can do, whatever their type: testing, looking up keys, ordering, grouping, summing.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::rc::Rc;

use rhai::{Array, Dynamic, Engine, FnPtr, Map, NativeCallContext, Variant};

use super::column;
use super::duration::{Span, too_long};
use super::expression::Expression;
use super::failure::{At, Failure, Fallible};
use super::field::Field;
use super::runtime::Runtime;
use super::session::Session;
use super::value;

/// What a visitor of values answers: go on, or enough.
pub type Step = Fallible<ControlFlow<()>>;

/// Something that may be known of values without looking at each.
#[derive(Clone, Copy)]
pub enum Question<'a> {
    Count,
    Sum(&'a Key),
    Average(&'a Key),
    Smallest(&'a Key),
    Largest(&'a Key),
    CountBy(&'a Key),
    First,
}

/// Values that come one after another.
pub trait Source: Clone + 'static {
    /// Shows the values until there are no more or the visitor has enough.
    fn walk(&self, ctx: &NativeCallContext, visit: &mut dyn FnMut(Dynamic) -> Step) -> Fallible<()>;

    /// Shows the key of each value.
    fn walk_keys(
        &self,
        ctx: &NativeCallContext,
        key: &Key,
        visit: &mut dyn FnMut(Dynamic) -> Step,
    ) -> Fallible<()> {
        let now = Runtime::of(ctx)?.now();
        self.walk(ctx, &mut |item| visit(key.of(ctx, item, now)?))
    }

    /// The answer, if it can be had without looking at each value.
    fn answer(&self, _: &NativeCallContext, _: Question) -> Fallible<Option<Dynamic>> {
        Ok(None)
    }

    /// The first for which the test gives `wanted`.
    fn find(&self, ctx: &NativeCallContext, test: &Test, wanted: bool) -> Fallible<Option<Dynamic>> {
        let now = Runtime::of(ctx)?.now();
        let mut found = None;
        self.walk(ctx, &mut |item| {
            Ok(match test.holds(ctx, item.clone(), now)? == wanted {
                true => {
                    found = Some(item);
                    ControlFlow::Break(())
                }
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }

    /// Those for which the test gives `wanted`.
    fn keep(&self, ctx: &NativeCallContext, test: Test, wanted: bool) -> Fallible<Self>;

    /// The first `n`.
    fn take(&self, ctx: &NativeCallContext, n: usize) -> Fallible<Self>;

    /// All but the first `n`.
    fn skip(&self, ctx: &NativeCallContext, n: usize) -> Fallible<Self>;
}

/// A list of values in an order.
pub trait Sequence: Clone + 'static {
    fn count(&self) -> usize;
    /// The value at a place that is below `count`.
    fn item(&self, place: usize) -> Dynamic;
    /// A new list of the values at these places.
    fn pick(&self, places: &[usize]) -> Self;
}

/// What can be looked at as a list.
pub trait Listed: Source + Sized {
    type List: Sequence + Into<Self>;

    fn list(&self, ctx: &NativeCallContext) -> Fallible<Self::List>;
}

impl Sequence for Array {
    fn count(&self) -> usize {
        self.len()
    }

    fn item(&self, place: usize) -> Dynamic {
        self[place].clone()
    }

    fn pick(&self, places: &[usize]) -> Self {
        places.iter().map(|place| self[*place].clone()).collect()
    }
}

/// Values of one of our types, in an order, shared by the copies that scripts make.
#[derive(Debug)]
pub struct List<T>(Rc<Vec<T>>);

impl<T> List<T> {
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Rc::new(values))
    }
}

impl<T: Variant + Clone> IntoIterator for List<T> {
    type Item = Dynamic;
    type IntoIter = std::vec::IntoIter<Dynamic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().cloned().map(Dynamic::from).collect::<Vec<_>>().into_iter()
    }
}

impl<T: Variant + Clone> Sequence for List<T> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn item(&self, place: usize) -> Dynamic {
        Dynamic::from(self.0[place].clone())
    }

    fn pick(&self, places: &[usize]) -> Self {
        places.iter().map(|place| self.0[*place].clone()).collect::<Vec<_>>().into()
    }
}

macro_rules! source_of_a_list {
    ($list:ty $(, $parameter:ident)?) => {
        impl$(<$parameter: Variant + Clone>)? Source for $list {
            fn walk(&self, _: &NativeCallContext, visit: &mut dyn FnMut(Dynamic) -> Step) -> Fallible<()> {
                for place in 0..self.count() {
                    if visit(self.item(place))?.is_break() {
                        break;
                    }
                }
                Ok(())
            }

            fn answer(&self, _: &NativeCallContext, question: Question) -> Fallible<Option<Dynamic>> {
                Ok(match question {
                    Question::Count => Some(count(self.count() as u64)),
                    Question::First if self.count() == 0 => Some(Dynamic::UNIT),
                    Question::First => Some(self.item(0)),
                    _ => None,
                })
            }

            fn keep(&self, ctx: &NativeCallContext, test: Test, wanted: bool) -> Fallible<Self> {
                let now = Runtime::of(ctx)?.now();
                let mut places = Vec::new();
                for place in 0..self.count() {
                    if test.holds(ctx, self.item(place), now)? == wanted {
                        places.push(place);
                    }
                }
                Ok(self.pick(&places))
            }

            fn take(&self, _: &NativeCallContext, n: usize) -> Fallible<Self> {
                Ok(self.pick(&(0..self.count().min(n)).collect::<Vec<_>>()))
            }

            fn skip(&self, _: &NativeCallContext, n: usize) -> Fallible<Self> {
                Ok(self.pick(&(0..self.count()).skip(n).collect::<Vec<_>>()))
            }
        }

        impl$(<$parameter: Variant + Clone>)? Listed for $list {
            type List = Self;

            fn list(&self, _: &NativeCallContext) -> Fallible<Self> {
                Ok(self.clone())
            }
        }
    };
}

source_of_a_list!(Array);
source_of_a_list!(List<T>, T);

/// What each value is looked at by.
pub enum Key {
    /// A field by its name.
    Name(String),
    /// Of sessions.
    Expression(Box<Expression>),
    Function(FnPtr),
    /// The value itself.
    Itself,
}

impl Key {
    /// A field's name, or an expression over the fields of sessions. Errors: as of an expression.
    pub fn read(ctx: &NativeCallContext, text: &str) -> Fallible<Self> {
        Self::compile(ctx.engine(), text).at(ctx)
    }

    /// The same outside of a call.
    pub fn compile(engine: &Engine, text: &str) -> Result<Self, Failure> {
        match column::is_name(text) {
            true => Ok(Self::Name(text.to_owned())),
            false => Expression::compile(engine, text).map(Box::new).map(Self::Expression),
        }
    }

    /// The session's field that it is, if it is one.
    pub fn field(&self) -> Option<Field> {
        match self {
            Self::Name(name) => Field::named(name),
            _ => None,
        }
    }

    pub fn of(&self, ctx: &NativeCallContext, item: Dynamic, now: i64) -> Fallible<Dynamic> {
        match self {
            Self::Name(name) => value::field(&item, name, now).at(ctx),
            Self::Expression(expression) => expression.value(ctx, &*session(&item).at(ctx)?, now),
            Self::Function(function) => function.call_raw(ctx, None, [item]),
            Self::Itself => Ok(item),
        }
    }

    pub fn all(&self, ctx: &NativeCallContext, source: &impl Source) -> Fallible<Vec<Dynamic>> {
        let mut all = Vec::new();
        source.walk_keys(ctx, self, &mut |value| {
            all.push(value);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }
}

/// What an expression is about.
pub fn session(item: &Dynamic) -> Result<impl std::ops::Deref<Target = Session> + '_, Failure> {
    item.read_lock::<Session>().ok_or_else(|| {
        Failure::hinted(
            format!("an expression asks for a session's fields, and this is {}", value::type_name(item)),
            "Give a function instead: |x| …",
        )
    })
}

/// What values are put in order by: the first key, of equal ones the next.
pub struct SortBy(Vec<SortKey>);

struct SortKey {
    key: Key,
    /// The largest first.
    is_falling: bool,
}

impl SortBy {
    /// The smallest answer of the function first.
    pub fn function(function: FnPtr) -> Self {
        Self(vec![SortKey { key: Key::Function(function), is_falling: false }])
    }

    /// Fields or expressions with commas between; a `-` before a field's name means the largest first.
    /// Errors: as of an expression.
    pub fn read(ctx: &NativeCallContext, text: &str) -> Fallible<Self> {
        Self::compile(ctx.engine(), text).at(ctx)
    }

    /// The same outside of a call.
    pub fn compile(engine: &Engine, text: &str) -> Result<Self, Failure> {
        let key = |part: &str| {
            let falling = part.strip_prefix('-').map(str::trim).filter(|name| column::is_name(name));
            let key = Key::compile(engine, falling.unwrap_or(part))?;
            Ok(SortKey { key, is_falling: falling.is_some() })
        };
        column::split(text).into_iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The values of each key.
    pub fn all(&self, ctx: &NativeCallContext, source: &impl Source) -> Fallible<SortValues> {
        self.0.iter().map(|key| Ok((key.key.all(ctx, source)?, key.is_falling))).collect()
    }
}

/// For each key its values, and whether the largest comes first.
pub type SortValues = Vec<(Vec<Dynamic>, bool)>;

/// Which values are meant.
pub enum Test {
    /// Of sessions.
    Expression(Box<Expression>),
    Function(FnPtr),
    /// Fields and what they must be; an array means any of its values, `()` that it doesn't matter.
    Fields(Map),
}

impl Test {
    pub fn holds(&self, ctx: &NativeCallContext, item: Dynamic, now: i64) -> Fallible<bool> {
        match self {
            Self::Expression(expression) => expression.holds(ctx, &*session(&item).at(ctx)?, now),
            Self::Function(function) => {
                let answer = function.call_raw(ctx, None, [item])?;
                answer
                    .as_bool()
                    .map_err(|_| {
                        Failure::script(format!(
                            "the function must answer true or false, and answered {}",
                            value::type_name(&answer)
                        ))
                    })
                    .at(ctx)
            }
            Self::Fields(fields) => {
                for (name, wanted) in fields.iter().filter(|(_, wanted)| !wanted.is_unit()) {
                    let found = value::field(&item, name, now).at(ctx)?;
                    let fits = match wanted.read_lock::<Array>() {
                        Some(any) => {
                            let mut fits = false;
                            for wanted in any.iter() {
                                fits |= value::compare(&found, wanted).at(ctx)? == Ordering::Equal;
                            }
                            fits
                        }
                        None => value::compare(&found, wanted).at(ctx)? == Ordering::Equal,
                    };
                    if !fits {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}

/// How many there are.
pub fn length(ctx: &NativeCallContext, source: &impl Source) -> Fallible<usize> {
    if let Some(known) = source.answer(ctx, Question::Count)? {
        return Ok(count_of(known.as_int().unwrap_or_default()));
    }
    let mut number = 0;
    source.walk(ctx, &mut |_| {
        number += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(number)
}

/// The first; `()` of none.
pub fn first(ctx: &NativeCallContext, source: &impl Source) -> Fallible<Dynamic> {
    if let Some(known) = source.answer(ctx, Question::First)? {
        return Ok(known);
    }
    let mut found = Dynamic::UNIT;
    source.walk(ctx, &mut |item| {
        found = item;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// By the first key, of equal ones by the next; those that are equal in all keep their order. What has no value comes
/// last.
pub fn sorted<S: Sequence>(ctx: &NativeCallContext, list: &S, keys: &SortValues) -> Fallible<S> {
    let mut places: Vec<usize> = (0..list.count()).collect();
    let mut failed = None;
    places.sort_by(|a, b| {
        for (values, is_falling) in keys {
            let (a, b) = (&values[*a], &values[*b]);
            let order = value::compare(a, b).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Ordering::Equal
            });
            if order.is_ne() {
                let turned = *is_falling && !a.is_unit() && !b.is_unit();
                return if turned { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    });
    match failed {
        Some(error) => Err(error.at(ctx)),
        None => Ok(list.pick(&places)),
    }
}

/// A list for each key.
pub fn groups<S: Sequence>(list: &S, keys: &[Dynamic]) -> Vec<(String, S)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known = HashMap::new();
    for (place, key) in keys.iter().enumerate() {
        let name = value::to_text(key);
        let group = *known.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(place);
    }
    groups.into_iter().map(|(name, places)| (name, list.pick(&places))).collect()
}

/// The first of each key.
pub fn unique<S: Sequence>(list: &S, keys: &[Dynamic]) -> S {
    let mut seen = HashSet::new();
    let places: Vec<usize> = (0..list.count())
        .filter(|place| {
            seen.insert((value::type_name(&keys[*place]), value::to_json(&keys[*place]).to_string()))
        })
        .collect();
    list.pick(&places)
}

/// How many of each key there are, as a map.
pub fn counts(ctx: &NativeCallContext, source: &impl Source, key: &Key) -> Fallible<Map> {
    if let Some(known) = source.answer(ctx, Question::CountBy(key))? {
        return Ok(known.try_cast::<Map>().unwrap_or_default());
    }
    let mut counts: HashMap<String, u64> = HashMap::new();
    source.walk_keys(ctx, key, &mut |value| {
        match value.read_lock::<rhai::ImmutableString>() {
            // Without a copy of a text that is known already.
            Some(text) => match counts.get_mut(text.as_str()) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(text.to_string(), 1);
                }
            },
            None => *counts.entry(value::to_text(&value)).or_default() += 1,
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(counts.into_iter().map(|(name, number)| (name.into(), count(number))).collect())
}

fn overflow() -> Failure {
    Failure::script("the sum is larger than a whole number can be")
}

/// A sum that grows value by value; `()` is passed over.
#[derive(Default)]
struct Sum {
    total: Option<Dynamic>,
    count: i64,
}

impl Sum {
    fn add(&mut self, next: Dynamic) -> Result<(), Failure> {
        if next.is_unit() {
            return Ok(());
        }
        self.count += 1;
        let Some(total) = self.total.take() else {
            if !(next.is_int() || next.is_float() || next.is::<Span>()) {
                return Err(Failure::script(format!("{} can't be summed", value::type_name(&next))));
            }
            self.total = Some(next);
            return Ok(());
        };
        let sum = if let (Ok(a), Ok(b)) = (total.as_int(), next.as_int()) {
            a.checked_add(b).ok_or_else(overflow)?.into()
        } else if let (Some(a), Some(b)) = (value::number(&total), value::number(&next)) {
            (a + b).into()
        } else if let (Some(a), Some(b)) = (span(&total), span(&next)) {
            Dynamic::from(Span(a.checked_add(b).ok_or_else(too_long)?))
        } else {
            let (a, b) = (value::type_name(&total), value::type_name(&next));
            return Err(Failure::script(format!("{a} and {b} can't be summed")));
        };
        self.total = Some(sum);
        Ok(())
    }
}

fn span(value: &Dynamic) -> Option<i64> {
    value.read_lock::<Span>().map(|span| span.0)
}

/// The sum of the keys; 0 of none.
pub fn sum(ctx: &NativeCallContext, source: &impl Source, key: &Key) -> Fallible<Dynamic> {
    if let Some(known) = source.answer(ctx, Question::Sum(key))? {
        return Ok(known);
    }
    Ok(summed(ctx, source, key)?.total.unwrap_or(Dynamic::from_int(0)))
}

fn summed(ctx: &NativeCallContext, source: &impl Source, key: &Key) -> Fallible<Sum> {
    let mut sum = Sum::default();
    source.walk_keys(ctx, key, &mut |value| {
        sum.add(value).at(ctx)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sum)
}

/// The average of the keys; `()` of none.
pub fn average(ctx: &NativeCallContext, source: &impl Source, key: &Key) -> Fallible<Dynamic> {
    if let Some(known) = source.answer(ctx, Question::Average(key))? {
        return Ok(known);
    }
    let sum = summed(ctx, source, key)?;
    Ok(match sum.total {
        None => Dynamic::UNIT,
        Some(total) => mean(&total, sum.count),
    })
}

/// A total divided by the number of its parts.
pub fn mean(total: &Dynamic, count: i64) -> Dynamic {
    if let Some(total) = span(total) {
        return Dynamic::from(Span(total / count.max(1)));
    }
    #[expect(clippy::cast_precision_loss, reason = "an average is a fraction")]
    (value::number(total).unwrap_or_default() / count.max(1) as f64).into()
}

/// The smallest or the largest of the keys; `()` of none.
pub fn extreme(
    ctx: &NativeCallContext,
    source: &impl Source,
    key: &Key,
    wanted: Ordering,
) -> Fallible<Dynamic> {
    let question = if wanted.is_lt() { Question::Smallest(key) } else { Question::Largest(key) };
    if let Some(known) = source.answer(ctx, question)? {
        return Ok(known);
    }
    let mut best = Dynamic::UNIT;
    source.walk_keys(ctx, key, &mut |value| {
        if !value.is_unit() && (best.is_unit() || value::compare(&value, &best).at(ctx)? == wanted) {
            best = value;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(best)
}

/// A number as scripts have it.
pub fn count(n: u64) -> Dynamic {
    Dynamic::from_int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// How many a script means; none if it is negative.
pub fn count_of(n: i64) -> usize {
    usize::try_from(n.max(0)).unwrap_or(usize::MAX)
}
