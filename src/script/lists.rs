//! What scripts can call on lists of sessions, of agents, of `end`'s rows, on arrays and on streams.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use rhai::plugin::*;
use rhai::{Array, FnPtr, Map, NativeCallContext};

use super::agents::Agents;
use super::expression::Expression;
use super::failure::{At, Failure, Fallible};
use super::sequence::{
    Key, Listed, Sequence, SortBy, Source, Test, average, count_of, counts, extreme, groups, length, sorted,
    sum, unique,
};
use super::sessions::{Done, Sessions};
use super::stream::Stream;

/// A condition as text.
fn expression(ctx: &NativeCallContext, text: &str) -> Fallible<Test> {
    Expression::compile(ctx.engine(), text).map(Box::new).map(Test::Expression).at(ctx)
}

/// What comes one after another, in a list or in a stream.
macro_rules! source_functions {
    ($module:ident, $list:ident) => {
        /// Functions on lists and streams.
        #[export_module]
        pub mod $module {
            use super::$list as List;

            /// Those for which the function answers true. Error: it answers something else than true or false.
            ///
            /// ```rhai
            /// let stale = list().filter(|s| s.idle > 2.hours);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn filter(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<List> {
                list.keep(&ctx, Test::Function(test), true)
            }

            /// Those whose fields are as in the map; an array means any of its values. Error: an unknown field.
            ///
            /// ```rhai
            /// let mine = list().filter(#{ agent: "notes", status: ["idle", "completed"] });
            /// ```
            #[rhai_fn(name = "filter", pure, volatile, return_raw)]
            pub fn filter_fields(ctx: NativeCallContext, list: &mut List, fields: Map) -> Fallible<List> {
                list.keep(&ctx, Test::Fields(fields), true)
            }

            /// Those for which an expression over the fields of a session holds. Errors: an unknown field, a comparison that could
            /// never hold.
            ///
            /// ```rhai
            /// let stale = list().filter("status == \"idle\" && idle > 2.hours");
            /// ```
            #[rhai_fn(name = "filter", pure, volatile, return_raw)]
            pub fn filter_by_text(
                ctx: NativeCallContext,
                list: &mut List,
                condition: &str,
            ) -> Fallible<List> {
                list.keep(&ctx, expression(&ctx, condition)?, true)
            }

            /// Those for which the function answers false. Error: it answers something else than true or false.
            ///
            /// ```rhai
            /// let open = list().reject(|s| s.status == "ended");
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn reject(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<List> {
                list.keep(&ctx, Test::Function(test), false)
            }

            /// Those whose fields are not as in the map. Error: an unknown field.
            ///
            /// ```rhai
            /// let open = list().reject(#{ status: "ended" });
            /// ```
            #[rhai_fn(name = "reject", pure, volatile, return_raw)]
            pub fn reject_fields(ctx: NativeCallContext, list: &mut List, fields: Map) -> Fallible<List> {
                list.keep(&ctx, Test::Fields(fields), false)
            }

            /// Those for which an expression over the fields of a session doesn't hold. Errors: an unknown field, a
            /// comparison that could never hold.
            ///
            /// ```rhai
            /// let open = list().reject("status == \"ended\"");
            /// ```
            #[rhai_fn(name = "reject", pure, volatile, return_raw)]
            pub fn reject_by_text(
                ctx: NativeCallContext,
                list: &mut List,
                condition: &str,
            ) -> Fallible<List> {
                list.keep(&ctx, expression(&ctx, condition)?, false)
            }

            /// The first for which the function answers true; `()` if there is none. Error: it answers something else
            /// than true or false.
            ///
            /// ```rhai
            /// let s = list().find(|s| s.title.contains("milk"));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn find(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<Dynamic> {
                Ok(Source::find(list, &ctx, &Test::Function(test), true)?.unwrap_or_default())
            }

            /// The first for which an expression over the fields of a session holds; `()` if there is none. Errors: an
            /// unknown field, a comparison that could never hold.
            ///
            /// ```rhai
            /// let s = list().find("title.contains(\"milk\")");
            /// ```
            #[rhai_fn(name = "find", pure, volatile, return_raw)]
            pub fn find_by_text(
                ctx: NativeCallContext,
                list: &mut List,
                condition: &str,
            ) -> Fallible<Dynamic> {
                Ok(Source::find(list, &ctx, &expression(&ctx, condition)?, true)?.unwrap_or_default())
            }

            /// Whether the function answers true for any. Error: it answers something else than true or false.
            ///
            /// ```rhai
            /// print(list().any(|s| s.status == "failed"));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn any(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<bool> {
                Ok(Source::find(list, &ctx, &Test::Function(test), true)?.is_some())
            }

            /// Whether an expression over the fields of a session holds for any. Errors: an unknown field, a comparison
            /// that could never hold.
            ///
            /// ```rhai
            /// print(list().any("status == \"failed\""));
            /// ```
            #[rhai_fn(name = "any", pure, volatile, return_raw)]
            pub fn any_by_text(ctx: NativeCallContext, list: &mut List, condition: &str) -> Fallible<bool> {
                Ok(Source::find(list, &ctx, &expression(&ctx, condition)?, true)?.is_some())
            }

            /// Whether the function answers true for all, or there is none. Error: it answers something else than true
            /// or false.
            ///
            /// ```rhai
            /// print(list().all(|s| s.message_count > 0));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn all(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<bool> {
                Ok(Source::find(list, &ctx, &Test::Function(test), false)?.is_none())
            }

            /// Whether an expression over the fields of a session holds for all, or there is none. Errors: an unknown
            /// field, a comparison that could never hold.
            ///
            /// ```rhai
            /// print(list().all("message_count > 0"));
            /// ```
            #[rhai_fn(name = "all", pure, volatile, return_raw)]
            pub fn all_by_text(ctx: NativeCallContext, list: &mut List, condition: &str) -> Fallible<bool> {
                Ok(Source::find(list, &ctx, &expression(&ctx, condition)?, false)?.is_none())
            }

            /// How many there are.
            ///
            /// ```rhai
            /// print(list(#{ status: "idle" }).count());
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn count(ctx: NativeCallContext, list: &mut List) -> Fallible<i64> {
                length(&ctx, list).map(|n| i64::try_from(n).unwrap_or(i64::MAX))
            }

            /// For how many the function answers true. Error: it answers something else than true or false.
            ///
            /// ```rhai
            /// print(list().count(|s| s.idle > 2.hours));
            /// ```
            #[rhai_fn(name = "count", pure, volatile, return_raw)]
            pub fn count_of_those(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<i64> {
                length(&ctx, &list.keep(&ctx, Test::Function(test), true)?)
                    .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
            }

            /// For how many an expression over the fields of a session holds. Errors: an unknown field, a comparison
            /// that could never hold.
            ///
            /// ```rhai
            /// print(list().count("idle > 2.hours"));
            /// ```
            #[rhai_fn(name = "count", pure, volatile, return_raw)]
            pub fn count_that_hold(
                ctx: NativeCallContext,
                list: &mut List,
                condition: &str,
            ) -> Fallible<i64> {
                length(&ctx, &list.keep(&ctx, expression(&ctx, condition)?, true)?)
                    .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
            }

            /// Calls the function with each. Error: that of the function, which ends it.
            ///
            /// ```rhai
            /// list().each(|s| print(s.title));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn each(ctx: NativeCallContext, list: &mut List, function: FnPtr) -> Fallible<()> {
                list.walk(&ctx, &mut |item| {
                    function.call_raw(&ctx, None, [item]).map(|_| ControlFlow::Continue(()))
                })
            }

            /// How many of each value of a field, or of an expression over the fields of a session, there are, as a map
            /// of `Int`s by the value as text. Errors: an unknown field, an expression that makes no sense.
            ///
            /// ```rhai
            /// print(list().count_by("status"));
            /// ```
            #[rhai_fn(name = "count_by", pure, volatile, return_raw)]
            pub fn count_by_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Map> {
                counts(&ctx, list, &Key::read(&ctx, key)?)
            }

            /// How many of each answer of the function there are, as a map of `Int`s by the answer as text. Error: that
            /// of the function.
            ///
            /// ```rhai
            /// print(list().count_by(|s| s.message_count > 3));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn count_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Map> {
                counts(&ctx, list, &Key::Function(key))
            }

            /// The sum of a field, or of an expression over the fields of a session: numbers or durations. 0 of none;
            /// `()` is passed over. Errors: an unknown field, values that can't be added up.
            ///
            /// ```rhai
            /// print(list().sum("message_count"));
            /// ```
            #[rhai_fn(name = "sum", pure, volatile, return_raw)]
            pub fn sum_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Dynamic> {
                sum(&ctx, list, &Key::read(&ctx, key)?)
            }

            /// The sum of the function's answers: numbers or durations. 0 of none; `()` is passed over. Error: values
            /// that can't be added up.
            ///
            /// ```rhai
            /// print(list().sum(|s| s.message_count));
            /// ```
            #[rhai_fn(name = "sum", pure, volatile, return_raw)]
            pub fn sum_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                sum(&ctx, list, &Key::Function(key))
            }

            /// The smallest value of a field, or of an expression over the fields of a session; `()` of none. Errors:
            /// an unknown field, values that can't be compared.
            ///
            /// ```rhai
            /// print(list().min("created_at"));
            /// ```
            #[rhai_fn(name = "min", pure, volatile, return_raw)]
            pub fn min_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Dynamic> {
                extreme(&ctx, list, &Key::read(&ctx, key)?, Ordering::Less)
            }

            /// The smallest answer of the function; `()` of none. Error: values that can't be compared.
            ///
            /// ```rhai
            /// print(list().min(|s| s.idle));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn min(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                extreme(&ctx, list, &Key::Function(key), Ordering::Less)
            }

            /// The largest value of a field, or of an expression over the fields of a session; `()` of none. Errors: an
            /// unknown field, values that can't be compared.
            ///
            /// ```rhai
            /// print(list().max("message_count"));
            /// ```
            #[rhai_fn(name = "max", pure, volatile, return_raw)]
            pub fn max_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Dynamic> {
                extreme(&ctx, list, &Key::read(&ctx, key)?, Ordering::Greater)
            }

            /// The largest answer of the function; `()` of none. Error: values that can't be compared.
            ///
            /// ```rhai
            /// print(list().max(|s| s.idle));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn max(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                extreme(&ctx, list, &Key::Function(key), Ordering::Greater)
            }

            /// The average of a field, or of an expression over the fields of a session: of numbers a `Float`, of
            /// durations a duration; `()` of none. Errors: an unknown field, values that can't be added up.
            ///
            /// ```rhai
            /// print(list().avg("message_count"));
            /// ```
            #[rhai_fn(name = "avg", pure, volatile, return_raw)]
            pub fn avg_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Dynamic> {
                average(&ctx, list, &Key::read(&ctx, key)?)
            }

            /// The average of the function's answers: of numbers a `Float`, of durations a duration; `()` of none.
            /// Error: values that can't be added up.
            ///
            /// ```rhai
            /// print(list().avg(|s| s.idle));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn avg(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                average(&ctx, list, &Key::Function(key))
            }

            /// The first `n`, or fewer if there are no more.
            ///
            /// ```rhai
            /// table(list().take(3));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn take(ctx: NativeCallContext, list: &mut List, n: i64) -> Fallible<List> {
                Source::take(list, &ctx, count_of(n))
            }

            /// All but the first `n`.
            ///
            /// ```rhai
            /// table(list().skip(3));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn skip(ctx: NativeCallContext, list: &mut List, n: i64) -> Fallible<List> {
                Source::skip(list, &ctx, count_of(n))
            }

            /// The first; `()` of none.
            ///
            /// ```rhai
            /// let latest = list().first();
            /// ```
            #[rhai_fn(name = "first", get = "first", pure, volatile, return_raw)]
            pub fn first(ctx: NativeCallContext, list: &mut List) -> Fallible<Dynamic> {
                super::first_of(&ctx, list)
            }
        }
    };
}

