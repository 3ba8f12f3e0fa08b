//! The command line as clap sees it: built from the scripts' headers and the commands that can't be scripts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::contexts::Choice;
use super::login::{ContextCommand, Tokens};
use super::scripts::{self, Catalog};
use super::ui::Colour;
use crate::config::{self, LogFormat, SandboxChoice};
use crate::daemon::Listen;
use crate::script::header::{Header, Kind};
use crate::script::{self, Arg as Value, Args, Options};
use crate::wire::Secret;

/// The flags that belong to every command.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    pub options: Options,
    /// What `--json=FIELDS` names.
    pub fields: Vec<String>,
    pub colour: Colour,
    /// Which server to speak to.
    pub choice: Choice,
    /// `--allow-sh`.
    pub allow_sh: bool,
    /// `--allow-path`, each.
    pub allow_paths: Vec<PathBuf>,
    pub max_time: Option<Duration>,
    pub max_operations: Option<u64>,
    /// In bytes.
    pub max_memory: Option<u64>,
}

/// What was typed.
#[derive(Clone, Debug)]
pub enum Invocation {
    AuthStatus,
    Completions(clap_complete::Shell),
    Context(ContextCommand),
    Doctor,
    Eval(String),
    /// `help sessions list`, which is `sessions list --help`.
    Help(Vec<String>),
    HelpFunctions {
        name: Option<String>,
        markdown: bool,
    },
    HelpMan {
        folder: Option<PathBuf>,
    },
    Init {
        /// The agent's, if not the folder's.
        name: Option<String>,
        folder: PathBuf,
    },
    Login {
        api_key: Option<Secret>,
    },
    Logout,
    Repl,
    /// A command that is a script, by its name.
    Script {
        name: String,
        args: Args,
    },
    /// `script FILE`, whose own header reads the rest.
    ScriptFile {
        file: PathBuf,
        rest: Vec<OsString>,
    },
    /// `script --check FILE…`.
    ScriptCheck(Vec<PathBuf>),
    ScriptsCopy {
        name: String,
        force: bool,
    },
    ScriptsList,
    ScriptsPath(Option<String>),
    ScriptsShow(String),
    Serve {
        socket: Option<PathBuf>,
        log_format: Option<LogFormat>,
        sandbox: Option<SandboxChoice>,
        listen: Option<Listen>,
        public_url: Option<String>,
        origins: Vec<String>,
    },
    ServerBackup(PathBuf),
    ServerGc,
    ServerLogs {
        lines: usize,
    },
    ServerStart {
        sandbox: Option<SandboxChoice>,
    },
    ServerStatus,
    ServerStop,
    Test {
        /// Files of tests, and folders of them.
        paths: Vec<PathBuf>,
        /// What a test's name must contain.
        filter: Option<String>,
    },
    Tokens(Tokens),
}

/// What the groups are for.
const GROUPS: [(&str, &str); 3] = [
    ("agents", "Deployed agents"),
    ("ops", "Small scripts over many sessions, made to be copied"),
    ("sessions", "Conversations with agents"),
];

/// The whole tree of commands.
pub fn tree(catalog: &Catalog) -> Command {
    let mut root = Command::new("superserve")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A scriptable shell for AI-agent sessions")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .args(globals());
    let mut groups: BTreeMap<&str, Vec<&scripts::Command>> = BTreeMap::new();
    for command in catalog.commands() {
        groups.entry(&command.words[0]).or_default().push(command);
    }
    for (name, commands) in groups {
        root = root.subcommand(group(name, &commands, 0));
    }
    root.subcommands(fixed())
}

