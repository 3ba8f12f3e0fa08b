//! What a script says: values, tables, JSON, lines on stdout and stderr.

use std::ops::ControlFlow;

use rhai::plugin::*;
use rhai::{AST, Array, Engine, EvalAltResult, Map, Module, NativeCallContext, Position, Scope, Stmt};
use serde_json::Value;

use super::agents::{Agent, Agents};
use super::column::{self, Column};
use super::ending::{Done, DoneRow};
use super::failure::{At, Failure, Fallible};
use super::message::Message;
use super::runtime::Runtime;
use super::sequence::Source as _;
use super::session::Session;
use super::sessions::Sessions;
use super::stream::Stream;
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

/// Prints a value as JSON; of sessions and the like only the fields that `--json=FIELDS` names.
pub fn json(engine: &Engine, runtime: &Runtime, value: &Dynamic) -> Fallible<()> {
    runtime.out_json(&json_text(engine, runtime, value)?).map_err(unplaced)
}

fn json_text(engine: &Engine, runtime: &Runtime, value: &Dynamic) -> Fallible<String> {
    value::look(value).map_err(unplaced)?;
    let fields = &runtime.host().fields;
    let json = match fields.is_empty() {
        true => value::to_json(value),
        false => column::pick(engine, fields, value, runtime.now())?,
    };
    Ok(render::pretty(&json))
}

fn unplaced(failure: Failure) -> Box<EvalAltResult> {
    failure.at_position(Position::NONE)
}

/// With the place of this call, if it has none of its own.
fn placed<T>(ctx: &NativeCallContext, result: Fallible<T>) -> Fallible<T> {
    result.map_err(|mut error| {
        if error.position().is_none() {
            error.set_position(ctx.call_position());
        }
        error
    })
}

/// Prints what `eval` and the REPL show of a value; `from` is what it came from.
pub fn show(engine: &Engine, runtime: &Runtime, from: &AST, value: &Dynamic) -> Fallible<()> {
    if !value.is::<Stream>() {
        return show_value(engine, runtime, value);
    }
    // What a stream calls on its way needs a call to come from, and the functions around it.
    let mut scope = Scope::new();
    scope.push_dynamic("stream", value.clone());
    let call = engine.compile_with_scope(&scope, "show(stream)")?;
    let imports = from.statements().iter().filter(|statement| matches!(statement, Stmt::Import(..)));
    let mut whole =
        AST::new(imports.cloned(), Module::new()).merge(&from.clone_functions_only()).merge(&call);
    whole.set_source(from.source().unwrap_or_default());
    engine.run_ast_with_scope(&mut scope, &whole)
}

fn show_value(engine: &Engine, runtime: &Runtime, value: &Dynamic) -> Fallible<()> {
    if runtime.options().json {
        return json(engine, runtime, value);
    }
    if value.is_unit() {
        return Ok(());
    }
    let out = |text: &str| runtime.out(text).map_err(unplaced);
    if let Some(session) = value.read_lock::<Session>() {
        return out(&render::session(&session.0.to_wire(), &runtime.style()));
    }
    if let Some(agent) = value.read_lock::<Agent>() {
        return out(&render::agent(agent.wire(), &runtime.style()));
    }
    if let Some(message) = value.read_lock::<Message>() {
        return out(&render::message(&message.0));
    }
    if let Some(nothing) = nothing(value).map_err(unplaced)? {
        runtime.err(nothing);
        return Ok(());
    }
    if is_list(value) {
        return table(engine, runtime, value, None);
    }
    if let Some(array) = value.read_lock::<Array>().filter(|array| is_grid(array)) {
        let lines: Vec<Vec<String>> = array.iter().map(cells_of_array).collect();
        return out(&render::grid(&lines, runtime.style().room()));
    }
    if let Some(map) = value.read_lock::<Map>().filter(|map| !map.is_empty() && map.values().all(is_list)) {
        return show_groups(engine, runtime, &map);
    }
    if value.is_array() || value.is_map() {
        return json(engine, runtime, value);
    }
    if value.is_fnptr() {
        return out("a function\n");
    }
    let text = match value.read_lock::<Failure>() {
        Some(failure) => failure.to_string(),
        None => value::to_text(value),
    };
    runtime.out_text(&format!("{text}\n")).map_err(unplaced)
}

/// What is said of a list that has nothing in it.
fn nothing(value: &Dynamic) -> Result<Option<&'static str>, Failure> {
    let told = match value {
        value if value.is::<Sessions>() => "No sessions.\n",
        value if value.is::<Agents>() => "No agents.\n",
        value if value.is::<Done>() => "Nothing was ended.\n",
        _ => return Ok(None),
    };
    Ok(value::items(value)?.is_some_and(|items| items.is_empty()).then_some(told))
}