source_functions!(agent_source, Agents);
source_functions!(array_source, Array);
source_functions!(done_source, Done);
source_functions!(session_source, Sessions);
source_functions!(stream_source, Stream);

fn first_of(ctx: &NativeCallContext, list: &impl Source) -> Fallible<Dynamic> {
    super::sequence::first(ctx, list)
}

/// What is a list, and can be put in order.
macro_rules! sequence_functions {
    ($module:ident, $list:ident) => {
        /// Functions on lists.
        #[export_module]
        pub mod $module {
            use super::$list as List;

            /// What the function answers for each, as an array. Error: that of the function.
            ///
            /// ```rhai
            /// print(list().map(|s| s.short_id));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn map(ctx: NativeCallContext, list: &mut List, function: FnPtr) -> Fallible<Array> {
                Key::Function(function).all(&ctx, list)
            }

            /// A field of each, or an expression over the fields of each session, as an array. Errors: an unknown
            /// field, an expression that makes no sense.
            ///
            /// ```rhai
            /// print(list().map("title"));
            /// print(list().map("[short_id, idle]"));
            /// ```
            #[rhai_fn(name = "map", pure, volatile, return_raw)]
            pub fn map_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Array> {
                Key::read(&ctx, key)?.all(&ctx, list)
            }

            /// A new list, the smallest answer of the function first; equal ones keep their order. Error: values that
            /// can't be compared.
            ///
            /// ```rhai
            /// let longest = list().sort_by(|s| -s.message_count);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn sort_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<List> {
                sort(&ctx, list, &SortBy::function(key))
            }

            /// A new list, the smallest value of the field first, or of the expression over the fields of a session;
            /// equal ones keep their order. `-` before a field's name puts the largest first; of several with commas
            /// between the next one decides where the first is equal. What has no value comes last. Errors: an unknown
            /// field, values that can't be compared.
            ///
            /// ```rhai
            /// table(list().sort_by("idle"));
            /// table(list().sort_by("agent, -message_count"));
            /// ```
            #[rhai_fn(name = "sort_by", pure, volatile, return_raw)]
            pub fn sort_by_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<List> {
                sort(&ctx, list, &SortBy::read(&ctx, key)?)
            }

            /// A list for each value of the field, or of the expression over the fields of a session, as a map by the
            /// value as text. Errors: an unknown field, an expression that makes no sense.
            ///
            /// ```rhai
            /// for agent in list().group_by("agent").keys() { print(agent); }
            /// ```
            #[rhai_fn(name = "group_by", pure, volatile, return_raw)]
            pub fn group_by_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<Map> {
                group(&ctx, list, &Key::read(&ctx, key)?)
            }

            /// A list for each answer of the function, as a map by the answer as text. Error: that of the function.
            ///
            /// ```rhai
            /// let by_day = list().group_by(|s| s.age.days);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn group_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Map> {
                group(&ctx, list, &Key::Function(key))
            }

            /// The first of each value of a field, or of an expression over the fields of a session. Errors: an unknown
            /// field, an expression that makes no sense.
            ///
            /// ```rhai
            /// table(list().unique("agent"));
            /// ```
            #[rhai_fn(name = "unique", pure, volatile, return_raw)]
            pub fn unique_text(ctx: NativeCallContext, list: &mut List, key: &str) -> Fallible<List> {
                unique_of(&ctx, list, &Key::read(&ctx, key)?)
            }

            /// The first of each answer of the function. Error: that of the function.
            ///
            /// ```rhai
            /// table(list().unique(|s| s.agent));
            /// ```
            #[rhai_fn(name = "unique", pure, volatile, return_raw)]
            pub fn unique_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<List> {
                unique_of(&ctx, list, &Key::Function(key))
            }

            /// The last; `()` of none.
            ///
            /// ```rhai
            /// let oldest = list().last();
            /// ```
            #[rhai_fn(name = "last", get = "last", pure, volatile, return_raw)]
            pub fn last(ctx: NativeCallContext, list: &mut List) -> Fallible<Dynamic> {
                let list = list.list(&ctx)?;
                Ok(list.count().checked_sub(1).map_or(Dynamic::UNIT, |place| list.item(place)))
            }
        }
    };
}