/// The command `name`, or the group of that name; the commands' words up to `depth` are those above it.
/// A name may be both: a user's `run/fast.rhai` must not take `run` away.
fn group(name: &str, commands: &[&scripts::Command], depth: usize) -> Command {
    let (own, below): (Vec<_>, Vec<_>) =
        commands.iter().copied().partition(|command| command.words.len() == depth + 1);
    let tree = Command::new(name.to_owned());
    let mut tree = match own.first().map(|command| (command, &command.header)) {
        Some((_, Ok(header))) => with_header(tree, header),
        Some((command, Err(_))) => tree.about(command.summary()),
        None => {
            let about = GROUPS.iter().find(|(group, _)| *group == name);
            tree.about(about.map_or("Your own commands", |(_, about)| about))
                .subcommand_required(true)
                .arg_required_else_help(true)
        }
    };
    if !own.is_empty() && !below.is_empty() {
        tree = tree.subcommand_negates_reqs(true).args_conflicts_with_subcommands(true);
    }
    let mut groups: BTreeMap<&str, Vec<&scripts::Command>> = BTreeMap::new();
    for command in below {
        groups.entry(&command.words[depth + 1]).or_default().push(command);
    }
    for (name, commands) in groups {
        tree = tree.subcommand(group(name, &commands, depth + 1));
    }
    tree
}

/// A group: without one of its commands it only shows its help.
pub fn needs_one(command: Command) -> Command {
    command.subcommand_required(true).arg_required_else_help(true)
}

/// The commands that can't be scripts.
fn fixed() -> [Command; 16] {
    let sandbox = || {
        Arg::new("sandbox")
            .long("sandbox")
            .value_name("KIND")
            .value_parser(PossibleValuesParser::new(SandboxChoice::WORDS))
            .help("How agents are isolated")
    };
    [
        super::login::auth_command(),
        Command::new("completions").about("Print a completion script for a shell").arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(clap_complete::Shell)),
        ),
        super::login::context_command(),
        Command::new("doctor").about("Tell what this machine gives superserve, and what is missing"),
        Command::new("eval")
            .about("Evaluate an expression and print its value")
            .arg(Arg::new("expression").value_name("EXPR").required(true).allow_hyphen_values(true))
            .after_help("Examples:\n  superserve eval 'list().filter(|s| s.idle > 2.hours)'"),
        help(),
        Command::new("init")
            .about("Make a folder an agent: write its superserve.yaml, and a small agent where there is none")
            .arg(
                Arg::new("name")
                    .value_name("NAME")
                    .help("What to call the agent: a-z, 0-9 and -; the folder's name if not given"),
            )
            .arg(
                Arg::new("dir")
                    .long("dir")
                    .value_name("DIR")
                    .default_value(".")
                    .hide_default_value(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("The folder, which is made if it isn't there; the current one if not given"),
            )
            .after_help("Examples:\n  superserve init\n  superserve init my-agent --dir my-agent"),
        super::login::login_command(),
        super::login::logout_command(),
        Command::new("repl").about("Read expressions line by line and print their values"),
        Command::new("script")
            .about("Run a script; its header says which arguments it takes")
            .override_usage("superserve script [OPTIONS] <FILE> [ARGS]...\n       superserve script --check <FILE>...")
            .arg(
                Arg::new("check")
                    .long("check")
                    .action(ArgAction::SetTrue)
                    .help("Tell what is wrong in the files, and run nothing"),
            )
            // One list with the file: all that follows it, `--help` too, is read by the file's own header.
            .arg(
                Arg::new("words")
                    .value_name("FILE")
                    .help("The script, and its arguments; - reads it from stdin")
                    .required(true)
                    .num_args(1..)
                    .trailing_var_arg(true)
                    .value_parser(value_parser!(OsString)),
            ),
        needs_one(Command::new("scripts").about("Which commands are scripts, and their text"))
            .subcommand(
                Command::new("copy")
                    .about("Copy a bundled command's script into your scripts folder, where it goes before the bundled one")
                    .arg(Arg::new("name").value_name("NAME").required(true).num_args(1..))
                    .arg(
                        Arg::new("force")
                            .long("force")
                            .action(ArgAction::SetTrue)
                            .help("Replace the copy that is there"),
                    ),
            )
            .subcommand(
                Command::new("list").about("List the commands that are scripts, and which file each runs"),
            )
            .subcommand(
                Command::new("path")
                    .about("Print the path of your scripts folder, or of the file that a command runs")
                    .arg(Arg::new("name").value_name("NAME").num_args(1..)),
            )
            .subcommand(
                Command::new("show")
                    .about("Print a command's script")
                    .arg(Arg::new("name").value_name("NAME").required(true).num_args(1..)),
            ),
        Command::new("serve")
            .about("Serve in the foreground")
            .arg(
                Arg::new("socket")
                    .long("socket")
                    .value_name("PATH")
                    .value_parser(value_parser!(PathBuf))
                    .help("Listen on this Unix socket instead of the home's own"),
            )
            .args(listening())
            .arg(
                Arg::new("log-format")
                    .long("log-format")
                    .value_name("FORMAT")
                    .value_parser(PossibleValuesParser::new(LogFormat::WORDS))
                    .help("Write the log so, instead of as the setting log.format says"),
            )
            .arg(sandbox()),
        needs_one(Command::new("server").about("The local server, which starts itself"))
            .subcommand(
                Command::new("backup").about("Copy the database and the agents' code into a .tar.gz").arg(
                    Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)),
                ),
            )
            .subcommand(
                Command::new("gc")
                    .about("Let go of what is past its time: old events, sessions that ended long ago, code and folders that nobody needs"),
            )
            .subcommand(
                Command::new("logs").about("Print the end of the server's log").arg(
                    Arg::new("lines")
                        .short('n')
                        .long("lines")
                        .value_name("N")
                        .default_value("100")
                        .value_parser(value_parser!(usize))
                        .help("How many lines"),
                ),
            )
            .subcommand(Command::new("start").about("Start the server unless it runs").arg(sandbox()))
            .subcommand(Command::new("status").about("Show whether a server runs; starts none"))
            .subcommand(Command::new("stop").about("Stop the server; sessions stay")),
        Command::new("test")
            .about("Run the tests in scripts: each test_ function in a world of its own")
            .arg(
                Arg::new("paths")
                    .value_name("FILE")
                    .required(true)
                    .num_args(1..)
                    .value_parser(value_parser!(PathBuf))
                    .help("Files of tests, or folders of them"),
            )
            .arg(
                Arg::new("filter")
                    .long("filter")
                    .value_name("TEXT")
                    .help("Only the tests whose name contains this"),
            )
            .after_help(
                "Examples:\n  superserve test tests/\n  superserve test tidy_test.rhai --filter dry_run",
            ),
        super::login::tokens_command(),
    ]
}

