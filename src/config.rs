//! Every setting, its default and its environment variable. The only reader of the environment and of home.
//!
//! A key stands in `SUPERSERVE_HOME/config.toml`, and the environment goes before it: `turn.timeout` is
//! `SUPERSERVE_TURN_TIMEOUT`.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;

use crate::clock::Clock;
use crate::wire::{Secret, Timestamp};

/// One setting as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub default: &'static str,
    pub about: &'static str,
}

/// Every key, in alphabetical order; the README's table is checked against it.
pub const KEYS: &[Key] = &[
    Key {
        name: "dependencies.timeout",
        default: "10m",
        about: "how long installing an agent's dependencies may take",
    },
    Key {
        name: "log.format",
        default: "text",
        about: "how the server writes its log: `text`, or `json`, an object a line",
    },
    Key {
        name: "retention.ended",
        default: "30d",
        about: "how long ended sessions with their transcripts are kept before they are forgotten, or `never`",
    },
    Key {
        name: "retention.events",
        default: "7d",
        about: "how long the single events of a run are kept after its end (the transcript stays), or `never`",
    },
    Key {
        name: "sandbox",
        default: "auto",
        about: "how agents are isolated: `native` (namespaces), `bwrap` (the same, made by bubblewrap), `landlock` (reduced: the kernel's rules over the host's files), `auto` (the best of these that the machine allows) or `none`",
    },
    Key {
        name: "sandbox_require",
        default: "reduced",
        about: "the least isolation with which `auto` runs agents: `full` or `reduced`",
    },
    Key { name: "scripts", default: "`scripts` in the home", about: "the folder of your own commands" },
    Key {
        name: "server.cors",
        default: "none",
        about: "origins, with commas between, whose pages may use a server that listens: `https://app.example.com`",
    },
    Key {
        name: "server.idle_exit",
        default: "15m",
        about: "after how long without request, run or live agent the server exits, or `never`",
    },
    Key {
        name: "server.public_url",
        default: "the address that is called",
        about: "how others reach a server that listens, such as `https://agents.example.com`",
    },
    Key {
        name: "server.rate_limit",
        default: "200",
        about: "how many requests a second a token may make, or `never` to set no limit",
    },
    Key {
        name: "server.uid_base",
        default: "1900000000",
        about: "as root, the first of the host uids that sessions map to, one each",
    },
    Key {
        name: "session.expire_after",
        default: "24h",
        about: "after how long without activity a session expires, or `never`",
    },
    Key {
        name: "session.max_warm",
        default: "64",
        about: "how many agents' processes may wait for a message at a time; beyond that the least recently used are stopped, their sessions stay",
    },
    Key {
        name: "turn.quiet_ms",
        default: "5000",
        about: "how many milliseconds of silence end a turn whose end can't be seen",
    },
    Key {
        name: "turn.startup_timeout",
        default: "2m",
        about: "how long an agent may take until it waits for its first message",
    },
    Key { name: "turn.timeout", default: "10m", about: "how long a turn may take" },
];

/// Variables that those who install dependencies are given as they are: where packages come from, and by which way.
const INSTALL_ENV: [&str; 19] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "NPM_CONFIG_REGISTRY",
    "PIP_CERT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "SSL_CERT_FILE",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "npm_config_registry",
];

/// How agents are isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxChoice {
    /// The best that the machine gives; never none.
    Auto,
    Native,
    Bwrap,
    Landlock,
    None,
}

impl SandboxChoice {
    /// Every word that a user may write.
    pub const WORDS: [&'static str; 5] = ["auto", "native", "bwrap", "landlock", "none"];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Bwrap => "bwrap",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }

    /// The choice that this word names.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "native" => Some(Self::Native),
            "bwrap" => Some(Self::Bwrap),
            "landlock" => Some(Self::Landlock),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// How the server writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// An object a line.
    Json,
}

impl LogFormat {
    /// Every word that a user may write.
    pub const WORDS: [&'static str; 2] = ["text", "json"];

    /// The format that this word names.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A setting that makes no sense, or a machine that says too little.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{place}: '{value}' is not {form}")]
    BadValue { place: String, value: String, form: &'static str },
    #[error("{path}: unknown key '{key}'", path = path.display())]
    UnknownKey { path: PathBuf, key: String },
    #[error("cannot read {path}: {reason}", path = path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("no home folder is known")]
    NoHome,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::BadValue { .. } => "Write it as the README's table of settings shows.".to_owned(),
            Self::UnknownKey { .. } => {
                format!("The keys are {}.", KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", "))
            }
            Self::Unreadable { .. } => {
                "Mend the file, or move it away: every setting has a default.".to_owned()
            }
            Self::NoHome => "Set SUPERSERVE_HOME to the folder that should hold the sessions.".to_owned(),
        }
    }
}