sequence_functions!(agent_sequence, Agents);
sequence_functions!(array_sequence, Array);
sequence_functions!(done_sequence, Done);
sequence_functions!(session_sequence, Sessions);

fn sort<L: Listed>(ctx: &NativeCallContext, list: &L, by: &SortBy) -> Fallible<L> {
    let keys = by.all(ctx, list)?;
    sorted(ctx, &list.list(ctx)?, &keys).map(Into::into)
}

fn group<L: Listed + rhai::Variant>(ctx: &NativeCallContext, list: &L, key: &Key) -> Fallible<Map> {
    let keys = key.all(ctx, list)?;
    let of = |(name, list): (String, L::List)| (name.into(), Dynamic::from::<L>(list.into()));
    Ok(groups(&list.list(ctx)?, &keys).into_iter().map(of).collect())
}

fn unique_of<L: Listed>(ctx: &NativeCallContext, list: &L, key: &Key) -> Fallible<L> {
    let keys = key.all(ctx, list)?;
    Ok(unique(&list.list(ctx)?, &keys).into())
}

/// What only arrays have, since their values may be plain.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod array_functions {
    /// The sum of an array's numbers or durations. 0 of none; `()` is passed over. Error: values that can't be added
    /// up.
    ///
    /// ```rhai
    /// print([1, 2, 3].sum());   // 6
    /// ```
    #[rhai_fn(name = "sum", pure, return_raw)]
    pub fn sum_array(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        super::sum(&ctx, array, &Key::Itself)
    }

    /// The average of an array's numbers, a `Float`, or of its durations, a duration; `()` of none. Error: values that
    /// can't be added up.
    ///
    /// ```rhai
    /// print([1, 2].avg());   // 1.5
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn avg(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        average(&ctx, array, &Key::Itself)
    }

    /// The smallest of an array's values; `()` of none. Error: values that can't be compared.
    ///
    /// ```rhai
    /// print([3, 1, 2].min());   // 1
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn min(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        extreme(&ctx, array, &Key::Itself, Ordering::Less)
    }

    /// The largest of an array's values; `()` of none. Error: values that can't be compared.
    ///
    /// ```rhai
    /// print([3, 1, 2].max());   // 3
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn max(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        extreme(&ctx, array, &Key::Itself, Ordering::Greater)
    }

    /// An array's values without repetitions.
    ///
    /// ```rhai
    /// print([1, 2, 1].unique());   // [1, 2]
    /// ```
    #[rhai_fn(name = "unique", pure, return_raw)]
    pub fn unique_array(ctx: NativeCallContext, array: &mut Array) -> Fallible<Array> {
        super::unique_of(&ctx, array, &Key::Itself)
    }
}