/// How a server lets others in.
fn listening() -> [Arg; 6] {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .requires("listen")
            .help(help)
    };
    [
        Arg::new("listen")
            .long("listen")
            .value_name("HOST:PORT")
            .help("Let others in here too: with a token, over HTTP"),
        file("tls-cert", "The certificate with its chain, in PEM: others come over HTTPS")
            .requires("tls-key"),
        file("tls-key", "The certificate's key, in PEM").requires("tls-cert"),
        Arg::new("insecure")
            .long("insecure")
            .action(ArgAction::SetTrue)
            .requires("listen")
            .conflicts_with("tls-cert")
            .help("Let others in without TLS, and let everybody in between read along"),
        Arg::new("public-url")
            .long("public-url")
            .value_name("URL")
            .requires("listen")
            .value_parser(|text: &str| config::url(text).ok_or("write it like https://agents.example.com"))
            .help("How others reach it, if not by the address where it listens"),
        Arg::new("cors-origin")
            .long("cors-origin")
            .value_name("ORIGIN")
            .requires("listen")
            .action(ArgAction::Append)
            .value_parser(|text: &str| {
                config::origins(text)
                    .filter(|found| found.len() == 1)
                    .map(|_| text.to_owned())
                    .ok_or("write it like https://app.example.com")
            })
            .help("Let pages of this origin use it; may be repeated"),
    ]
}

fn help() -> Command {
    Command::new("help")
        .about("Tell how a command is used, or what scripts can call")
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .help("The command's words; none: all commands in short"),
        )
        .subcommand(
            Command::new("functions")
                .about("Tell what scripts can call")
                .arg(
                    Arg::new("name")
                        .value_name("FUNCTION")
                        .help("A function, a field, a type or a module: all that is known of it"),
                )
                .arg(
                    Arg::new("markdown")
                        .long("markdown")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("name")
                        .help("Everything as a page in Markdown"),
                )
                .after_help(
                    "Examples:\n  superserve help functions\n  superserve help functions filter\n  \
                     superserve help functions Session.idle",
                ),
        )
        .subcommand(
            Command::new("man")
                .about("Write the man pages of all commands, or print the main one")
                .arg(
                    Arg::new("folder")
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("The folder to write them to; without one the main page is printed"),
                )
                .after_help(
                    "Examples:\n  superserve help man ~/.local/share/man/man1\n  superserve help man | man -l -",
                ),
        )
        .after_help("Examples:\n  superserve help sessions list")
}

