//! Texts: shortening, trimming, letters' case, JSON.

use rhai::plugin::*;
use rhai::{Map, NativeCallContext};

use super::failure::{At, Failure, Fallible};
use super::value;
use crate::render;

/// Texts and JSON.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod text_functions {
    /// A value as JSON text on one line.
    ///
    /// ```rhai
    /// print(to_json(#{ a: 1 }));   // {"a":1}
    /// ```
    #[rhai_fn(name = "to_json")]
    pub fn to_json_text(value: Dynamic) -> String {
        value::to_json(&value).to_string()
    }

    /// A map as JSON text on one line.
    ///
    /// ```rhai
    /// print(#{ a: 2.hours }.to_json());   // {"a":"2h"}
    /// ```
    #[rhai_fn(name = "to_json", pure)]
    pub fn map_to_json(map: &mut Map) -> String {
        value::to_json(&Dynamic::from(map.clone())).to_string()
    }

    /// A value from JSON text. Error: it is no JSON.
    ///
    /// ```rhai
    /// print(parse_json("[1, 2]").sum());   // 3
    /// ```
    #[rhai_fn(name = "parse_json", return_raw)]
    pub fn from_json_text(ctx: NativeCallContext, text: &str) -> Fallible<Dynamic> {
        serde_json::from_str(text)
            .map(|json| value::from_json(&json))
            .map_err(|error| Failure::script(format!("this is no JSON: {error}")))
            .at(&ctx)
    }

    /// The text without spaces at its beginning and end. A new string, where `trim` changes the original.
    ///
    /// ```rhai
    /// print("  milk ".trimmed());   // milk
    /// ```
    pub fn trimmed(text: &str) -> String {
        text.trim().to_owned()
    }

    /// The text in capital letters. A new string, where `make_upper` changes the original.
    ///
    /// ```rhai
    /// print("idle".upper());   // IDLE
    /// ```
    pub fn upper(text: &str) -> String {
        text.to_uppercase()
    }

    /// The text in small letters. A new string, where `make_lower` changes the original.
    ///
    /// ```rhai
    /// print("IDLE".lower());   // idle
    /// ```
    pub fn lower(text: &str) -> String {
        text.to_lowercase()
    }

    /// The text, cut to at most `columns` columns of a terminal, the last three of them `...` if something was cut.
    /// A new string: the original stays.
    ///
    /// ```rhai
    /// for s in list() { print(`${s.short_id}  ${s.title.shorten(30)}`); }
    /// ```
    pub fn shorten(text: &str, columns: i64) -> String {
        render::shorten(text, usize::try_from(columns).unwrap_or(0))
    }

    /// How many columns of a terminal the text takes.
    ///
    /// ```rhai
    /// print("日本 milk".width());   // 9
    /// ```
    pub fn width(text: &str) -> i64 {
        i64::try_from(render::width(text)).unwrap_or(i64::MAX)
    }
}
