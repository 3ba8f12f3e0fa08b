//! What a script says: values, tables, JSON, lines on stdout and stderr.

use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};
use serde_json::Value;

use super::agents::{Agent, Agents};
use super::ending::Done;
use super::failure::{At, Failure, Fallible};
use super::message::Message;
use super::runtime::Runtime;
use super::session::Session;
use super::sessions::Sessions;
use super::value;
use crate::render;
use crate::script::Terminal;

/// JSON with two spaces.
pub fn pretty(value: &Value) -> String {
    render::pretty(value).trim_end().to_owned()
}

/// What a line on stderr begins with that tells of something done, or failed.
pub fn mark(terminal: &dyn Terminal, done: bool) -> &'static str {
    match (done, terminal.err_colour()) {
        (true, true) => "\u{1b}[32m✓\u{1b}[0m",
        (true, false) => "✓",
        (false, true) => "\u{1b}[31m✗\u{1b}[0m",
        (false, false) => "✗",
    }
}

/// Prints a value as JSON.
pub fn json(runtime: &Runtime, value: &Dynamic) -> Result<(), Failure> {
    value::look(value)?;
    runtime.out(&render::pretty(&value::to_json(value)))
}

/// Prints what `eval` and the REPL show of a value.
pub fn show(runtime: &Runtime, value: &Dynamic) -> Result<(), Failure> {
    if runtime.options().json {
        return json(runtime, value);
    }
    if value.is_unit() {
        return Ok(());
    }
    if let Some(session) = value.read_lock::<Session>() {
        return runtime.out(&render::session(&session.0.to_wire(), &runtime.style()));
    }
    if let Some(agent) = value.read_lock::<Agent>() {
        return runtime.out(&render::agent(agent.wire(), &runtime.style()));
    }
    if let Some(message) = value.read_lock::<Message>() {
        return runtime.out(&render::message(&message.0));
    }
    let is_rows = value.read_lock::<Array>().is_some_and(|array| {
        !array.is_empty()
            && array.iter().all(|row| row.is::<Session>() || row.is::<Message>() || row.is_map())
    });
    if is_rows || value.is::<Sessions>() || value.is::<Agents>() || value.is::<Done>() {
        return table(runtime, value, None);
    }
    if value.is_array() || value.is_map() {
        return json(runtime, value);
    }
    runtime.out_text(&format!("{}\n", value::to_text(value)))
}

/// The columns of `sessions list`; without the second they are of one agent.
const SESSION_COLUMNS: [&str; 6] = ["short_id", "agent", "title", "status", "message_count", "last_active"];

/// Sessions as `sessions list` shows them, if that is what is asked for.
fn session_list(runtime: &Runtime, items: &[Dynamic], columns: Option<&[String]>) -> Option<String> {
    let without_agent = SESSION_COLUMNS.iter().filter(|name| **name != "agent");
    let agent_column = match columns {
        None => true,
        Some(columns) if columns.iter().eq(SESSION_COLUMNS.iter()) => true,
        Some(columns) if columns.iter().eq(without_agent) => false,
        Some(_) => return None,
    };
    let sessions: Option<Vec<crate::wire::Session>> =
        items.iter().map(|item| Some(item.read_lock::<Session>()?.0.to_wire())).collect();
    let sessions = sessions.filter(|sessions| !sessions.is_empty())?;
    Some(render::sessions(&sessions, &runtime.style(), agent_column))
}

