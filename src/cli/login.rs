//! `login`, `logout`, `auth status`, `context …` and `tokens …`: who this user is, and where.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::command::needs_one;
use super::connection::Way;
use super::contexts::{Choice, Contexts, LOCAL, Target, checked_url};
use super::error::{self, Report};
use super::server::{Result, block_on, would};
use crate::client::{self, Client};
use crate::config::Config;
use crate::render::{self, Style};
use crate::script::Terminal;
use crate::wire::auth::{DeviceAnswer, DeviceError, User};
use crate::wire::token::{CreateToken, NewToken};
use crate::wire::{ErrorCode, Scope, Secret, Timestamp, Token};

/// What was typed after `tokens`.
#[derive(Clone, Debug)]
pub enum Tokens {
    Create { name: String, expires: Option<Duration>, scope: Scope },
    List,
    Revoke(String),
    Approve { code: String, deny: bool, name: Option<String>, scope: Scope },
}

/// What was typed after `context`.
#[derive(Clone, Debug)]
pub enum ContextCommand {
    Add { name: String, url: String },
    List,
    Remove(String),
    Use(String),
}

fn word(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).required(true).help(help)
}

fn scope_arg() -> Arg {
    Arg::new("scope")
        .long("scope")
        .value_name("SCOPE")
        .value_parser(Scope::WORDS)
        .default_value("write")
        .help("What it may do: read looks on, write runs agents and ends sessions, admin does everything")
}

pub fn auth_command() -> Command {
    needs_one(Command::new("auth").about("Who you are at a server"))
        .subcommand(Command::new("status").about("Tell where you are logged in, and as whom"))
}

pub fn context_command() -> Command {
    needs_one(Command::new("context").about("The servers that you know, and the one that commands speak to"))
        .subcommand(
            Command::new("add")
                .about("Keep a server under a name")
                .arg(word("name", "NAME", "What to call it"))
                .arg(word("address", "URL", "Where it is"))
                .after_help("Examples:\n  superserve context add team https://agents.example.com"),
        )
        .subcommand(Command::new("list").about("List the servers that you know; a * marks the one in use"))
        .subcommand(
            Command::new("remove")
                .about("Forget a server, and the login there")
                .arg(word("name", "NAME", "Its name")),
        )
        .subcommand(Command::new("use").about("Have every command speak to this server").arg(word(
            "name",
            "NAME",
            "Its name; local is the server of this machine",
        )))
}

pub fn login_command() -> Command {
    Command::new("login")
        .about("Log in at a server: with a token, or by its owner's approval")
        .arg(
            Arg::new("api-key")
                .long("api-key")
                .value_name("KEY")
                .help("A token that its owner has given you; - asks for it unseen, or reads it from stdin"),
        )
        .after_help(
            "Examples:\n  superserve login --url https://agents.example.com\n  \
             superserve login --context team --api-key -",
        )
}

pub fn logout_command() -> Command {
    Command::new("logout").about("Forget the login at a server")
}

pub fn tokens_command() -> Command {
    needs_one(Command::new("tokens").about("What lets others into a server"))
        .subcommand(
            Command::new("approve")
                .about("Approve a login that shows this code")
                .arg(word("code", "CODE", "The code that the program shows"))
                .arg(Arg::new("deny").long("deny").action(ArgAction::SetTrue).help("Deny it instead"))
                .arg(Arg::new("name").long("name").value_name("NAME").help("What to call its token"))
                .arg(scope_arg()),
        )
        .subcommand(
            Command::new("create")
                .about("Make a token, and print it this once")
                .arg(word("name", "NAME", "What to call it: a person, a machine"))
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_name("DURATION")
                        .value_parser(|text: &str| {
                            humantime::parse_duration(text).map_err(|error| error.to_string())
                        })
                        .help("After what time it counts no more, like 30d [default: never]"),
                )
                .arg(scope_arg())
                .after_help("Examples:\n  superserve tokens create ada\n  superserve tokens create ci --expires 30d --scope read"),
        )
        .subcommand(Command::new("list").about("List the tokens: what each may do, and when it was last used"))
        .subcommand(
            Command::new("revoke")
                .about("Take a token back: it opens nothing any more")
                .arg(word("name", "NAME", "Its name or its ID")),
        )
}

/// What `context COMMAND` was given.
pub fn read_context(command: &str, leaf: &ArgMatches) -> ContextCommand {
    let text = |name: &str| leaf.get_one::<String>(name).cloned().unwrap_or_default();
    match command {
        "add" => ContextCommand::Add { name: text("name"), url: text("address") },
        "remove" => ContextCommand::Remove(text("name")),
        "use" => ContextCommand::Use(text("name")),
        _ => ContextCommand::List,
    }
}