fn globals() -> [Arg; 12] {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .global(true)
            .help(help)
            .help_heading("Everywhere")
    };
    [
        Arg::new("json")
            .long("json")
            .value_name("FIELDS")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("")
            .global(true)
            .help("Print JSON; with fields or expressions, divided by commas, these alone")
            .help_heading("Everywhere"),
        flag("dry-run", "Tell what would be changed, and change nothing"),
        flag("yes", "Answer every question with yes").short('y'),
        flag("no-trunc", "Show titles whole"),
        Arg::new("color")
            .long("color")
            .value_name("WHEN")
            .global(true)
            .value_parser(["auto", "always", "never"])
            .default_value("auto")
            .help("When to use colours")
            .help_heading("Everywhere"),
        Arg::new("context")
            .long("context")
            .value_name("NAME")
            .global(true)
            .help("Speak to this server: a context's name, or local")
            .help_heading("Everywhere"),
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .global(true)
            .help("Speak to the server at this URL")
            .help_heading("Everywhere"),
        permission("allow-sh", "Let the script run other programs: sh()").action(ArgAction::SetTrue),
        permission("allow-path", "Let the script read and write files in this folder too; / is everything")
            .value_name("DIR")
            .action(ArgAction::Append)
            .value_parser(value_parser!(PathBuf)),
        permission("max-time", "Stop the script after this time, like 30s or 5m")
            .value_name("DURATION")
            .value_parser(|text: &str| humantime::parse_duration(text).map_err(|error| error.to_string())),
        permission("max-operations", "Stop the script after so many steps [default: 500000000]")
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..)),
        permission("max-memory", "Stop the script when it holds so much memory, like 512M [default: 2G]")
            .value_name("SIZE")
            .value_parser(size),
    ]
}

/// What a script may touch and take. Seldom needed, and so told by `--help` alone, not by `-h`.
fn permission(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .global(true)
        .help(help)
        .help_heading("What a script may do")
        .hide_short_help(true)
}

/// A size in bytes: `512M`, `2G`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        unit => return Err(format!("'{unit}' is no unit: use K, M or G")),
    };
    let number: u64 = digits.parse().map_err(|_| "it is no size; write it like 512M or 2G".to_owned())?;
    number
        .checked_mul(1 << shift)
        .filter(|size| *size > 0)
        .ok_or_else(|| "it is no size that can be".to_owned())
}

/// A command with what a script's header declares.
fn with_header(command: Command, header: &Header) -> Command {
    let mut command = command.about(header.summary().to_owned());
    if header.about.lines().count() > 1 {
        command = command.long_about(header.about.clone());
    }
    if !header.examples.is_empty() {
        command = command.after_help(format!("Examples:\n  {}", header.examples.join("\n  ")));
    }
    for argument in &header.arguments {
        let mut arg = Arg::new(argument.name.clone()).help(argument.about.clone());
        arg = match &argument.kind {
            Kind::Flag => arg.long(argument.name.clone()).action(ArgAction::SetTrue),
            Kind::Option(value) => arg
                .long(argument.name.clone())
                .value_name(value.clone())
                // `--sort -message_count` is an expression too.
                .allow_hyphen_values(value == "EXPR"),
            Kind::Positional { required, many } => {
                let arg = arg.value_name(argument.value_name()).required(*required);
                if *many { arg.num_args(if *required { 1.. } else { 0.. }) } else { arg }
            }
        };
        if let Some(short) = argument.short {
            arg = arg.short(short);
        }
        command = command.arg(arg);
    }
    command
}

