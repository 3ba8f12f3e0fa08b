//! What is shown of each value: a field by its name, or an expression over a session's fields, several with commas between.

use rhai::plugin::*;
use rhai::{Array, Engine, NativeCallContext};
use serde_json::{Map, Value};

use super::agents::Agent;
use super::ending::DoneRow;
use super::expression::Expression;
use super::failure::{At, Failure, Fallible};
use super::field::Field;
use super::message::Message;
use super::sequence::Key;
use super::session::Session;
use super::suggestion;
use super::value;
use crate::wire;

/// One of several things that are shown of each value.
pub struct Column {
    /// As it was written: the header of a table, the key in JSON.
    pub name: String,
    key: Key,
}

impl Column {
    /// Reads one. Errors: as of an expression.
    pub fn read(engine: &Engine, text: &str) -> Result<Self, Failure> {
        let name = text.trim().to_owned();
        let key = Key::compile(engine, &name)?;
        Ok(Self { name, key })
    }

    /// Its value; `now` in milliseconds since the Unix epoch. Errors: there is no such field; the expression fails.
    pub fn of(&self, engine: &Engine, item: &Dynamic, now: i64) -> Fallible<Dynamic> {
        let unplaced = |failure: Failure| failure.at_position(rhai::Position::NONE);
        match &self.key {
            Key::Expression(expression) => {
                let session = super::sequence::session(item).map_err(unplaced)?;
                expression.evaluate(engine, &session, now)
            }
            _ => value::field(item, &self.name, now).map_err(unplaced),
        }
    }
}

/// The parts of a text between commas that stand outside of brackets and quotes.
pub fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut quote, mut begin) = (0_usize, None, 0);
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"' | '\''), '\\') => {
                letters.next();
            }
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`' | '\'') => quote = Some(letter),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(text[begin..at].trim());
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(text[begin..].trim());
    parts
}

/// The fields that `--json=FIELDS` names; none if there are none.
pub fn split_fields(text: &str) -> Vec<String> {
    split(text).into_iter().filter(|field| !field.is_empty()).map(str::to_owned).collect()
}

/// Whether a text is just a name.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What `--json=FIELDS` leaves of a value: of a session, an agent, a message, a row, a map these fields, of a list
/// those of each. Other values stay as they are. Errors: as of a column.
pub fn pick(engine: &Engine, fields: &[String], item: &Dynamic, now: i64) -> Fallible<Value> {
    if let Some(list) = value::items(item).map_err(|failure| failure.at_position(rhai::Position::NONE))? {
        return list.iter().map(|item| pick(engine, fields, item, now)).collect();
    }
    // A row of `end` shows the session that it is about.
    let inner = item.read_lock::<DoneRow>().and_then(|row| row.ended().cloned()).map(Dynamic::from);
    let item = inner.as_ref().unwrap_or(item);
    let Value::Object(object) = value::to_json(item) else { return Ok(value::to_json(item)) };
    let mut picked = Map::new();
    for name in fields {
        let found = match object.get(name) {
            Some(value) => value.clone(),
            None if is_name(name) && is_known_key(item, name) => Value::Null,
            None => value::to_json(
                &Column::read(engine, name)
                    .map_err(|failure| failure.at_position(rhai::Position::NONE))?
                    .of(engine, item, now)?,
            ),
        };
        picked.insert(name.clone(), found);
    }
    Ok(Value::Object(picked))
}

/// Whether it is a key that JSON has only where there is a value.
fn is_known_key(item: &Dynamic, name: &str) -> bool {
    match item.is::<Session>() {
        true => wire::Field::ALL.iter().any(|field| field.as_str() == name),
        // A map's keys, and those of an `{id, error}`, are its own affair.
        false => item.is_map() || item.is::<DoneRow>(),
    }
}

/// Refuses fields that nothing has, before something is done whose result couldn't be shown then.
pub fn check(engine: &Engine, fields: &[String]) -> Result<(), Failure> {
    let others = ["duration_ms", "environment_keys", "required_secrets", "text"];
    let known: Vec<&str> = Field::ALL
        .into_iter()
        .map(Field::name)
        .chain(wire::Field::ALL.iter().map(|field| field.as_str()))
        .chain(Agent::FIELDS)
        .chain(Message::FIELDS)
        .chain(DoneRow::FIELDS)
        .chain(others)
        .collect();
    for field in fields {
        if !is_name(field) {
            Expression::compile(engine, field)?;
        } else if !known.contains(&field.as_str()) {
            let hint = suggestion::did_you_mean(field, known.iter().copied());
            return Err(Failure::Usage {
                message: format!("nothing has a field `{field}`"),
                hint: Some(hint.unwrap_or_else(|| {
                    let names: Vec<&str> = Field::ALL.into_iter().map(Field::name).collect();
                    format!("Fields of a session: {}.", names.join(", "))
                })),
            });
        }
    }
    Ok(())
}

/// Expressions as text, taken apart.
#[export_module]
pub mod column_functions {
    /// The parts of a text between commas: names of fields, or expressions over a session's fields. Each can be a column of
    /// `table`, or what `map` asks for. Errors: an unknown field, a comparison that could never hold.
    ///
    /// ```rhai
    /// table(list(), columns("short_id, title.shorten(20), idle > 2.hours"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn columns(ctx: NativeCallContext, text: &str) -> Fallible<Array> {
        let mut columns = Array::new();
        for part in split(text) {
            if part.is_empty() {
                return Err(Failure::Usage {
                    message: format!("there is nothing to show in `{text}`"),
                    hint: Some("Write fields or expressions with commas between: short_id, title.".into()),
                }
                .at(&ctx));
            }
            Expression::compile(ctx.engine(), part).at(&ctx)?;
            columns.push(part.into());
        }
        Ok(columns)
    }

    /// The names of the session's fields that an expression asks for. Errors: an unknown field, a comparison that could
    /// never hold.
    ///
    /// ```rhai
    /// print(fields_of("status == \"idle\" && idle > 2.hours"));   // ["idle", "status"]
    /// ```
    #[rhai_fn(return_raw)]
    pub fn fields_of(ctx: NativeCallContext, expression: &str) -> Fallible<Array> {
        let compiled = Expression::compile(ctx.engine(), expression).at(&ctx)?;
        Ok(compiled.fields().map(|field| field.name().into()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commas_divide_outside_of_brackets_and_quotes() {
        for (text, parts) in [
            ("id", vec!["id"]),
            ("id, title", vec!["id", "title"]),
            ("[id, title], f(a, b) ,x", vec!["[id, title]", "f(a, b)", "x"]),
            (r#""a,\"b", `c,d`, 'e'"#, vec![r#""a,\"b""#, "`c,d`", "'e'"]),
            ("#{ a: 1, b: 2 }", vec!["#{ a: 1, b: 2 }"]),
            ("", vec![""]),
            ("id,", vec!["id", ""]),
        ] {
            assert_eq!(split(text), parts, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_but_commas_and_blanks(text in "[a-c,\"'`(){}\\[\\]\\\\ é]{0,20}") {
            let rest: String = text.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
            let kept: String = split(&text).concat().chars().filter(|c| !matches!(c, ',' | ' ')).collect();
            prop_assert_eq!(kept, rest);
        }
    }
}
