//! The command line: typed arguments, decided settings, dispatch; the only owner of the terminal.

mod command;
mod complete;
mod connection;
mod contexts;
mod doctor;
mod error;
mod fullscreen;
mod help;
mod hidden;
mod init;
mod login;
mod manual;
mod repl;
mod scripts;
mod server;
mod shell;
mod test;
mod ui;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use command::{Globals, Invocation};
use error::Report;
use scripts::Catalog;
use ui::{Colour, Ui};

use crate::config::{self, Config, SandboxChoice};
use crate::daemon::Serve;
use crate::render;
use crate::script::header::{Header, HeaderError};
use crate::script::{
    self, Access, Args, Engine, Host, Interrupt, Limits, Outcome, Place, Script, Terminal, mark,
    on_script_thread, read_at_most, read_text, sentence,
};
use crate::wire::Timestamp;

/// Runs the command that was typed; the exit code.
pub fn run(args: Vec<OsString>) -> i32 {
    let config = Config::load();
    // Even a broken configuration must leave `--help` and `--version`.
    let catalog = Catalog::load(config.as_ref().map_or(Path::new("/nonexistent"), |config| &config.scripts));
    if args.get(1).is_some_and(|word| word == complete::WORD) {
        // A shell's completions have nobody to tell an error to.
        let answer = complete::answer(config.ok(), &catalog, args.get(2..).unwrap_or_default());
        return Ui::new(Colour::Never).out(&answer).map_or(1, |()| 0);
    }
    run_with(args, config, &catalog)
}

fn run_with(args: Vec<OsString>, config: Result<Config, config::Error>, catalog: &Catalog) -> i32 {
    let json = args
        .iter()
        .any(|word| word == "--json" || word.to_str().is_some_and(|word| word.starts_with("--json=")));
    let program = args.first().cloned().unwrap_or_default();
    let (globals, invocation) = match command::parse(catalog, args) {
        Ok(parsed) => parsed,
        Err(error) => return told(&error, json),
    };
    if let Invocation::Help(words) = invocation {
        return match words.iter().find(|word| word.starts_with('-')) {
            Some(word) => Report::usage(format!("there is no command '{word}'"), "See superserve --help.")
                .tell(&Ui::new(globals.colour), json),
            None => {
                let words = words.into_iter().map(OsString::from);
                let args = std::iter::once(program).chain(words).chain(["--help".into()]);
                run_with(args.collect(), config, catalog)
            }
        };
    }
    let ui = Ui::new(globals.colour);
    let json = globals.options.json;
    let config = match config {
        Ok(config) => config,
        Err(error) => return Report::from(&error).tell(&ui, json),
    };
    dispatch(config, catalog, globals, invocation, &ui).unwrap_or_else(|report| report.tell(&ui, json))
}