/// What was typed, by the tree of commands.
pub fn parse(catalog: &Catalog, args: Vec<OsString>) -> Result<(Globals, Invocation), clap::Error> {
    let matches = tree(catalog).try_get_matches_from(args)?;
    let mut words: Vec<&str> = Vec::new();
    let mut leaf = &matches;
    while let Some((word, below)) = leaf.subcommand() {
        words.push(word);
        leaf = below;
    }
    let text = |name: &str| leaf.get_one::<String>(name).cloned().unwrap_or_default();
    let name = || leaf.get_many::<String>("name").unwrap_or_default().cloned().collect::<Vec<_>>().join(" ");
    let sandbox = || SandboxChoice::from_word(&text("sandbox"));
    let invocation = match words.as_slice() {
        ["auth", "status"] => Invocation::AuthStatus,
        ["context", command] => Invocation::Context(super::login::read_context(command, leaf)),
        ["login"] => {
            Invocation::Login { api_key: leaf.get_one::<String>("api-key").cloned().map(Secret::new) }
        }
        ["logout"] => Invocation::Logout,
        ["tokens", command] => Invocation::Tokens(super::login::read_tokens(command, leaf)),
        ["completions"] => {
            Invocation::Completions(leaf.get_one("shell").copied().unwrap_or(clap_complete::Shell::Bash))
        }
        ["doctor"] => Invocation::Doctor,
        ["eval"] => Invocation::Eval(text("expression")),
        ["help"] => {
            Invocation::Help(leaf.get_many::<String>("command").unwrap_or_default().cloned().collect())
        }
        ["help", "functions"] => Invocation::HelpFunctions {
            name: leaf.get_one::<String>("name").cloned(),
            markdown: leaf.get_flag("markdown"),
        },
        ["help", "man"] => Invocation::HelpMan { folder: leaf.get_one::<PathBuf>("folder").cloned() },
        ["init"] => Invocation::Init {
            name: leaf.get_one::<String>("name").cloned(),
            folder: leaf.get_one::<PathBuf>("dir").cloned().unwrap_or_else(|| ".".into()),
        },
        ["repl"] => Invocation::Repl,
        ["script"] => {
            let mut words = leaf.get_many::<OsString>("words").unwrap_or_default().cloned();
            if leaf.get_flag("check") {
                let (flags, files) = without_header(words.collect());
                let typed = std::iter::once(OsString::from("superserve")).chain(flags);
                let matches =
                    Command::new("superserve script --check").args(globals()).try_get_matches_from(typed)?;
                let files = files.into_iter().map(PathBuf::from).collect();
                return Ok((read_globals(&matches).or(read_globals(leaf)), Invocation::ScriptCheck(files)));
            }
            Invocation::ScriptFile { file: words.next().unwrap_or_default().into(), rest: words.collect() }
        }
        ["scripts", "copy"] => Invocation::ScriptsCopy { name: name(), force: leaf.get_flag("force") },
        ["scripts", "list"] => Invocation::ScriptsList,
        ["scripts", "path"] => Invocation::ScriptsPath(Some(name()).filter(|name| !name.is_empty())),
        ["scripts", "show"] => Invocation::ScriptsShow(name()),
        ["serve"] => {
            let path = |name: &str| leaf.get_one::<PathBuf>(name).cloned();
            let listen = leaf.get_one::<String>("listen").map(|address| Listen {
                address: address.clone(),
                tls: path("tls-cert").zip(path("tls-key")),
                insecure: leaf.get_flag("insecure"),
            });
            Invocation::Serve {
                socket: path("socket"),
                log_format: LogFormat::from_word(&text("log-format")),
                sandbox: sandbox(),
                listen,
                public_url: leaf.get_one::<String>("public-url").cloned(),
                origins: leaf.get_many::<String>("cors-origin").unwrap_or_default().cloned().collect(),
            }
        }
        ["server", "backup"] => {
            Invocation::ServerBackup(leaf.get_one::<PathBuf>("file").cloned().unwrap_or_default())
        }
        ["server", "gc"] => Invocation::ServerGc,
        ["server", "logs"] => Invocation::ServerLogs { lines: leaf.get_one("lines").copied().unwrap_or(100) },
        ["server", "start"] => Invocation::ServerStart { sandbox: sandbox() },
        ["server", "status"] => Invocation::ServerStatus,
        ["server", "stop"] => Invocation::ServerStop,
        ["test"] => Invocation::Test {
            paths: leaf.get_many::<PathBuf>("paths").unwrap_or_default().cloned().collect(),
            filter: leaf.get_one::<String>("filter").cloned(),
        },
        words => {
            let name = words.join(" ");
            let header = catalog.find(&name).and_then(|command| command.header.as_ref().ok());
            let args = header.map(|header| named(header, leaf)).unwrap_or_default();
            Invocation::Script { name, args }
        }
    };
    Ok((read_globals(leaf), invocation))
}