/// The decided settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where all state lives. Absolute.
    pub home: PathBuf,
    pub sandbox: SandboxChoice,
    pub log_format: LogFormat,
    /// How long the events of a run, and ended sessions, are kept; `None` is always.
    pub keep_events: Option<Duration>,
    pub keep_ended: Option<Duration>,
    /// Whether `Auto` must isolate fully.
    pub only_full: bool,
    /// The folder of the user's own commands.
    pub scripts: PathBuf,
    /// `None` is never.
    pub idle_exit: Option<Duration>,
    pub uid_base: u32,
    /// Origins whose pages may use a server that listens.
    pub cors: Vec<String>,
    /// How others reach a server that listens, without a final slash.
    pub public_url: Option<String>,
    /// How many requests a second a token may make; `None` is any number.
    pub rate_limit: Option<NonZeroU32>,
    /// `None` is never.
    pub expire_after: Option<Duration>,
    pub turn_quiet: Duration,
    pub startup_timeout: Duration,
    pub turn_timeout: Duration,
    pub dependencies_timeout: Duration,
    /// Variables of this process that say where packages come from.
    pub install_env: Vec<(String, String)>,
    /// How many agents may wait for a message at a time.
    pub max_warm: usize,
    /// Where programs are looked for.
    pub search_path: String,
    /// Where logins are kept: `~/.superserve`, which is the original's too. `None` where no home is known.
    pub login_folder: Option<PathBuf>,
    /// `SUPERSERVE_API_URL`: the server that commands speak to, without a final slash.
    pub api_url: Option<String>,
    /// `SUPERSERVE_API_KEY`: the token for it.
    pub api_key: Option<Secret>,
    /// Keys that encrypt agents' secrets instead of the one in the home's `secret.key`.
    pub secret_key: Option<Secret>,
    pub clock: Clock,
    /// The step at which a test has the server die.
    pub fault: Option<String>,
}

impl Config {
    /// The settings of this process: environment, then file, then defaults.
    pub fn load() -> Result<Self, Error> {
        Settings::load()?.decide()
    }

    /// The socket on which the local server listens, in a folder that only its owner may enter.
    pub fn socket(&self) -> PathBuf {
        self.home.join("run").join("server.sock")
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.home.join("superserve.db")
    }

    /// The REPL's history.
    pub fn history(&self) -> PathBuf {
        self.home.join("history")
    }
}

/// The environment variable `name`; not set, empty or not UTF-8 is none. Scripts ask through this.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The environment variable of a setting: `SUPERSERVE_TURN_TIMEOUT` of `turn.timeout`.
pub fn variable(key: &str) -> String {
    format!("SUPERSERVE_{}", key.replace('.', "_").to_uppercase())
}

/// What stands where, before it is decided what it means.
struct Settings {
    home: PathBuf,
    file: PathBuf,
    values: BTreeMap<String, String>,
}

fn api_url() -> Result<Option<String>, Error> {
    let Some(value) = environment("SUPERSERVE_API_URL") else { return Ok(None) };
    let form = "a URL such as https://agents.example.com";
    let place = "SUPERSERVE_API_URL".to_owned();
    url(&value).map(Some).ok_or(Error::BadValue { place, value, form })
}

/// What a list of origins must look like.
pub const ORIGINS: &str = "origins such as https://app.example.com, with commas between";