fn dispatch(
    config: Config,
    catalog: &Catalog,
    globals: Globals,
    invocation: Invocation,
    ui: &Ui,
) -> server::Result {
    let json = globals.options.json;
    let dry_run = globals.options.dry_run;
    let given = login::Given {
        config: &config,
        choice: &globals.choice,
        terminal: ui,
        json,
        fields: &globals.fields,
        dry_run,
    };
    let out = |text: &str| ui.out(text).map(|()| 0).map_err(|error| Report::io(&error));
    match invocation {
        Invocation::AuthStatus => login::status(&given),
        Invocation::Context(command) => login::context(&given, command),
        Invocation::Login { api_key } => login::login(&given, api_key),
        Invocation::Logout => login::logout(&given),
        Invocation::Tokens(command) => login::tokens(&given, command),
        Invocation::Completions(shell) => match complete::Shell::named(&shell.to_string()) {
            Some(shell) => out(shell.script()),
            None => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut command::tree(catalog), "superserve", &mut text);
                out(&String::from_utf8_lossy(&text))
            }
        },
        Invocation::Eval(expression) => {
            scripted(config, globals, None, move |engine| engine.eval(&expression), Report::without_own_place)
        }
        Invocation::Doctor => doctor::doctor(&config, ui, json, &globals.fields),
        // It was told before the settings were looked at.
        Invocation::Help(_) => Ok(0),
        Invocation::HelpFunctions { name, markdown } => {
            let form = match (json, markdown) {
                (true, _) => help::Form::Json(&globals.fields),
                (false, true) => help::Form::Markdown,
                (false, false) => help::Form::Text,
            };
            help::functions(&config, ui, name.as_deref(), form)
        }
        Invocation::HelpMan { folder } => help::man(command::tree(catalog), ui, folder.as_deref(), dry_run),
        Invocation::Init { name, folder } => {
            let made = init::init(name.as_deref(), &folder, &config.search_path, dry_run)?;
            init::tell(&made, ui, json.then_some(&globals.fields), dry_run)
        }
        Invocation::Repl => on_engine(config, globals, None, move |engine, terminal, config| {
            repl::run(engine, terminal, &config.history(), json)
        }),
        Invocation::Script { name, args } => {
            let Some(command) = catalog.find(&name) else {
                return Err(Report::usage(format!("there is no command '{name}'"), "See superserve --help."));
            };
            if let Err(error) = &command.header {
                return Err(bad_header(&command.script, error));
            }
            let (script, sandbox) = (command.script.clone(), sandbox_of(&args)?);
            let is_bundled = command.is_bundled;
            let mut globals = globals;
            if is_bundled {
                // Whoever types a path to one of ours means it, wherever it leads.
                globals.allow_paths.push("/".into());
            }
            let place = if is_bundled { Report::without_place } else { Report::whole };
            let run = move |engine: &mut Engine| {
                if is_bundled {
                    engine.check_fields()?;
                }
                engine.run(&script, args)
            };
            scripted(config, globals, sandbox, run, place)
        }
        Invocation::ScriptFile { file, rest } => {
            let (script, header) = read_script(&file)?;
            let header = header.map_err(|error| bad_header(&script, &error))?;
            let parsed = command::parse_file(&script.name, &header, rest, globals);
            let (globals, args) = match parsed {
                Ok(parsed) => parsed,
                Err(error) => return Ok(told(&error, json)),
            };
            let sandbox = sandbox_of(&args)?;
            scripted(config, globals, sandbox, move |engine| engine.run(&script, args), Report::whole)
        }
        Invocation::ScriptCheck(files) => check(config, globals, files),
        Invocation::ScriptsCopy { name, force } => {
            let copied = scripts::copy(catalog, &config.scripts, &name, force, dry_run)?;
            if json {
                return out(&render::pretty(
                    &serde_json::json!({ "name": copied.name, "path": copied.path }),
                ));
            }
            let path = copied.path.display();
            if dry_run {
                return out(&format!("would copy {} to {path}\n", copied.name));
            }
            ui.err(&format!(
                "{} Copied to {path}, which is what superserve {} runs now\n",
                mark(ui, true),
                copied.name
            ));
            Ok(0)
        }
        Invocation::ScriptsList => {
            let style = render::Style {
                width: ui.width(),
                colour: ui.out_colour(),
                truncate: !globals.options.no_trunc,
                now: Timestamp::from_millis(config.clock.now_millis()),
            };
            out(&list(catalog, json, &globals.fields, &style))
        }
        Invocation::ScriptsPath(name) => {
            let path = match name {
                None => config.scripts.clone(),
                Some(name) => scripts::path(catalog, &name)?,
            };
            if json {
                return out(&render::pretty(&serde_json::json!({ "path": path })));
            }
            out(&format!("{}\n", path.display()))
        }
        Invocation::ScriptsShow(name) => match catalog.find(&name) {
            Some(command) => out(&command.script.text),
            None => Err(scripts::not_found(catalog, &name)),
        },
        Invocation::Serve { socket, log_format, sandbox, listen, public_url, origins } => {
            login::local_only(&globals.choice, "serve")?;
            let mut config = config;
            config.log_format = log_format.unwrap_or(config.log_format);
            config.public_url = public_url.or(config.public_url);
            if !origins.is_empty() {
                config.cors = origins;
            }
            server::serve(config, sandbox, &Serve { socket, listen, ..Serve::default() })
        }
        Invocation::ServerBackup(file) => server::backup(&given, &file),
        Invocation::ServerGc => server::collect(&given),
        Invocation::ServerLogs { lines } => {
            login::local_only(&globals.choice, "server logs")?;
            server::logs(&config, ui, lines)
        }
        Invocation::ServerStart { sandbox } => {
            login::local_only(&globals.choice, "server start")?;
            server::start(&config, ui, sandbox, dry_run)
        }
        Invocation::ServerStatus => server::status(&given),
        Invocation::ServerStop => {
            login::local_only(&globals.choice, "server stop")?;
            server::stop(&config, ui, dry_run)
        }
        Invocation::Test { paths, filter } => test::run(config, catalog, globals, &paths, filter),
    }
}