/// The arguments of `script FILE`, by the file's own header. Flags of every script may stand among them.
pub fn parse_file(
    file: &str,
    header: &Header,
    rest: Vec<OsString>,
    before: Globals,
) -> Result<(Globals, Args), clap::Error> {
    let (rest, words) = if header.is_present { (rest, Vec::new()) } else { without_header(rest) };
    let typed = std::iter::once(OsString::from(file)).chain(rest);
    let matches = of_file(file, header).try_get_matches_from(typed)?;
    let globals = read_globals(&matches).or(before);
    let args = if header.is_present { named(header, &matches) } else { Args::List(words) };
    Ok((globals, args))
}

impl Globals {
    /// These, and where they say nothing those that stood before.
    fn or(self, before: Self) -> Self {
        Self {
            options: Options {
                dry_run: self.options.dry_run || before.options.dry_run,
                yes: self.options.yes || before.options.yes,
                json: self.options.json || before.options.json,
                no_trunc: self.options.no_trunc || before.options.no_trunc,
            },
            fields: if self.fields.is_empty() { before.fields } else { self.fields },
            colour: if self.colour == Colour::Auto { before.colour } else { self.colour },
            choice: if self.choice == Choice::default() { before.choice } else { self.choice },
            allow_sh: self.allow_sh || before.allow_sh,
            allow_paths: before.allow_paths.into_iter().chain(self.allow_paths).collect(),
            max_time: self.max_time.or(before.max_time),
            max_operations: self.max_operations.or(before.max_operations),
            max_memory: self.max_memory.or(before.max_memory),
        }
    }
}

/// `script FILE` as a command with the file's own header.
pub fn of_file(file: &str, header: &Header) -> Command {
    let usage = format!("superserve script {file}");
    let command = with_header(Command::new(usage.clone()).bin_name(usage.clone()), header).args(globals());
    if header.is_present {
        return command;
    }
    command
        .about("A script without a header: it takes any words")
        .override_usage(format!("{usage} [OPTIONS] [ARGS]..."))
}

/// The flags of every script, and the other words: any, since no header names them. After `--` all are words.
fn without_header(rest: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    const WITH_VALUES: [&str; 7] =
        ["--allow-path", "--color", "--context", "--max-memory", "--max-operations", "--max-time", "--url"];
    let (mut flags, mut words) = (Vec::new(), Vec::new());
    let mut rest = rest.into_iter();
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("--") => {
                words.extend(rest.by_ref().map(|word| word.to_string_lossy().into_owned()));
            }
            Some(name) if WITH_VALUES.contains(&name) => {
                flags.extend([Some(word), rest.next()].into_iter().flatten());
            }
            Some("--allow-sh" | "--dry-run" | "--help" | "--json" | "--no-trunc" | "--yes" | "-h" | "-y") => {
                flags.push(word)
            }
            Some(text)
                if text
                    .split_once('=')
                    .is_some_and(|(name, _)| name == "--json" || WITH_VALUES.contains(&name)) =>
            {
                flags.push(word);
            }
            _ => words.push(word.to_string_lossy().into_owned()),
        }
    }
    (flags, words)
}

fn read_globals(matches: &ArgMatches) -> Globals {
    Globals {
        options: Options {
            dry_run: matches.get_flag("dry-run"),
            yes: matches.get_flag("yes"),
            json: matches.contains_id("json"),
            no_trunc: matches.get_flag("no-trunc"),
        },
        fields: matches
            .get_one::<String>("json")
            .map(|fields| script::split_columns(fields))
            .unwrap_or_default(),
        colour: match matches.get_one::<String>("color").map(String::as_str) {
            Some("always") => Colour::Always,
            Some("never") => Colour::Never,
            _ => Colour::Auto,
        },
        choice: Choice {
            context: matches.get_one::<String>("context").cloned(),
            url: matches.get_one::<String>("url").cloned(),
        },
        allow_sh: matches.get_flag("allow-sh"),
        allow_paths: matches.get_many("allow-path").unwrap_or_default().cloned().collect(),
        max_time: matches.get_one("max-time").copied(),
        max_operations: matches.get_one("max-operations").copied(),
        max_memory: matches.get_one("max-memory").copied(),
    }
}