impl Settings {
    fn load() -> Result<Self, Error> {
        let home = match environment("SUPERSERVE_HOME") {
            Some(home) => std::path::absolute(&home)
                .map_err(|error| Error::Unreadable { path: home.into(), reason: error.to_string() })?,
            None => {
                etcetera::choose_base_strategy().map_err(|_| Error::NoHome)?.data_dir().join("superserve")
            }
        };
        let file = home.join("config.toml");
        let values = match std::fs::read_to_string(&file) {
            Ok(text) => flatten(&file, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Error::Unreadable { path: file, reason: error.to_string() }),
        };
        Ok(Self { home, file, values })
    }

    /// The text of a setting and where it stands.
    fn find(&self, key: &str) -> Option<(String, String)> {
        let variable = variable(key);
        environment(&variable).map(|value| (value, variable)).or_else(|| {
            self.values.get(key).map(|value| (value.clone(), format!("{}: {key}", self.file.display())))
        })
    }

    fn read<T>(
        &self,
        key: &str,
        form: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        match self.find(key) {
            None => Ok(default),
            Some((value, place)) => parse(&value).ok_or(Error::BadValue { place, value, form }),
        }
    }

    fn decide(self) -> Result<Config, Error> {
        const DURATION: &str = "a duration such as 90s, 15m or 24h";
        const OR_NEVER: &str = "a duration such as 90s, 15m or 24h, or never";
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let scripts = self.home.join("scripts");
        Ok(Config {
            sandbox: self.read(
                "sandbox",
                "auto, native, bwrap, landlock or none",
                SandboxChoice::Auto,
                SandboxChoice::from_word,
            )?,
            log_format: self.read(
                "log.format",
                "text or json",
                LogFormat::default(),
                LogFormat::from_word,
            )?,
            keep_ended: self.read(
                "retention.ended",
                OR_NEVER,
                Some(minutes(30 * 24 * 60)),
                duration_or_never,
            )?,
            keep_events: self.read(
                "retention.events",
                OR_NEVER,
                Some(minutes(7 * 24 * 60)),
                duration_or_never,
            )?,
            only_full: self.read("sandbox_require", "full or reduced", false, |text| match text {
                "full" => Some(true),
                "reduced" => Some(false),
                _ => None,
            })?,
            scripts: self.read("scripts", "a folder", scripts, |text| std::path::absolute(text).ok())?,
            idle_exit: self.read("server.idle_exit", OR_NEVER, Some(minutes(15)), duration_or_never)?,
            uid_base: self.read("server.uid_base", "a uid from 65536 on", 1_900_000_000, |text| {
                text.parse().ok().filter(|uid| (65_536..4_000_000_000).contains(uid))
            })?,
            cors: self.read("server.cors", ORIGINS, Vec::new(), origins)?,
            public_url: self.read(
                "server.public_url",
                "a URL such as https://agents.example.com",
                None,
                |text| url(text).map(Some),
            )?,
            rate_limit: self.read(
                "server.rate_limit",
                "a number from 1 on, or never",
                NonZeroU32::new(200),
                |text| {
                    if text == "never" { Some(None) } else { text.parse().ok().map(Some) }
                },
            )?,
            expire_after: self.read(
                "session.expire_after",
                OR_NEVER,
                Some(minutes(24 * 60)),
                duration_or_never,
            )?,
            turn_quiet: self.read(
                "turn.quiet_ms",
                "a number of milliseconds",
                Duration::from_secs(5),
                |text| text.parse().ok().map(Duration::from_millis),
            )?,
            startup_timeout: self.read("turn.startup_timeout", DURATION, minutes(2), duration)?,
            turn_timeout: self.read("turn.timeout", DURATION, minutes(10), duration)?,
            max_warm: self.read("session.max_warm", "a number from 1 on", 64, |text| {
                text.parse().ok().filter(|count| *count > 0)
            })?,
            search_path: environment("PATH").unwrap_or_default(),
            dependencies_timeout: self.read("dependencies.timeout", DURATION, minutes(10), duration)?,
            install_env: INSTALL_ENV
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), environment(name)?)))
                .collect(),
            login_folder: environment("HOME").map(|home| Path::new(&home).join(".superserve")),
            api_url: api_url()?,
            api_key: environment("SUPERSERVE_API_KEY").map(Secret::new),
            secret_key: environment("SUPERSERVE_SECRET_KEY").map(Secret::new),
            clock: test_clock()?,
            fault: environment("SUPERSERVE_TEST_FAULT"),
            home: self.home,
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A URL of a server, without its final slashes; `None` if it is none.
pub fn url(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let is_good =
        !host.is_empty() && !host.contains(['@', '?', '#']) && host.bytes().all(|b| b.is_ascii_graphic());
    is_good.then(|| text.to_owned())
}