/// What `tokens COMMAND` was given.
pub fn read_tokens(command: &str, leaf: &ArgMatches) -> Tokens {
    let text = |name: &str| leaf.get_one::<String>(name).cloned();
    let scope = || text("scope").and_then(|word| word.parse().ok()).unwrap_or_default();
    match command {
        "approve" => Tokens::Approve {
            code: text("code").unwrap_or_default(),
            deny: leaf.get_flag("deny"),
            name: text("name"),
            scope: scope(),
        },
        "create" => Tokens::Create {
            name: text("name").unwrap_or_default(),
            expires: leaf.get_one::<Duration>("expires").copied(),
            scope: scope(),
        },
        "revoke" => Tokens::Revoke(text("name").unwrap_or_default()),
        _ => Tokens::List,
    }
}

/// What every command here is given.
pub struct Given<'a> {
    pub config: &'a Config,
    pub choice: &'a Choice,
    pub terminal: &'a dyn Terminal,
    pub json: bool,
    pub fields: &'a [String],
    pub dry_run: bool,
}

impl Given<'_> {
    fn print(&self, value: serde_json::Value, text: impl FnOnce() -> String) -> Result {
        let text = match self.json {
            true => render::pretty(&render::only(value, self.fields)),
            false => text(),
        };
        self.terminal.out(&text).map(|()| 0).map_err(|error| Report::io(&error))
    }

    fn style(&self) -> Style {
        Style {
            width: self.terminal.width(),
            colour: self.terminal.out_colour(),
            truncate: false,
            now: Timestamp::from_millis(self.config.clock.now_millis()),
        }
    }

    /// What was done, for people.
    fn done(&self, sentence: &str) {
        self.terminal.err(&format!("✓ {}\n", render::clean_line(sentence)));
    }
}

/// Logs in at a server: with a key, or by an owner's approval.
pub fn login(given: &Given<'_>, api_key: Option<Secret>) -> Result {
    let mut contexts = Contexts::load(given.config)?;
    let url = match contexts.target(given.config, given.choice)? {
        Target::Remote { url, .. } => url,
        Target::Local => {
            return Err(Report::usage(
                "which server do you want to log in at? The local one needs no login".to_owned(),
                "Name it: superserve login --url https://agents.example.com.",
            ));
        }
    };
    if given.dry_run {
        return would(given.terminal, &format!("log in at {url}"));
    }
    let api_key = match api_key {
        // The safe way: others on this machine see what stands on a command line.
        Some(key) if key.reveal() == "-" => Some(read_key(given.terminal)?),
        other => other,
    };
    let (token, user) = block_on(async {
        let token = match api_key {
            Some(key) => key,
            None => approved(given.terminal, &Client::remote(&url, None)?).await?,
        };
        // Nothing is kept that does not open the door.
        let user = Client::remote(&url, Some(&token))?.validate().await?;
        Ok((token, user))
    })?;
    let name = contexts.log_in(given.choice.context.as_deref(), &url, &token, user.expires_at)?;
    given.done(&format!("Logged in at {url} as {}", user.email));
    if contexts.current() != name && !given.json {
        given.terminal.err(&format!(
            "  Commands speak to the {} server still: superserve context use {name} changes that, --context {name} does for one.\n",
            if contexts.current() == LOCAL { LOCAL.to_owned() } else { contexts.current().to_owned() }
        ));
    }
    match given.json {
        true => given.print(json!({ "context": name, "url": url, "user": user }), String::new),
        false => Ok(0),
    }
}

fn read_key(terminal: &dyn Terminal) -> std::result::Result<Secret, Report> {
    let line = terminal.read_hidden("API key: ").map_err(|error| Report::io(&error))?;
    match line {
        crate::script::Line::Text(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim().to_owned())),
        _ => {
            Err(Report::usage("the API key is empty".to_owned(), "Give one: superserve login --api-key KEY."))
        }
    }
}

/// Shows a code and waits until an owner has approved it.
async fn approved(terminal: &dyn Terminal, client: &Client) -> client::Result<Secret> {
    let code = client.device_code().await?;
    terminal.err(&format!(
        "Open {} and approve the code {}\nWaiting for approval (Ctrl-C gives up) ...\n",
        render::clean_line(&code.verification_uri_complete),
        render::clean_line(&code.user_code)
    ));
    let mut interval = Duration::from_secs(code.interval.clamp(1, 60));
    loop {
        tokio::time::sleep(interval).await;
        let refused = match client.device_token(&code.device_code).await? {
            DeviceAnswer::Granted { access_token, .. } => return Ok(Secret::new(access_token)),
            DeviceAnswer::Refused { error } => error,
        };
        let message = match refused {
            DeviceError::AuthorizationPending => continue,
            DeviceError::SlowDown => {
                interval += Duration::from_secs(5);
                continue;
            }
            DeviceError::AccessDenied => "the login was denied",
            DeviceError::ExpiredToken => "the code has expired before anybody approved it",
        };
        return Err(client::Error::api(
            ErrorCode::Unauthenticated,
            message,
            "Begin anew with superserve login.".to_owned(),
        ));
    }
}