/// Help and version to stdout; a wrong use to stderr, in our voice.
fn told(error: &clap::Error, json: bool) -> i32 {
    told_on(&Ui::new(Colour::Auto), error, json)
}

fn told_on(ui: &dyn Terminal, error: &clap::Error, json: bool) -> i32 {
    if !error.use_stderr() {
        let text = error.render();
        let text = if ui.out_colour() { text.ansi().to_string() } else { text.to_string() };
        return ui.out(&text).map_or_else(|error| Report::io(&error).tell(ui, json), |()| 0);
    }
    let text = error.render();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ui.err(&if ui.err_colour() { text.ansi().to_string() } else { text.to_string() });
        return error::USAGE;
    }
    let text = text.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
    let hint = rest.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    Report::usage(message, hint).tell(ui, json)
}

/// Runs a script and tells its error; the exit code.
fn scripted(
    config: Config,
    globals: Globals,
    sandbox: Option<SandboxChoice>,
    work: impl FnOnce(&mut Engine) -> Result<Outcome, script::Error> + Send + 'static,
    place: fn(Report) -> Report,
) -> server::Result {
    let json = globals.options.json;
    on_engine(config, globals, sandbox, move |engine, terminal, _| {
        match work({
            engine.is_last();
            engine
        }) {
            Ok(Outcome::Done) => 0,
            Ok(Outcome::Exit(code)) => code,
            Err(error) => place(Report::from(&error)).tell(terminal, json),
        }
    })
}

/// Gives `work` an engine on a thread of its own, while Ctrl-C reaches it; a second Ctrl-C ends the program.
fn on_engine(
    config: Config,
    globals: Globals,
    sandbox: Option<SandboxChoice>,
    work: impl FnOnce(&mut Engine, &dyn Terminal, &Config) -> i32 + Send + 'static,
) -> server::Result {
    let interrupt = Interrupt::default();
    connection::watch_signals(interrupt.clone(), globals.allow_sh);
    let way = connection::Way::new(&config, &globals.choice)?.with_sandbox(sandbox)?;
    let access = access(&config, &globals)?;
    let limits = limits(&globals);
    on_script_thread(move || {
        let ui = Rc::new(Ui::new(globals.colour));
        let terminal: Rc<dyn Terminal> = ui.clone();
        let mut engine = Engine::new(Host {
            connection: Rc::new(connection::Route { way, terminal: terminal.clone() }),
            terminal: terminal.clone(),
            shell: Rc::new(shell::LocalShell),
            access,
            clock: config.clock.clone(),
            options: globals.options,
            fields: globals.fields.into(),
            interrupt,
            limits,
            env: Rc::new(config::environment),
        });
        let code = work(&mut engine, terminal.as_ref(), &config);
        // What a script printed without a final newline is still in the buffer.
        let _ = std::io::stdout().flush();
        // The program ends: what a script has left is given back to the system, but for what is drawn.
        ui.clear_bar();
        std::mem::forget(engine);
        code
    })
    .map_err(|error| Report::io(&error))
}

/// Where scripts are stopped.
fn limits(globals: &Globals) -> Limits {
    let standard = Limits::default();
    Limits {
        operations: globals.max_operations.unwrap_or(standard.operations),
        time: globals.max_time,
        memory: globals.max_memory.unwrap_or(standard.memory),
        ..standard
    }
}

/// What scripts may touch. Error: a folder that is allowed isn't there.
fn access(config: &Config, globals: &Globals) -> Result<Access, Report> {
    let allowed = |path: &PathBuf| {
        path.canonicalize().map_err(|error| {
            Report::usage(
                format!("--allow-path {}: {}", path.display(), sentence(&error)),
                "Give a folder that is there.",
            )
        })
    };
    Ok(Access {
        // One that is gone is told by the first function that needs it.
        folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        paths: globals.allow_paths.iter().map(allowed).collect::<Result<_, _>>()?,
        modules: vec![config.scripts.clone()],
        sh: globals.allow_sh,
    })
}

