//! What lists of every kind can do, whatever their type: testing, looking up keys, ordering, grouping, summing.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rhai::{Array, Dynamic, FnPtr, Map, NativeCallContext, Variant};

use super::duration::{Span, too_long};
use super::failure::{At, Failure, Fallible};
use super::runtime::Runtime;
use super::value;

/// A list of values in an order.
pub trait Sequence: Clone + 'static {
    fn count(&self) -> usize;
    /// The value at a place that is below `count`.
    fn item(&self, place: usize) -> Dynamic;
    /// A new list of the values at these places.
    fn pick(&self, places: &[usize]) -> Self;
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

/// What each value is looked at by: a field's name or a function.
pub enum Key {
    Field(String),
    Function(FnPtr),
    /// The value itself.
    Itself,
}

impl Key {
    fn of(&self, ctx: &NativeCallContext, item: Dynamic, now: i64) -> Fallible<Dynamic> {
        match self {
            Self::Field(name) => value::field(&item, name, now).at(ctx),
            Self::Function(function) => function.call_raw(ctx, None, [item]),
            Self::Itself => Ok(item),
        }
    }

    pub fn all(&self, ctx: &NativeCallContext, list: &impl Sequence) -> Fallible<Vec<Dynamic>> {
        let now = Runtime::of(ctx)?.now();
        (0..list.count()).map(|place| self.of(ctx, list.item(place), now)).collect()
    }
}

/// Which values are meant.
pub enum Test {
    Function(FnPtr),
    /// Fields and what they must be; an array means any of its values, `()` that it doesn't matter.
    Fields(Map),
}

impl Test {
    fn holds(&self, ctx: &NativeCallContext, item: Dynamic, now: i64) -> Fallible<bool> {
        match self {
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

/// The places of those for which the test gives `wanted`.
pub fn places(
    ctx: &NativeCallContext,
    list: &impl Sequence,
    test: &Test,
    wanted: bool,
) -> Fallible<Vec<usize>> {
    let now = Runtime::of(ctx)?.now();
    let mut places = Vec::new();
    for place in 0..list.count() {
        if test.holds(ctx, list.item(place), now)? == wanted {
            places.push(place);
        }
    }
    Ok(places)
}

/// The first place for which the test gives `wanted`.
pub fn place(
    ctx: &NativeCallContext,
    list: &impl Sequence,
    test: &Test,
    wanted: bool,
) -> Fallible<Option<usize>> {
    let now = Runtime::of(ctx)?.now();
    for place in 0..list.count() {
        if test.holds(ctx, list.item(place), now)? == wanted {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

pub fn sorted<S: Sequence>(ctx: &NativeCallContext, list: &S, key: &Key) -> Fallible<S> {
    let keys = key.all(ctx, list)?;
    let mut places: Vec<usize> = (0..list.count()).collect();
    let mut failed = None;
    places.sort_by(|a, b| {
        value::compare(&keys[*a], &keys[*b]).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            Ordering::Equal
        })
    });
    match failed {
        Some(error) => Err(error.at(ctx)),
        None => Ok(list.pick(&places)),
    }
}

fn grouped<S: Sequence>(ctx: &NativeCallContext, list: &S, key: &Key) -> Fallible<Vec<(String, Vec<usize>)>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known = HashMap::new();
    for (place, key) in key.all(ctx, list)?.iter().enumerate() {
        let name = value::to_text(key);
        let group = *known.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(place);
    }
    Ok(groups)
}

pub fn unique<S: Sequence>(ctx: &NativeCallContext, list: &S, key: &Key) -> Fallible<S> {
    let mut seen = HashSet::new();
    let keys = key.all(ctx, list)?;
    let places: Vec<usize> = (0..list.count())
        .filter(|place| {
            seen.insert((value::type_name(&keys[*place]), value::to_json(&keys[*place]).to_string()))
        })
        .collect();
    Ok(list.pick(&places))
}

pub fn sum(ctx: &NativeCallContext, values: &[Dynamic]) -> Fallible<Dynamic> {
    let overflow = || Failure::script("the sum is larger than a whole number can be");
    let mut values = values.iter().filter(|value| !value.is_unit());
    let Some(first) = values.next() else { return Ok(Dynamic::from_int(0)) };
    let mut total = first.clone();
    if !(total.is_int() || total.is_float() || total.is::<Span>()) {
        return Err(Failure::script(format!("{} can't be summed", value::type_name(&total))).at(ctx));
    }
    for next in values {
        let spans = (total.clone().try_cast::<Span>(), next.clone().try_cast::<Span>());
        total = if let (Some(a), Some(b)) = spans {
            Dynamic::from(a.0.checked_add(b.0).map(Span).ok_or_else(too_long).at(ctx)?)
        } else if let (Ok(a), Ok(b)) = (total.as_int(), next.as_int()) {
            a.checked_add(b).ok_or_else(overflow).at(ctx)?.into()
        } else if let (Some(a), Some(b)) = (value::number(&total), value::number(next)) {
            (a + b).into()
        } else {
            let (a, b) = (value::type_name(&total), value::type_name(next));
            return Err(Failure::script(format!("{a} and {b} can't be summed")).at(ctx));
        };
    }
    Ok(total)
}

pub fn average(ctx: &NativeCallContext, values: &[Dynamic]) -> Fallible<Dynamic> {
    let count = values.iter().filter(|value| !value.is_unit()).count();
    if count == 0 {
        return Ok(Dynamic::UNIT);
    }
    let total = sum(ctx, values)?;
    if let Some(span) = total.clone().try_cast::<Span>() {
        return Ok(Dynamic::from(Span(span.0 / i64::try_from(count).unwrap_or(i64::MAX))));
    }
    #[expect(clippy::cast_precision_loss, reason = "an average is a fraction")]
    Ok((value::number(&total).unwrap_or_default() / count as f64).into())
}

pub fn extreme(ctx: &NativeCallContext, values: Vec<Dynamic>, wanted: Ordering) -> Fallible<Dynamic> {
    let mut values = values.into_iter().filter(|value| !value.is_unit());
    let Some(mut best) = values.next() else { return Ok(Dynamic::UNIT) };
    for next in values {
        if value::compare(&next, &best).at(ctx)? == wanted {
            best = next;
        }
    }
    Ok(best)
}

pub fn count_of(n: i64) -> usize {
    usize::try_from(n.max(0)).unwrap_or(usize::MAX)
}

pub fn first_places(list: &impl Sequence, n: i64) -> Vec<usize> {
    (0..list.count().min(count_of(n))).collect()
}

pub fn counts(ctx: &NativeCallContext, list: &impl Sequence, key: &Key) -> Fallible<Map> {
    let groups = grouped(ctx, list, key)?;
    let count = |places: Vec<usize>| Dynamic::from_int(i64::try_from(places.len()).unwrap_or(i64::MAX));
    Ok(groups.into_iter().map(|(name, places)| (name.into(), count(places))).collect())
}

pub fn groups<S: Sequence>(ctx: &NativeCallContext, list: &S, key: &Key) -> Fallible<Map> {
    let groups = grouped(ctx, list, key)?;
    Ok(groups.into_iter().map(|(name, places)| (name.into(), Dynamic::from(list.pick(&places)))).collect())
}