/// Whether it is shown as a table.
fn is_list(value: &Dynamic) -> bool {
    let is_row = |row: &Dynamic| {
        row.is::<Session>() || row.is::<Message>() || row.is::<Agent>() || row.is::<DoneRow>() || row.is_map()
    };
    let is_rows = value.read_lock::<Array>().is_some_and(|array| {
        let first = array.first().map(Dynamic::type_id);
        first.is_some() && array.iter().all(|row| is_row(row) && Some(row.type_id()) == first)
    });
    is_rows || value.is::<Sessions>() || value.is::<Agents>() || value.is::<Done>() || value.is::<DoneRow>()
}

/// Whether it is rows of as many plain values each.
fn is_grid(array: &Array) -> bool {
    let width = |row: &Dynamic| {
        let cells = row.read_lock::<Array>()?;
        cells.iter().all(|cell| !cell.is_array() && !cell.is_map() && !is_list(cell)).then_some(cells.len())
    };
    let first = array.first().and_then(width).filter(|width| *width > 0);
    first.is_some() && array.iter().all(|row| width(row) == first)
}

/// Each list below its key.
fn show_groups(engine: &Engine, runtime: &Runtime, groups: &Map) -> Fallible<()> {
    for (place, (name, list)) in groups.iter().enumerate() {
        let blank = if place > 0 { "\n" } else { "" };
        let count = value::items(list).map_err(unplaced)?.map_or(1, |items| items.len());
        runtime.out(&format!("{blank}{} ({count})\n", render::clean_line(name))).map_err(unplaced)?;
        show_value(engine, runtime, list)?;
    }
    Ok(())
}

/// How many values of a stream are shown at once: any number must fit into memory.
const CHUNK: usize = 1000;