/// Tells what is wrong in scripts, without running them; the exit code.
fn check(config: Config, globals: Globals, files: Vec<PathBuf>) -> server::Result {
    let json = globals.options.json;
    let mut scripts = Vec::new();
    let mut found = Vec::new();
    for file in files {
        match read_script(&file) {
            Ok((script, header)) => scripts.push((script, header)),
            Err(report) => found.push(report),
        }
    }
    on_engine(config, globals, None, move |engine, terminal, _| {
        for (script, header) in scripts {
            let args = match header {
                Ok(header) => command::no_args(&header),
                Err(error) => {
                    found.push(bad_header(&script, &error));
                    // Whatever it declares may be meant well.
                    Args::default()
                }
            };
            found.extend(engine.check(&script, args).iter().map(Report::from));
        }
        let code = if found.is_empty() { 0 } else { error::FAILED };
        if json {
            let found: Vec<serde_json::Value> = found.iter().map(Report::to_value).collect();
            return terminal
                .out(&render::escape_json(&render::pretty(&found)))
                .map_or_else(|error| Report::io(&error).exit, |()| code);
        }
        for report in &found {
            report.tell(terminal, false);
        }
        code
    })
}

/// A script that declares `@option sandbox` decides how the server is started, if its command starts one.
fn sandbox_of(args: &Args) -> Result<Option<SandboxChoice>, Report> {
    let Args::Named(args) = args else { return Ok(None) };
    let Some(script::Arg::Text(Some(word))) = args.get("sandbox") else { return Ok(None) };
    SandboxChoice::from_word(word).map(Some).ok_or_else(|| {
        Report::usage(
            format!("'{word}' is no kind of sandbox"),
            format!("Use {}.", SandboxChoice::WORDS.join(", ")),
        )
    })
}

/// Reads a script's file, or stdin for `-`, and its header.
fn read_script(file: &Path) -> Result<(Script, Result<Header, HeaderError>), Report> {
    let most = Limits::default().text as u64;
    let is_stdin = file == Path::new("-");
    let read = if is_stdin { read_at_most(std::io::stdin().lock(), most) } else { read_text(file, most) };
    let name = if is_stdin { "stdin".to_owned() } else { file.display().to_string() };
    let text = read.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Report::usage(format!("cannot use the script {name}: {error}"), "A script is text in UTF-8.")
        }
        kind => Report {
            exit: if kind == std::io::ErrorKind::NotFound { error::NOT_FOUND } else { error::FAILED },
            code: if kind == std::io::ErrorKind::NotFound { "not_found" } else { "io" },
            ..Report::usage(
                format!("cannot read the script {name}: {}", sentence(&error)),
                "superserve scripts list shows the scripts that are commands; a file needs its path.",
            )
        },
    })?;
    let path = (!is_stdin).then(|| file.to_owned());
    let script = Script { name, path, text: Cow::Owned(text) };
    let header = Header::parse(&script.text);
    Ok((script, header))
}

fn bad_header(script: &Script, error: &HeaderError) -> Report {
    let source = script.text.lines().nth(error.line.saturating_sub(1)).map(str::to_owned);
    let place = Place { file: script.name.clone(), line: error.line, column: 1, source };
    Report {
        place: Some(place),
        ..Report::usage(
            error.message.clone(),
            "superserve scripts show sessions list is an example of a header.",
        )
    }
}

fn list(catalog: &Catalog, json: bool, fields: &[String], style: &render::Style) -> String {
    let file = |command: &scripts::Command| {
        if command.is_bundled { "bundled".to_owned() } else { command.script.name.clone() }
    };
    if json {
        let rows: Vec<serde_json::Value> = catalog
            .commands()
            .iter()
            .map(|command| {
                serde_json::json!({
                    "name": command.name(),
                    "about": command.summary(),
                    "bundled": command.is_bundled,
                    "path": command.script.path,
                })
            })
            .collect();
        return render::escape_json(&render::pretty(&render::only(rows.into(), fields))).into_owned();
    }
    let rows: Vec<Vec<String>> = catalog
        .commands()
        .iter()
        .map(|command| vec![command.name(), file(command), command.summary()])
        .collect();
    render::rows(&["Command", "Runs", "About"], &rows, style)
}