/// Forgets a login.
pub fn logout(given: &Given<'_>) -> Result {
    let mut contexts = Contexts::load(given.config)?;
    let url = match contexts.target(given.config, given.choice)? {
        Target::Remote { url, .. } => url,
        // Whoever is logged in at one server alone means that one.
        Target::Local => {
            let mut urls: Vec<&str> = contexts
                .all()
                .iter()
                .filter(|context| context.token.is_some())
                .map(|context| context.url.as_str())
                .collect();
            urls.dedup();
            match urls.as_slice() {
                [] => {
                    given.terminal.err("You are not logged in anywhere.\n");
                    return Ok(0);
                }
                [url] => (*url).to_owned(),
                _ => {
                    return Err(Report::usage(
                        "you are logged in at several servers".to_owned(),
                        "Name one: superserve logout --context NAME. superserve context list shows them.",
                    ));
                }
            }
        }
    };
    if given.dry_run {
        return would(given.terminal, &format!("forget the login at {url}"));
    }
    match contexts.forget(&url)? {
        true => {
            given.done(&format!("Logged out of {url}"));
            given.terminal.err("  The token itself counts until the server's owner revokes it: superserve tokens revoke NAME.\n");
        }
        false => given.terminal.err(&format!("You are not logged in at {url}.\n")),
    }
    Ok(0)
}

/// Who this user is at the server in use.
pub fn status(given: &Given<'_>) -> Result {
    let contexts = Contexts::load(given.config)?;
    let (name, url, token) = match contexts.target(given.config, given.choice)? {
        Target::Local => {
            let logins: Vec<&str> = contexts
                .all()
                .iter()
                .filter(|context| context.token.is_some())
                .map(|context| context.name.as_str())
                .collect();
            let value = json!({ "context": LOCAL, "authenticated": true, "logins": logins });
            return given.print(value, || {
                let mut rows = vec![
                    ("Context", LOCAL.to_owned()),
                    ("Login", "none needed: the local server is yours".to_owned()),
                ];
                if !logins.is_empty() {
                    rows.push(("Logged in at", logins.join(", ")));
                }
                render::fields(&rows)
            });
        }
        Target::Remote { name, url, token } => (name, url, token),
    };
    let user: User = match &token {
        Some(token) => block_on(async { Client::remote(&url, Some(token))?.validate().await })?,
        None => return Err(not_logged_in(&url)),
    };
    let value = json!({ "context": name, "url": url, "authenticated": true, "user": user });
    given.print(value, || {
        let mut rows = vec![
            ("Context", name.clone().unwrap_or_else(|| "none".to_owned())),
            ("Server", url.clone()),
            ("Logged in as", user.email.clone()),
        ];
        rows.extend(user.scope.map(|scope| ("May", scope.to_string())));
        rows.extend(user.expires_at.map(|at| ("Expires", render::moment(at))));
        render::fields(&rows)
    })
}

/// Told before a server is asked that would only say so itself.
fn not_logged_in(url: &str) -> Report {
    Report::from(&client::Error::api(
        ErrorCode::Unauthenticated,
        format!("You are not logged in at {url}"),
        format!("Log in: superserve login --url {url}."),
    ))
}

/// `context …`.
pub fn context(given: &Given<'_>, command: ContextCommand) -> Result {
    let mut contexts = Contexts::load(given.config)?;
    match command {
        ContextCommand::List => {
            let current = contexts.current().to_owned();
            let rows: Vec<serde_json::Value> = std::iter::once(json!({
                "name": LOCAL, "url": null, "logged_in": true, "current": current == LOCAL
            }))
            .chain(contexts.all().iter().map(|context| {
                json!({
                    "name": context.name,
                    "url": context.url,
                    "logged_in": context.token.is_some(),
                    "current": context.name == current,
                })
            }))
            .collect();
            given.print(rows.into(), || {
                let mut rows =
                    vec![vec![marked(LOCAL, &current), "this machine".to_owned(), "not needed".to_owned()]];
                rows.extend(contexts.all().iter().map(|context| {
                    let login = if context.token.is_some() { "yes" } else { "no" };
                    vec![marked(&context.name, &current), context.url.clone(), login.to_owned()]
                }));
                render::rows(&["Context", "Server", "Login"], &rows, &given.style())
            })
        }
        ContextCommand::Add { name, url } => {
            let url = checked_url(&url, "URL")?;
            if given.dry_run {
                return would(given.terminal, &format!("add the context {name} for {url}"));
            }
            contexts.add(&name, &url)?;
            given.done(&format!("Context {name} added: {url}"));
            given.terminal.err(&format!("  Log in with superserve login --context {name}.\n"));
            Ok(0)
        }
        ContextCommand::Use(name) => {
            if given.dry_run {
                return would(given.terminal, &format!("use the context {name}"));
            }
            contexts.use_named(&name)?;
            given.done(&format!("Commands speak to {name} from now on"));
            Ok(0)
        }
        ContextCommand::Remove(name) => {
            if given.dry_run {
                return would(given.terminal, &format!("remove the context {name} and its login"));
            }
            contexts.remove(&name)?;
            given.done(&format!("Context {name} removed, with its login"));
            Ok(0)
        }
    }
}