fn named(header: &Header, matches: &ArgMatches) -> Args {
    let value = |name: &str, kind: &Kind| match kind {
        Kind::Flag => Value::Flag(matches.get_flag(name)),
        Kind::Positional { many: true, .. } => {
            Value::Many(matches.get_many::<String>(name).unwrap_or_default().cloned().collect())
        }
        Kind::Option(_) | Kind::Positional { .. } => Value::Text(matches.get_one::<String>(name).cloned()),
    };
    let arguments = header.arguments.iter();
    Args::Named(arguments.map(|a| (a.name.replace('-', "_"), value(&a.name, &a.kind))).collect())
}

/// The arguments of a script when none is given: their names are what counts.
pub fn no_args(header: &Header) -> Args {
    if !header.is_present {
        return Args::default();
    }
    let value = |kind: &Kind| match kind {
        Kind::Flag => Value::Flag(false),
        Kind::Positional { many: true, .. } => Value::Many(Vec::new()),
        Kind::Option(_) | Kind::Positional { .. } => Value::Text(None),
    };
    let arguments = header.arguments.iter();
    Args::Named(arguments.map(|a| (a.name.replace('-', "_"), value(&a.kind))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<(Globals, Invocation), clap::Error> {
        let catalog = Catalog::load(std::path::Path::new("/nonexistent"));
        let words = line.split_whitespace().map(OsString::from);
        parse(&catalog, std::iter::once("superserve".into()).chain(words).collect())
    }

    #[test]
    fn what_can_not_be_a_script_is_known_by_name() {
        assert_eq!(fixed().map(|command| command.get_name().to_owned()), scripts::NOT_SCRIPTS);
    }

    #[test]
    fn the_tree_is_sound() {
        tree(&Catalog::load(std::path::Path::new("/nonexistent"))).debug_assert();
    }

    #[test]
    fn flags_of_every_command_stand_before_or_after_it() {
        for line in ["--json sessions list", "sessions --json list", "sessions list --json"] {
            let (globals, invocation) = typed(line).expect(line);
            assert!(globals.options.json, "{line}");
            assert!(
                matches!(invocation, Invocation::Script { name, .. } if name == "sessions list"),
                "{line}"
            );
        }
        assert!(!typed("sessions list").expect("a command").0.options.json);
    }

    #[test]
    fn a_dash_and_many_ids_are_arguments() {
        let (_, invocation) = typed("sessions end 5a3f @last -").expect("a command");
        let Invocation::Script { args: Args::Named(args), .. } = invocation else { panic!("{invocation:?}") };
        assert_eq!(args["id"], Value::Many(vec!["5a3f".into(), "@last".into(), "-".into()]));
    }

    #[test]
    fn an_unknown_command_is_refused_with_2() {
        assert_eq!(typed("sessions lst").expect_err("a typo").exit_code(), 2);
        assert_eq!(typed("sessions get").expect_err("no ID").exit_code(), 2);
    }

    fn file(header: &str, words: &[&str]) -> Result<(Globals, Args), clap::Error> {
        let header = Header::parse(header).expect("a header");
        parse_file("x.rhai", &header, words.iter().map(OsString::from).collect(), Globals::default())
    }

    #[test]
    fn what_follows_the_file_is_read_by_its_own_header() {
        for line in
            ["script x.rhai --help", "script x.rhai --json a", "script x.rhai -y", "script x.rhai -- a"]
        {
            let (globals, invocation) = typed(line).expect(line);
            let Invocation::ScriptFile { file, rest } = invocation else { panic!("{invocation:?}") };
            assert_eq!(file, PathBuf::from("x.rhai"));
            let expected: Vec<OsString> = line.split(' ').skip(2).map(OsString::from).collect();
            assert_eq!(rest, expected, "{line}");
            assert!(!globals.options.json, "{line}");
        }
        assert!(typed("script --json x.rhai").expect("a command").0.options.json);
        let help = file("//! Mine.\n//! @arg id  Which\n", &["--help"]).expect_err("help");
        assert!(!help.use_stderr() && help.to_string().contains("Which"), "{help}");
        let (globals, args) =
            file("//! Mine.\n//! @arg id...  Which\n", &["a", "--json", "-"]).expect("args");
        let Args::Named(args) = args else { panic!("{args:?}") };
        assert_eq!(args["id"], Value::Many(vec!["a".into(), "-".into()]));
        assert!(globals.options.json);
        assert_eq!(file("//! Mine.\n", &["--sing"]).expect_err("no such flag").exit_code(), 2);
    }

    #[test]
    fn a_script_without_a_header_takes_any_words_but_the_flags_of_every_script() {
        let words = ["a", "--dry-run", "-x", "--color", "never", "--name=b", "--", "--json"];
        let (globals, args) = file("print(1)", &words).expect("args");
        let Args::List(args) = args else { panic!("{args:?}") };
        assert_eq!(args, ["a", "-x", "--name=b", "--json"]);
        assert!(globals.options.dry_run && !globals.options.json);
        assert_eq!(globals.colour, Colour::Never);
        assert!(!file("print(1)", &["--help"]).expect_err("help").use_stderr());
        assert_eq!(file("print(1)", &["--color"]).expect_err("no value").exit_code(), 2);
    }

    #[test]
    fn colour_holds_before_and_after_the_command() {
        for line in
            ["--color never sessions list", "sessions --color never list", "sessions list --color=never"]
        {
            assert_eq!(typed(line).expect(line).0.colour, Colour::Never, "{line}");
        }
    }

    #[test]
    fn a_users_folder_beside_a_command_of_its_name_leaves_both() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("run")).expect("a folder");
        std::fs::write(folder.path().join("run/fast.rhai"), "//! Fast.\n//! @arg way\n").expect("a file");
        let catalog = Catalog::load(folder.path());
        tree(&catalog).debug_assert();
        let name = |line: &str| {
            let words = line.split_whitespace().map(OsString::from).collect();
            match parse(&catalog, words).expect(line).1 {
                Invocation::Script { name, args: Args::Named(args) } => (name, args),
                other => panic!("{other:?}"),
            }
        };
        let (fast, args) = name("superserve run fast x");
        assert_eq!((fast.as_str(), &args["way"]), ("run fast", &Value::Text(Some("x".into()))));
        let (run, args) = name("superserve run my-agent hello --single");
        assert_eq!((run.as_str(), &args["agent"]), ("run", &Value::Text(Some("my-agent".into()))));
        let words = ["superserve", "run"].map(OsString::from).to_vec();
        assert_eq!(parse(&catalog, words).expect_err("no agent").exit_code(), 2);
    }

    #[test]
    fn every_header_that_is_read_is_a_command() {
        use proptest::prelude::*;
        let name = "[a-d][-a-d0-9]{0,3}|help|version|command|json";
        let line = (
            prop::sample::select(vec!["arg", "option", "flag", "option -x", "flag -z", "example", "flag -Z"]),
            name,
            "|\\.\\.\\.|\\?|\\.\\.\\.\\?",
            "| <[A-Z|a-z .:%{}]{1,5}>",
            ".{0,9}",
        );
        let line = line
            .prop_map(|(tag, name, many, value, about)| format!("//! @{tag} {name}{many}{value} {about}\n"));
        let text =
            prop::collection::vec(line, 0..5).prop_map(|lines| format!("//! Mine.\n{}", lines.concat()));
        proptest!(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }, |(text in text)| {
            if let Ok(header) = Header::parse(&text) {
                of_file("x.rhai", &header).debug_assert();
                let help = of_file("x.rhai", &header).try_get_matches_from(["x", "--help"]);
                prop_assert!(!help.expect_err("help").use_stderr());
            }
        });
    }

    #[test]
    fn an_expression_and_the_flags_after_it() {
        let (globals, invocation) = typed("eval -1 --json").expect("an expression");
        assert!(matches!(invocation, Invocation::Eval(text) if text == "-1"));
        assert!(globals.options.json);
    }
}