/// Origins with commas between: URLs without a path.
pub fn origins(text: &str) -> Option<Vec<String>> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| url(word).filter(|url| url.matches('/').count() == 2)).collect()
}

fn duration_or_never(text: &str) -> Option<Option<Duration>> {
    if text == "never" { Some(None) } else { duration(text).map(Some) }
}

/// The file's keys with their tables' names before them, each of which must be one that we know.
fn flatten(file: &Path, text: &str) -> Result<BTreeMap<String, String>, Error> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Unreadable {
        path: file.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })?;
    let mut open: Vec<(String, toml::Value)> = table.into_iter().collect();
    let mut values = BTreeMap::new();
    while let Some((key, value)) = open.pop() {
        match value {
            toml::Value::Table(inner) => {
                open.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            _ if !KEYS.iter().any(|known| known.name == key) => {
                return Err(Error::UnknownKey { path: file.to_owned(), key });
            }
            toml::Value::String(text) => {
                values.insert(key, text);
            }
            other => {
                values.insert(key, other.to_string());
            }
        }
    }
    Ok(values)
}

/// The machine's clock, or the one that a test fixes: `SUPERSERVE_TEST_CLOCK` is a moment or a file that holds
/// milliseconds since the epoch, `SUPERSERVE_TEST_SEED` the number from which IDs follow.
fn test_clock() -> Result<Clock, Error> {
    let mut clock = Clock::system();
    if let Some(text) = environment("SUPERSERVE_TEST_CLOCK") {
        clock = match text.parse::<Timestamp>() {
            Ok(at) => clock.at(at.as_millis()),
            Err(_) => clock.from_file(text.into()),
        };
    }
    if let Some(text) = environment("SUPERSERVE_TEST_SEED") {
        let seed = text.parse().map_err(|_| Error::BadValue {
            place: "SUPERSERVE_TEST_SEED".to_owned(),
            value: text,
            form: "a number",
        })?;
        clock = clock.seeded(seed);
    }
    Ok(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Config, Error> {
        let file = PathBuf::from("/h/config.toml");
        Settings { home: "/h".into(), values: flatten(&file, text)?, file }.decide()
    }

    #[test]
    fn the_keys_are_sorted_and_each_is_read() {
        assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for key in KEYS.iter().filter(|key| key.name != "scripts") {
            let text = match key.name.split_once('.') {
                Some((table, name)) => format!("[{table}]\n{name} = \"-\""),
                None => format!("{} = \"-\"", key.name),
            };
            let error = settings(&text).expect_err(key.name).to_string();
            assert!(error.contains(key.name), "{error}");
        }
    }

    #[test]
    fn values_change_the_result() {
        let config = settings(
            "sandbox = 'none'\n[session]\nexpire_after = 'never'\n[turn]\nquiet_ms = 70\ntimeout = '2s'",
        )
        .expect("good settings");
        assert_eq!(config.sandbox, SandboxChoice::None);
        assert_eq!(config.expire_after, None);
        assert_eq!(config.turn_quiet, Duration::from_millis(70));
        assert_eq!(config.turn_timeout, Duration::from_secs(2));
        assert_eq!(config.idle_exit, Some(Duration::from_secs(900)));
    }

    #[test]
    fn an_unknown_key_is_named_with_the_known_ones() {
        let error = settings("[turn]\ntimeoot = '2s'").expect_err("a typo");
        assert_eq!(error.to_string(), "/h/config.toml: unknown key 'turn.timeoot'");
        assert!(error.hint().contains("turn.timeout"), "{}", error.hint());
    }
}
