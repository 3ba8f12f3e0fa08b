//! What scripts can call on lists of sessions, of agents, of `end`'s rows, and on arrays.

use std::cmp::Ordering;

use rhai::plugin::*;
use rhai::{Array, FnPtr, Map, NativeCallContext};

use super::agents::Agents;
use super::failure::{Failure, Fallible};
use super::sequence::{
    Key, Sequence, Test, average, count_of, counts, extreme, first_places, groups, place, places, sorted,
    sum, unique,
};
use super::sessions::{Done, Sessions};

macro_rules! sequence_functions {
    ($module:ident, $list:ident) => {
        /// Functions on lists.
        #[export_module]
        pub mod $module {
            use super::$list as List;

            /// Those for which the function answers true.
            ///
            /// ```rhai
            /// let stale = list().filter(|s| s.idle > 2.hours);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn filter(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<List> {
                Ok(list.pick(&places(&ctx, list, &Test::Function(test), true)?))
            }

            /// Those whose fields are as in the map; an array means any of its values. Error: an unknown field.
            ///
            /// ```rhai
            /// let mine = list().filter(#{ agent: "notes", status: ["idle", "completed"] });
            /// ```
            #[rhai_fn(name = "filter", pure, volatile, return_raw)]
            pub fn filter_fields(ctx: NativeCallContext, list: &mut List, fields: Map) -> Fallible<List> {
                Ok(list.pick(&places(&ctx, list, &Test::Fields(fields), true)?))
            }

            /// Those for which the function answers false.
            ///
            /// ```rhai
            /// let open = list().reject(|s| s.status == "ended");
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn reject(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<List> {
                Ok(list.pick(&places(&ctx, list, &Test::Function(test), false)?))
            }

            /// Those whose fields are not as in the map.
            ///
            /// ```rhai
            /// let open = list().reject(#{ status: "ended" });
            /// ```
            #[rhai_fn(name = "reject", pure, volatile, return_raw)]
            pub fn reject_fields(ctx: NativeCallContext, list: &mut List, fields: Map) -> Fallible<List> {
                Ok(list.pick(&places(&ctx, list, &Test::Fields(fields), false)?))
            }

            /// The first for which the function answers true; `()` if there is none.
            ///
            /// ```rhai
            /// let s = list().find(|s| s.title.contains("milk"));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn find(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<Dynamic> {
                Ok(place(&ctx, list, &Test::Function(test), true)?
                    .map_or(Dynamic::UNIT, |found| list.item(found)))
            }

            /// Whether the function answers true for any.
            ///
            /// ```rhai
            /// print(list().any(|s| s.status == "failed"));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn any(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<bool> {
                Ok(place(&ctx, list, &Test::Function(test), true)?.is_some())
            }

            /// Whether the function answers true for all.
            ///
            /// ```rhai
            /// print(list().all(|s| s.message_count > 0));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn all(ctx: NativeCallContext, list: &mut List, test: FnPtr) -> Fallible<bool> {
                Ok(place(&ctx, list, &Test::Function(test), false)?.is_none())
            }

            /// What the function answers for each, as an array.
            ///
            /// ```rhai
            /// print(list().map(|s| s.short_id));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn map(ctx: NativeCallContext, list: &mut List, function: FnPtr) -> Fallible<Array> {
                Key::Function(function).all(&ctx, list)
            }

            /// One field of each, as an array.
            ///
            /// ```rhai
            /// print(list().map("title"));
            /// ```
            #[rhai_fn(name = "map", pure, volatile, return_raw)]
            pub fn map_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Array> {
                Key::Field(field.to_owned()).all(&ctx, list)
            }

            /// Calls the function with each.
            ///
            /// ```rhai
            /// list().each(|s| print(s.title));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn each(ctx: NativeCallContext, list: &mut List, function: FnPtr) -> Fallible<()> {
                Key::Function(function).all(&ctx, list).map(|_| ())
            }

            /// A new list, the smallest answer of the function first; equal ones keep their order.
            ///
            /// ```rhai
            /// let longest = list().sort_by(|s| -s.message_count);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn sort_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<List> {
                sorted(&ctx, list, &Key::Function(key))
            }

            /// A new list, the smallest value of the field first; equal ones keep their order.
            ///
            /// ```rhai
            /// table(list().sort_by("idle"));
            /// ```
            #[rhai_fn(name = "sort_by", pure, volatile, return_raw)]
            pub fn sort_by_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<List> {
                sorted(&ctx, list, &Key::Field(field.to_owned()))
            }

            /// How many of each field's value there are, as a map.
            ///
            /// ```rhai
            /// print(list().count_by("status"));
            /// ```
            #[rhai_fn(name = "count_by", pure, volatile, return_raw)]
            pub fn count_by_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Map> {
                counts(&ctx, list, &Key::Field(field.to_owned()))
            }

            /// How many of each answer of the function there are, as a map.
            ///
            /// ```rhai
            /// print(list().count_by(|s| s.message_count > 3));
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn count_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Map> {
                counts(&ctx, list, &Key::Function(key))
            }

            /// A list for each value of the field, as a map.
            ///
            /// ```rhai
            /// for agent in list().group_by("agent").keys() { print(agent); }
            /// ```
            #[rhai_fn(name = "group_by", pure, volatile, return_raw)]
            pub fn group_by_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Map> {
                groups(&ctx, list, &Key::Field(field.to_owned()))
            }

            /// A list for each answer of the function, as a map.
            ///
            /// ```rhai
            /// let by_day = list().group_by(|s| s.age.days);
            /// ```
            #[rhai_fn(pure, volatile, return_raw)]
            pub fn group_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Map> {
                groups(&ctx, list, &Key::Function(key))
            }

            /// The sum of a field: numbers or durations. 0 of none; `()` is passed over.
            ///
            /// ```rhai
            /// print(list().sum("message_count"));
            /// ```
            #[rhai_fn(name = "sum", pure, volatile, return_raw)]
            pub fn sum_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Dynamic> {
                sum(&ctx, &Key::Field(field.to_owned()).all(&ctx, list)?)
            }

            /// The sum of the function's answers: numbers or durations. 0 of none.
            ///
            /// ```rhai
            /// print(list().sum(|s| s.message_count));
            /// ```
            #[rhai_fn(name = "sum", pure, volatile, return_raw)]
            pub fn sum_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                sum(&ctx, &Key::Function(key).all(&ctx, list)?)
            }

            /// The smallest value of a field; `()` of none.
            ///
            /// ```rhai
            /// print(list().min("created_at"));
            /// ```
            #[rhai_fn(name = "min", pure, volatile, return_raw)]
            pub fn min_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Dynamic> {
                extreme(&ctx, Key::Field(field.to_owned()).all(&ctx, list)?, Ordering::Less)
            }

            /// The smallest answer of the function; `()` of none.
            ///
            /// ```rhai
            /// print(list().min(|s| s.idle));
            /// ```
            #[rhai_fn(name = "min", pure, volatile, return_raw)]
            pub fn min_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                extreme(&ctx, Key::Function(key).all(&ctx, list)?, Ordering::Less)
            }

            /// The largest value of a field; `()` of none.
            ///
            /// ```rhai
            /// print(list().max("message_count"));
            /// ```
            #[rhai_fn(name = "max", pure, volatile, return_raw)]
            pub fn max_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Dynamic> {
                extreme(&ctx, Key::Field(field.to_owned()).all(&ctx, list)?, Ordering::Greater)
            }

            /// The largest answer of the function; `()` of none.
            ///
            /// ```rhai
            /// print(list().max(|s| s.idle));
            /// ```
            #[rhai_fn(name = "max", pure, volatile, return_raw)]
            pub fn max_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                extreme(&ctx, Key::Function(key).all(&ctx, list)?, Ordering::Greater)
            }

            /// The average of a field; `()` of none.
            ///
            /// ```rhai
            /// print(list().avg("message_count"));
            /// ```
            #[rhai_fn(name = "avg", pure, volatile, return_raw)]
            pub fn avg_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<Dynamic> {
                average(&ctx, &Key::Field(field.to_owned()).all(&ctx, list)?)
            }

            /// The average of the function's answers; `()` of none.
            ///
            /// ```rhai
            /// print(list().avg(|s| s.idle));
            /// ```
            #[rhai_fn(name = "avg", pure, volatile, return_raw)]
            pub fn avg_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<Dynamic> {
                average(&ctx, &Key::Function(key).all(&ctx, list)?)
            }

            /// The first of each value of a field.
            ///
            /// ```rhai
            /// table(list().unique("agent"));
            /// ```
            #[rhai_fn(name = "unique", pure, volatile, return_raw)]
            pub fn unique_field(ctx: NativeCallContext, list: &mut List, field: &str) -> Fallible<List> {
                unique(&ctx, list, &Key::Field(field.to_owned()))
            }

            /// The first of each answer of the function.
            ///
            /// ```rhai
            /// table(list().unique(|s| s.agent));
            /// ```
            #[rhai_fn(name = "unique", pure, volatile, return_raw)]
            pub fn unique_by(ctx: NativeCallContext, list: &mut List, key: FnPtr) -> Fallible<List> {
                unique(&ctx, list, &Key::Function(key))
            }

            /// The first `n`, or fewer if there are no more.
            ///
            /// ```rhai
            /// table(list().take(3));
            /// ```
            #[rhai_fn(pure)]
            pub fn take(list: &mut List, n: i64) -> List {
                list.pick(&first_places(list, n))
            }

            /// All but the first `n`.
            ///
            /// ```rhai
            /// table(list().skip(3));
            /// ```
            #[rhai_fn(pure)]
            pub fn skip(list: &mut List, n: i64) -> List {
                let places: Vec<usize> = (0..list.count()).skip(count_of(n)).collect();
                list.pick(&places)
            }

            /// The first; `()` of none.
            ///
            /// ```rhai
            /// let latest = list().first();
            /// ```
            #[rhai_fn(name = "first", get = "first", pure)]
            pub fn first(list: &mut List) -> Dynamic {
                if list.count() == 0 { Dynamic::UNIT } else { list.item(0) }
            }

            /// The last; `()` of none.
            ///
            /// ```rhai
            /// let oldest = list().last();
            /// ```
            #[rhai_fn(name = "last", get = "last", pure)]
            pub fn last(list: &mut List) -> Dynamic {
                list.count().checked_sub(1).map_or(Dynamic::UNIT, |place| list.item(place))
            }
        }
    };
}