fn marked(name: &str, current: &str) -> String {
    if name == current { format!("{name} *") } else { name.to_owned() }
}

/// `tokens …`, at the server in use.
pub fn tokens(given: &Given<'_>, command: Tokens) -> Result {
    let way = Way::new(given.config, given.choice)?;
    let connect = async || way.connect(given.terminal).await;
    match command {
        Tokens::Create { name, expires, scope } => {
            if given.dry_run {
                return would(given.terminal, &format!("make the token {name} ({scope})"));
            }
            let wanted = CreateToken { name, scope, expires_in: expires.map(|expires| expires.as_secs()) };
            let new = block_on(async { connect().await?.create_token(&wanted).await })?;
            let until = new
                .about
                .expires_at
                .map_or("never expires".to_owned(), |at| format!("expires {}", render::moment(at)));
            given.done(&format!(
                "Token {} made: it may {} and {until}",
                new.about.name,
                may(new.about.scope)
            ));
            if !given.json {
                given.terminal.err("  This is the only time that it is shown:\n");
            }
            let shown = NewToken { about: whole_seconds(&new.about), ..new.clone() };
            given.print(json!(shown), || format!("{}\n", new.token))
        }
        Tokens::List => {
            let tokens = block_on(async { connect().await?.tokens().await })?;
            if tokens.is_empty() {
                given.terminal.err("No tokens found. Make one with: superserve tokens create NAME\n");
            }
            given.print(json!(tokens.iter().map(whole_seconds).collect::<Vec<_>>()), || {
                if tokens.is_empty() {
                    return String::new();
                }
                let style = given.style();
                let ago =
                    |at: Option<Timestamp>| at.map_or("Never".to_owned(), |at| render::ago(at, style.now));
                let rows: Vec<Vec<String>> = tokens
                    .iter()
                    .map(|token| {
                        let expires = match token.expires_at {
                            Some(at) if at <= style.now => "Expired".to_owned(),
                            Some(at) => render::moment(at),
                            None => "Never".to_owned(),
                        };
                        vec![
                            token.name.clone(),
                            token.scope.to_string(),
                            ago(Some(token.created_at)),
                            ago(token.last_used_at),
                            expires,
                            token.id.clone(),
                        ]
                    })
                    .collect();
                render::rows(&["Name", "Scope", "Created", "Last Used", "Expires", "ID"], &rows, &style)
            })
        }
        Tokens::Revoke(name) => {
            if given.dry_run {
                return would(given.terminal, &format!("revoke the token {name}"));
            }
            block_on(async { connect().await?.revoke_token(&name).await })?;
            given.done(&format!("Token {name} revoked"));
            Ok(0)
        }
        Tokens::Approve { code, deny, name, scope } => {
            let what = if deny { "deny" } else { "approve" };
            if given.dry_run {
                return would(given.terminal, &format!("{what} the login {code}"));
            }
            block_on(async { connect().await?.decide_login(&code, deny, name, scope).await })?;
            given.done(&format!("Login {code} {}", if deny { "denied" } else { "approved" }));
            Ok(0)
        }
    }
}

fn may(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Write => "read and write",
        Scope::Admin => "do everything",
    }
}

/// As everything that `--json` prints.
fn whole_seconds(token: &Token) -> Token {
    Token {
        created_at: token.created_at.whole_seconds(),
        expires_at: token.expires_at.map(Timestamp::whole_seconds),
        last_used_at: token.last_used_at.map(Timestamp::whole_seconds),
        ..token.clone()
    }
}

/// Why a command that is about this machine's server can't be given another one.
pub fn local_only(choice: &Choice, command: &str) -> std::result::Result<(), Report> {
    let is_local = choice.url.is_none() && choice.context.as_deref().is_none_or(|name| name == LOCAL);
    match is_local {
        true => Ok(()),
        false => Err(Report {
            exit: error::USAGE,
            ..Report::usage(
                format!("superserve {command} is about the server of this machine"),
                "Take --context and --url away.",
            )
        }),
    }
}