/// A stream's values as they come: sessions as a table, other values a line each, or as JSON.
fn show_stream(ctx: &NativeCallContext, stream: &Stream) -> Fallible<()> {
    let runtime = &Runtime::of(ctx)?;
    let mut shown = 0;
    let mut chunk = Array::new();
    stream.walk(ctx, &mut |value| {
        chunk.push(value);
        if chunk.len() >= CHUNK {
            show_chunk(ctx.engine(), runtime, &mut chunk, &mut shown)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    show_chunk(ctx.engine(), runtime, &mut chunk, &mut shown)?;
    match (runtime.options().json, shown) {
        (true, 0) => runtime.out("[]\n").map_err(unplaced),
        (true, _) => runtime.out("\n]\n").map_err(unplaced),
        (false, 0) => {
            let what = if stream.is_of_sessions() { "No sessions.\n" } else { "Nothing.\n" };
            runtime.err(what);
            Ok(())
        }
        (false, _) => Ok(()),
    }
}

fn show_chunk(engine: &Engine, runtime: &Runtime, chunk: &mut Array, shown: &mut usize) -> Fallible<()> {
    if chunk.is_empty() {
        return Ok(());
    }
    let is_first = *shown == 0;
    *shown += chunk.len();
    let values = Dynamic::from(std::mem::take(chunk));
    if runtime.options().json {
        let text = json_text(engine, runtime, &values)?;
        let inner = text.trim_end().trim_start_matches('[').trim_end_matches(']').trim_end();
        let text = format!("{}{inner}", if is_first { "[" } else { "," });
        return runtime.out(&text).map_err(unplaced);
    }
    if is_list(&values) {
        let text = table_text(engine, runtime, &values, None)?;
        // The header stands once.
        let rows = if is_first { text.as_str() } else { text.split_once('\n').map_or("", |(_, rows)| rows) };
        return runtime.out(rows).map_err(unplaced);
    }
    for value in values.read_lock::<Array>().iter().flat_map(|values| values.iter()) {
        runtime.out_text(&format!("{}\n", value::to_text(value))).map_err(unplaced)?;
    }
    Ok(())
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

/// The columns of `agents list` where the last one is asked for; else it stands there only if it has something to say.
const AGENT_COLUMNS: [&str; 6] = ["name", "id", "revision", "command", "updated_at", "deps_status"];

/// Agents as `agents list` shows them, if that is what is asked for.
fn agent_list(runtime: &Runtime, items: &[Dynamic], columns: Option<&[String]>) -> Option<String> {
    if columns.is_some_and(|columns| !columns.iter().eq(AGENT_COLUMNS.iter())) {
        return None;
    }
    let agents: Option<Vec<crate::wire::Agent>> =
        items.iter().map(|item| Some(item.read_lock::<Agent>()?.wire().clone())).collect();
    let agents = agents.filter(|agents| !agents.is_empty())?;
    Some(render::agents(&agents, &runtime.style(), columns.is_some()))
}

/// Prints rows as a table; as JSON if `--json` was given.
pub fn table(engine: &Engine, runtime: &Runtime, rows: &Dynamic, columns: Option<Array>) -> Fallible<()> {
    runtime.out(&table_text(engine, runtime, rows, columns)?).map_err(unplaced)
}

/// Rows as a table, or as JSON if `--json` was given; of none nothing.
pub fn table_text(
    engine: &Engine,
    runtime: &Runtime,
    rows: &Dynamic,
    columns: Option<Array>,
) -> Fallible<String> {
    let columns = columns
        .map(|columns| {
            columns
                .into_iter()
                .map(|column| {
                    column.into_string().map_err(|_| Failure::script("a column's name must be text"))
                })
                .collect::<Result<Vec<String>, _>>()
        })
        .transpose()
        .map_err(unplaced)?;
    let now = runtime.now();
    let items: Vec<Dynamic> = if let Some(items) = value::items(rows).map_err(unplaced)? {
        items
    } else if rows.is_map() || rows.is::<Session>() || rows.is::<Agent>() || rows.is::<DoneRow>() {
        vec![rows.clone()]
    } else {
        return Err(unplaced(Failure::hinted(
            format!("{} can't be shown as a table", value::type_name(rows)),
            "A table's rows are sessions, agents, maps or arrays.",
        )));
    };
    let style = runtime.style();
    let read = |names: Vec<String>| {
        let read = names.iter().map(|name| Column::read(engine, name)).collect::<Result<Vec<_>, _>>();
        read.map_err(unplaced)
    };
    let listed = session_list(runtime, &items, columns.as_deref())
        .or_else(|| agent_list(runtime, &items, columns.as_deref()));
    if runtime.options().json {
        let picks = !runtime.host().fields.is_empty();
        let Some(columns) = columns.filter(|_| listed.is_none() && !picks) else {
            return json_text(engine, runtime, &Dynamic::from(items));
        };
        let columns = read(columns)?;
        let cut = items.iter().map(|item| {
            let row = columns
                .iter()
                .map(|column| Ok((column.name.clone(), value::to_json(&column.of(engine, item, now)?))));
            row.collect::<Fallible<serde_json::Map<_, _>>>().map(Value::Object)
        });
        let cut = cut.collect::<Fallible<Vec<_>>>()?;
        return Ok(render::pretty(&cut));
    }
    if items.is_empty() {
        return Ok(String::new());
    }
    if let Some(text) = listed {
        return Ok(text);
    }
    let Some(columns) = columns.or_else(|| default_columns(&items)) else {
        let lines: Vec<Vec<String>> = items.iter().map(cells_of_array).collect();
        let Some((first, rest)) = lines.split_first() else { return Ok(String::new()) };
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        return Ok(render::rows(&first, rest, &style));
    };
    let columns = read(columns)?;
    let lines = items
        .iter()
        .map(|item| {
            columns
                .iter()
                .map(|column| match column.of(engine, item, now) {
                    // A map that lacks a column has an empty cell there.
                    Err(_) if item.is_map() => Ok(String::new()),
                    field => field.map(|value| value::to_text(&value)),
                })
                .collect::<Fallible<Vec<_>>>()
        })
        .collect::<Fallible<Vec<_>>>()?;
    let header: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    Ok(render::rows(&header, &lines, &style))
}

/// What these columns are of a session, as text.
pub fn row_texts(
    engine: &Engine,
    runtime: &Runtime,
    session: &Session,
    columns: &Array,
) -> Fallible<Vec<String>> {
    let row = row(engine, runtime, session, columns)?;
    Ok(row.into_iter().map(|(_, value)| value::to_text(&value)).collect())
}

/// A session as JSON: these columns, or those that `--json=FIELDS` names, or all that is known.
pub fn row_json(
    engine: &Engine,
    runtime: &Runtime,
    session: &Session,
    columns: Option<&Array>,
) -> Fallible<Value> {
    let fields = &runtime.host().fields;
    let item = Dynamic::from(session.clone());
    if !fields.is_empty() {
        return column::pick(engine, fields, &item, runtime.now());
    }
    let Some(columns) = columns else { return Ok(value::to_json(&item)) };
    let row = row(engine, runtime, session, columns)?;
    Ok(Value::Object(row.into_iter().map(|(name, value)| (name, value::to_json(&value))).collect()))
}

fn row(
    engine: &Engine,
    runtime: &Runtime,
    session: &Session,
    columns: &Array,
) -> Fallible<Vec<(String, Dynamic)>> {
    let (item, now) = (Dynamic::from(session.clone()), runtime.now());
    columns
        .iter()
        .map(|column| {
            let column = Column::read(engine, &value::to_text(column)).map_err(unplaced)?;
            let value = column.of(engine, &item, now)?;
            Ok((column.name, value))
        })
        .collect()
}

/// The same for a script.
pub fn print_table(ctx: &NativeCallContext, rows: &Dynamic, columns: Option<Array>) -> Fallible<()> {
    placed(ctx, table(ctx.engine(), &Runtime::of(ctx)?, rows, columns))
}

/// So many sessions are shown of those that something is planned for.
const PREVIEWED: usize = 10;

/// Shows on stderr which sessions are meant.
fn preview(runtime: &Runtime, sessions: &Sessions) -> Result<(), Failure> {
    let list = sessions.load()?;
    let shown: Vec<crate::wire::Session> =
        list.iter().take(PREVIEWED).map(|session| session.0.to_wire()).collect();
    if !shown.is_empty() {
        let terminal = &runtime.host().terminal;
        let style = render::Style { colour: terminal.err_colour(), ..runtime.style() };
        terminal.err(&render::sessions(&shown, &style, true));
    }
    match list.iter().count().saturating_sub(PREVIEWED) {
        0 => {}
        more => runtime.err(&format!("... and {more} more\n")),
    }
    Ok(())
}

/// The columns of rows that have no list of their own.
fn default_columns(items: &[Dynamic]) -> Option<Vec<String>> {
    let fixed = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    let first = items.first()?;
    if first.is::<Message>() {
        fixed(&["at", "role", "content"])
    } else if first.is::<DoneRow>() {
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
    /// Prints a value as `eval` shows it: a session, an agent or a message with all that is known of it, lists, streams and
    /// groups as tables, text as it is, `()` not at all. With `--json` prints it as JSON instead.
    ///
    /// ```rhai
    /// show(get("5a3f"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn show(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        match value.read_lock::<Stream>() {
            Some(stream) => show_stream(&ctx, &stream),
            None => super::placed(&ctx, show_value(ctx.engine(), &Runtime::of(&ctx)?, &value)),
        }
    }

    /// Prints rows as a table: sessions and agents with the columns of their lists, maps with a column a key, arrays as
    /// they are, the first as the header. With `--json` prints them as JSON instead. Error: they are no rows.
    ///
    /// ```rhai
    /// table(list(#{ status: "idle" }));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn table(ctx: NativeCallContext, rows: Dynamic) -> Fallible<()> {
        super::print_table(&ctx, &rows, None)
    }

    /// Prints these columns of the rows: names of fields, of sessions also expressions over them, and `last_active`, as in
    /// `2 minutes ago`. Error: a row has no such field.
    ///
    /// ```rhai
    /// table(list(), ["short_id", "title.upper()", "idle"]);
    /// ```
    #[rhai_fn(name = "table", volatile, return_raw)]
    pub fn table_of(ctx: NativeCallContext, rows: Dynamic, columns: Array) -> Fallible<()> {
        super::print_table(&ctx, &rows, Some(columns))
    }

    /// Prints a value as JSON, with two spaces. Sessions have the keys of `sessions list --json`; a duration is text. With
    /// `--json=FIELDS` sessions, agents, messages and maps have those fields alone.
    ///
    /// ```rhai
    /// json(list().count_by("status"));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn json(ctx: NativeCallContext, value: Dynamic) -> Fallible<()> {
        super::placed(&ctx, super::json(ctx.engine(), &Runtime::of(&ctx)?, &value))
    }

    /// Shows on stderr which sessions something is planned for: the first ten as `sessions list` shows them, and how many
    /// more there are.
    ///
    /// ```rhai
    /// let idle = list(#{ status: "idle" });
    /// preview(idle);
    /// if confirm(`End ${idle.len} sessions?`) { idle.end(); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn preview(ctx: NativeCallContext, sessions: Sessions) -> Fallible<()> {
        super::preview(&Runtime::of(&ctx)?, &sessions).at(&ctx)
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

    /// The columns of the terminal that stdout is; `()` if it is none, and nothing needs to be fitted.
    ///
    /// ```rhai
    /// let columns = terminal_width() ?? 80;
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn terminal_width(ctx: NativeCallContext) -> Fallible<Dynamic> {
        let width = Runtime::of(&ctx)?.host().terminal.width();
        Ok(width.and_then(|width| i64::try_from(width).ok()).map_or(Dynamic::UNIT, Dynamic::from_int))
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
            let json = serde_json::json!({ "error": error.to_json() }).to_string();
            terminal.err(&format!("{}\n", render::escape_json(&json)));
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