/// What lists of sessions and agents and the rows of `end` have, as arrays have it already.
macro_rules! list_functions {
    ($module:ident, $list:ident) => {
        /// Functions on lists.
        #[export_module]
        pub mod $module {
            use super::$list as List;

            /// How many there are.
            ///
            /// ```rhai
            /// print(list().len);
            /// ```
            #[rhai_fn(name = "len", get = "len", pure, volatile, return_raw)]
            pub fn len(ctx: NativeCallContext, list: &mut List) -> Fallible<i64> {
                length(&ctx, list).map(|n| i64::try_from(n).unwrap_or(i64::MAX))
            }

            /// Whether there is none.
            ///
            /// ```rhai
            /// if list(#{ status: "failed" }).is_empty() { print("all is well"); }
            /// ```
            #[rhai_fn(name = "is_empty", get = "is_empty", pure, volatile, return_raw)]
            pub fn is_empty(ctx: NativeCallContext, list: &mut List) -> Fallible<bool> {
                length(&ctx, list).map(|n| n == 0)
            }

            /// The one at this place: from 0, or from the end with -1. Error: there is none.
            ///
            /// ```rhai
            /// let latest = list()[0];
            /// let oldest = list()[-1];
            /// ```
            #[rhai_fn(index_get, volatile, return_raw)]
            pub fn at(ctx: NativeCallContext, list: &mut List, place: i64) -> Fallible<Dynamic> {
                let list = list.list(&ctx)?;
                let count = i64::try_from(list.count()).unwrap_or(i64::MAX);
                let place = if place < 0 { count.saturating_add(place) } else { place };
                if place < 0 || place >= count {
                    let told = if count == 1 { "1 element".to_owned() } else { format!("{count} elements") };
                    return Err(Failure::script(format!("the list has {told}: none is at {place}")).at(&ctx));
                }
                Ok(list.item(count_of(place)))
            }

            /// A new list, the last first.
            ///
            /// ```rhai
            /// table(list().sort_by("idle").reverse());
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn reverse(ctx: NativeCallContext, list: &mut List) -> Fallible<List> {
                let list = list.list(&ctx)?;
                let places: Vec<usize> = (0..list.count()).rev().collect();
                Ok(list.pick(&places).into())
            }

            /// An array of the same values.
            ///
            /// ```rhai
            /// print(list().to_array().len);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn to_array(ctx: NativeCallContext, list: &mut List) -> Fallible<Array> {
                let list = list.list(&ctx)?;
                Ok((0..list.count()).map(|place| list.item(place)).collect())
            }
        }
    };
}

list_functions!(session_list, Sessions);
list_functions!(agent_list, Agents);
list_functions!(done_list, Done);