/// Prints rows as a table; as JSON if `--json` was given.
pub fn table(runtime: &Runtime, rows: &Dynamic, columns: Option<Array>) -> Result<(), Failure> {
    let columns = columns
        .map(|columns| {
            columns
                .into_iter()
                .map(|column| {
                    column.into_string().map_err(|_| Failure::script("a column's name must be text"))
                })
                .collect::<Result<Vec<String>, _>>()
        })
        .transpose()?;
    let now = runtime.now();
    let items: Vec<Dynamic> = if let Some(sessions) = rows.read_lock::<Sessions>() {
        sessions.load()?.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(agents) = rows.read_lock::<Agents>() {
        agents.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(done) = rows.read_lock::<Done>() {
        done.iter().cloned().map(Dynamic::from).collect()
    } else if let Some(array) = rows.read_lock::<Array>() {
        array.clone()
    } else if rows.is_map() || rows.is::<Session>() || rows.is::<Agent>() {
        vec![rows.clone()]
    } else {
        return Err(Failure::hinted(
            format!("{} can't be shown as a table", value::type_name(rows)),
            "A table's rows are sessions, agents, maps or arrays.",
        ));
    };
    let listed = session_list(runtime, &items, columns.as_deref());
    if runtime.options().json {
        let Some(columns) = columns.filter(|_| listed.is_none()) else {
            return json(runtime, &Dynamic::from(items));
        };
        let cut = items.iter().map(|item| {
            let row = columns.iter().map(|name| Ok((name.into(), value::field(item, name, now)?)));
            row.collect::<Result<Map, Failure>>().map(Dynamic::from)
        });
        return json(runtime, &Dynamic::from(cut.collect::<Result<Array, _>>()?));
    }
    if items.is_empty() {
        return Ok(());
    }
    if let Some(text) = listed {
        return runtime.out(&text);
    }
    let agents: Option<Vec<crate::wire::Agent>> = match &columns {
        None => items.iter().map(|item| Some(item.read_lock::<Agent>()?.wire().clone())).collect(),
        Some(_) => None,
    };
    if let Some(agents) = agents {
        return runtime.out(&render::agents(&agents, &runtime.style()));
    }
    let Some(columns) = columns.or_else(|| default_columns(&items)) else {
        let lines: Vec<Vec<String>> = items.iter().map(cells_of_array).collect();
        let Some((first, rest)) = lines.split_first() else { return Ok(()) };
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        return runtime.out(&render::rows(&first, rest));
    };
    let lines = items
        .iter()
        .map(|item| {
            columns
                .iter()
                .map(|name| match value::field(item, name, now) {
                    // A map that lacks a column has an empty cell there.
                    Err(_) if item.is_map() => Ok(String::new()),
                    field => field.map(|value| value::to_text(&value)),
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let header: Vec<&str> = columns.iter().map(String::as_str).collect();
    runtime.out(&render::rows(&header, &lines))
}

/// The columns of rows that have no list of their own.
fn default_columns(items: &[Dynamic]) -> Option<Vec<String>> {
    let fixed = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    let first = items.first()?;
    if first.is::<Message>() {
        fixed(&["at", "role", "content"])
    } else if first.is::<super::ending::DoneRow>() {
        fixed(&["id", "ok", "error"])
    } else if first.is_map() {
        let mut names: Vec<String> = Vec::new();
        for item in items {
            for key in item.read_lock::<Map>()?.keys() {
                if !names.iter().any(|name| name == key.as_str()) {
                    names.push(key.to_string());
                }
            }
        }
        Some(names)
    } else {
        None
    }
}

fn cells_of_array(item: &Dynamic) -> Vec<String> {
    match item.read_lock::<Array>() {
        Some(cells) => cells.iter().map(value::to_text).collect(),
        None => vec![value::to_text(item)],
    }
}

/// What a script says.
#[export_module]
pub mod output_functions {
    /// Prints a value as `eval` shows it: a session, an agent or a message with all that is known of it, lists as tables,
    /// text as it is, `()` not at all. With `--json` prints it as JSON instead.
    ///
    /// ```rhai
    /// show(get("5a3f"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn show(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        super::show(&Runtime::of(&ctx)?, &value).at(&ctx)
    }

    /// Prints rows as a table: sessions and agents with the columns of their lists, maps with a column a key, arrays as
    /// they are, the first as the header. With `--json` prints them as JSON instead.
    ///
    /// ```rhai
    /// table(list(#{ status: "idle" }));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn table(ctx: NativeCallContext, rows: Dynamic) -> Fallible<()> {
        super::table(&Runtime::of(&ctx)?, &rows, None).at(&ctx)
    }

    /// Prints these columns of the rows: names of fields; of sessions also `last_active`, as in `2 minutes ago`. Error: a row has no such field.
    ///
    /// ```rhai
    /// table(list(), ["short_id", "title", "idle"]);
    /// ```
    #[rhai_fn(name = "table", volatile, return_raw)]
    pub fn table_of(ctx: NativeCallContext, rows: Dynamic, columns: Array) -> Fallible<()> {
        super::table(&Runtime::of(&ctx)?, &rows, Some(columns)).at(&ctx)
    }

    /// Prints a value as JSON, with two spaces. Sessions have the keys of `sessions list --json`; a duration is text.
    ///
    /// ```rhai
    /// json(list().count_by("status"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn json(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        super::json(&Runtime::of(&ctx)?, &value).at(&ctx)
    }

    /// Prints a line on stdout. On a terminal the text loses escape sequences and control characters.
    ///
    /// ```rhai
    /// print(`${list().len} sessions`);
    /// ```
    pub fn print(ctx: NativeCallContext, value: Dynamic) -> String {
        // The engine writes what a function of this name gives.
        text_of(&ctx, &value)
    }

    /// Prints a line on stderr.
    ///
    /// ```rhai
    /// warn("nothing to do");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn warn(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        let text = text_of(&ctx, &value);
        Runtime::of(&ctx)?.err(&format!("{text}\n"));
        Ok(())
    }

    /// Prints a line with a check mark on stderr: something was done.
    ///
    /// ```rhai
    /// success("all sessions are ended");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn success(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        let text = render::clean_line(&text_of(&ctx, &value));
        let terminal = &Runtime::of(&ctx)?.host().terminal.clone();
        let mark = mark(terminal.as_ref(), true);
        terminal.err(&format!("{mark} {text}\n"));
        Ok(())
    }

    /// Prints a line with a cross on stderr: something failed, and the script goes on. An error that was caught is told
    /// with its hint; with `--json` as JSON.
    ///
    /// ```rhai
    /// for row in end(["ffff"]).failed { failure(row.error); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn failure(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        let runtime = Runtime::of(&ctx)?;
        let terminal = &runtime.host().terminal;
        let error = value.read_lock::<Failure>().map(|error| error.clone());
        if let Some(error) = error.as_ref().filter(|_| runtime.options().json) {
            terminal.err(&format!("{}\n", serde_json::json!({ "error": error.to_json() })));
            return Ok(());
        }
        let mark = mark(terminal.as_ref(), false);
        terminal.err(&format!("{mark} {}\n", render::clean_line(&text_of(&ctx, &value))));
        if let Some(hint) = error.as_ref().and_then(Failure::hint_text) {
            terminal.err(&format!("  {}\n", render::clean_line(hint)));
        }
        Ok(())
    }
}

/// A value as `print` shows it: as its type prints itself.
fn text_of(ctx: &NativeCallContext, value: &Dynamic) -> String {
    ctx.call_native_fn::<rhai::ImmutableString>("to_string", (value.clone(),))
        .map_or_else(|_| value::to_text(value), |text| text.to_string())
}