sequence_functions!(session_sequence, Sessions);
sequence_functions!(agent_sequence, Agents);
sequence_functions!(array_sequence, Array);

/// What only arrays have, since their values may be plain.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod array_functions {
    /// The sum of an array's numbers or durations. 0 of none; `()` is passed over.
    ///
    /// ```rhai
    /// print([1, 2, 3].sum());   // 6
    /// ```
    #[rhai_fn(name = "sum", pure, return_raw)]
    pub fn sum_array(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        sum(&ctx, array)
    }

    /// The average of an array's numbers or durations; `()` of none.
    ///
    /// ```rhai
    /// print([1, 2].avg());   // 1.5
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn avg(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        average(&ctx, array)
    }

    /// The smallest of an array's values; `()` of none.
    ///
    /// ```rhai
    /// print([3, 1, 2].min());   // 1
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn min(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        extreme(&ctx, array.clone(), Ordering::Less)
    }

    /// The largest of an array's values; `()` of none.
    ///
    /// ```rhai
    /// print([3, 1, 2].max());   // 3
    /// ```
    #[rhai_fn(pure, return_raw)]
    pub fn max(ctx: NativeCallContext, array: &mut Array) -> Fallible<Dynamic> {
        extreme(&ctx, array.clone(), Ordering::Greater)
    }

    /// An array's values without repetitions.
    ///
    /// ```rhai
    /// print([1, 2, 1].unique());   // [1, 2]
    /// ```
    #[rhai_fn(name = "unique", pure, return_raw)]
    pub fn unique_array(ctx: NativeCallContext, array: &mut Array) -> Fallible<Array> {
        unique(&ctx, array, &Key::Itself)
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
            #[rhai_fn(name = "len", get = "len", pure)]
            pub fn len(list: &mut List) -> i64 {
                i64::try_from(list.count()).unwrap_or(i64::MAX)
            }

            /// Whether there is none.
            ///
            /// ```rhai
            /// if list(#{ status: "failed" }).is_empty() { print("all is well"); }
            /// ```
            #[rhai_fn(name = "is_empty", get = "is_empty", pure)]
            pub fn is_empty(list: &mut List) -> bool {
                list.count() == 0
            }

            /// The one at this place: from 0, or from the end with -1. Error: there is none.
            ///
            /// ```rhai
            /// let latest = list()[0];
            /// let oldest = list()[-1];
            /// ```
            #[rhai_fn(index_get, return_raw)]
            pub fn at(ctx: NativeCallContext, list: &mut List, place: i64) -> Fallible<Dynamic> {
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
            #[rhai_fn(pure)]
            pub fn reverse(list: &mut List) -> List {
                let places: Vec<usize> = (0..list.count()).rev().collect();
                list.pick(&places)
            }

            /// An array of the same values.
            ///
            /// ```rhai
            /// print(list().to_array().len);
            /// ```
            #[rhai_fn(pure)]
            pub fn to_array(list: &mut List) -> Array {
                (0..list.count()).map(|place| list.item(place)).collect()
            }
        }
    };
}

list_functions!(session_list, Sessions);
list_functions!(agent_list, Agents);
list_functions!(done_list, Done);
