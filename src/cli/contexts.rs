//! The servers that this user knows, their logins, and which of them a command speaks to.
//!
//! A token goes to no server but the one that it was given for. `~/.superserve/auth.json` is the original's: both command
//! lines share it, so it holds the latest login; the rest stands beside it in `contexts.json`.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{self, Report};
use crate::client::Client;
use crate::config::{self, Config};
use crate::wire::{Secret, Timestamp};

/// The context that always is: the local server.
pub const LOCAL: &str = "local";

/// A server under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub name: String,
    /// Without a final slash.
    pub url: String,
    /// What the server has given this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The login that the original's command line knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shared {
    token: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Ours: which server it was given for. The original doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// What else stands there is not ours to lose.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    /// The one in use; none is the local server.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: Vec<Context>,
}

/// All that is known.
#[derive(Debug)]
pub struct Contexts {
    folder: Option<PathBuf>,
    saved: Saved,
}

/// Which server a command speaks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Local,
    Remote { name: Option<String>, url: String, token: Option<Secret> },
}

/// What a command line says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// `--context`.
    pub context: Option<String>,
    /// `--url`.
    pub url: Option<String>,
}

impl Target {
    /// A client of this server, if it is a remote one.
    pub fn remote(&self) -> Option<crate::client::Result<Client>> {
        match self {
            Self::Local => None,
            Self::Remote { url, token, .. } => Some(Client::remote(url, token.as_ref())),
        }
    }
}

impl Contexts {
    /// Reads what is known. Error: the file can't be read, or makes no sense.
    pub fn load(config: &Config) -> Result<Self, Report> {
        let folder = config.login_folder.clone();
        let saved = match &folder {
            Some(folder) => read(&folder.join("contexts.json"))?.unwrap_or_default(),
            None => Saved::default(),
        };
        Ok(Self { folder, saved })
    }

    /// Every context but the local one.
    pub fn all(&self) -> &[Context] {
        &self.saved.contexts
    }

    /// The name of the one in use.
    pub fn current(&self) -> &str {
        self.saved.current.as_deref().unwrap_or(LOCAL)
    }

    /// The context of this name. Error: there is none.
    pub fn named(&self, name: &str) -> Result<&Context, Report> {
        self.saved.contexts.iter().find(|context| context.name == name).ok_or_else(|| Report {
            exit: error::NOT_FOUND,
            code: "not_found",
            ..Report::usage(
                format!("Context not found: no context is called '{name}'"),
                "superserve context list shows them; superserve context add NAME URL makes one.",
            )
        })
    }

    /// Which server a command speaks to: as the command line says, else as the environment does, else the context in use.
    pub fn target(&self, config: &Config, choice: &Choice) -> Result<Target, Report> {
        match (&choice.context, &choice.url, &config.api_url) {
            (Some(_), Some(_), _) => {
                Err(Report::usage("--context and --url name two servers".to_owned(), "Give one of them."))
            }
            (Some(name), None, _) => self.target_named(name),
            (None, Some(url), _) => {
                let url = checked_url(url, "--url")?;
                self.target_at(config, url)
            }
            (None, None, Some(url)) => self.target_at(config, url.clone()),
            (None, None, None) => self.target_named(self.current()),
        }
    }

    /// The server of this name.
    pub fn target_named(&self, name: &str) -> Result<Target, Report> {
        if name == LOCAL {
            return Ok(Target::Local);
        }
        let context = self.named(name)?;
        let token = match &context.token {
            Some(token) => Some(token.clone()),
            None => self.shared_for(&context.url)?,
        };
        Ok(Target::Remote { name: Some(context.name.clone()), url: context.url.clone(), token })
    }

    fn target_at(&self, config: &Config, url: String) -> Result<Target, Report> {
        let known = self.saved.contexts.iter().find(|context| context.url == url);
        // One that the environment gives together with a URL is for that URL.
        let given =
            config.api_key.as_ref().filter(|_| config.api_url.as_ref().is_none_or(|other| *other == url));
        let token = match (given, known.and_then(|context| context.token.as_ref())) {
            (Some(token), _) | (None, Some(token)) => Some(token.clone()),
            (None, None) => self.shared_for(&url)?,
        };
        Ok(Target::Remote { name: known.map(|context| context.name.clone()), url, token })
    }

    /// The login in `auth.json`, if it is this server's. One that the original has made says not whose it is: it belongs
    /// to the first server that is asked for, and from then on to no other.
    fn shared_for(&self, url: &str) -> Result<Option<Secret>, Report> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.join("auth.json");
        let owned = |shared: Shared| shared.url.is_some_and(|own| own == url).then_some(shared.token);
        match read::<Shared>(&path)? {
            Some(shared) if shared.url.is_none() => {}
            known => return Ok(known.and_then(owned)),
        }
        let _lock = lock(folder)?;
        match read::<Shared>(&path)? {
            Some(shared) if shared.url.is_none() => {
                let shared = Shared { url: Some(url.to_owned()), ..shared };
                write(folder, &path, &shared)?;
                Ok(Some(shared.token))
            }
            // Another command was first.
            known => Ok(known.and_then(owned)),
        }
    }

    /// Keeps a context. Errors: the name is none, or taken.
    pub fn add(&mut self, name: &str, url: &str) -> Result<(), Report> {
        check_name(name)?;
        let _lock = self.latest()?;
        if self.saved.contexts.iter().any(|context| context.name == name) {
            return Err(Report {
                exit: error::CONFLICT,
                code: "conflict",
                ..Report::usage(
                    format!("There is a context called '{name}' already"),
                    format!("Take another name, or remove it first: superserve context remove {name}."),
                )
            });
        }
        self.saved.contexts.push(Context {
            name: name.to_owned(),
            url: url.to_owned(),
            token: None,
            expires_at: None,
        });
        self.saved.contexts.sort_by(|a, b| a.name.cmp(&b.name));
        self.save()
    }

    /// Has every command speak to this one, until told otherwise.
    pub fn use_named(&mut self, name: &str) -> Result<(), Report> {
        let _lock = self.latest()?;
        self.saved.current = match name {
            LOCAL => None,
            name => Some(self.named(name)?.name.clone()),
        };
        self.save()
    }

    /// Forgets a context and its login.
    pub fn remove(&mut self, name: &str) -> Result<(), Report> {
        if name == LOCAL {
            return Err(Report::usage("the local server is no context that can be removed".to_owned(), ""));
        }
        let _lock = self.latest()?;
        let url = self.named(name)?.url.clone();
        self.forget_login(&url)?;
        self.saved.contexts.retain(|context| context.name != name);
        if self.saved.current.as_deref() == Some(name) {
            self.saved.current = None;
        }
        self.save()
    }

    /// Keeps a login; the name of its context. It becomes the one that the original's command line uses.
    pub fn log_in(
        &mut self,
        name: Option<&str>,
        url: &str,
        token: &Secret,
        expires_at: Option<Timestamp>,
    ) -> Result<String, Report> {
        if self.folder.is_none() {
            return Err(Report::usage("no home folder is known to keep a login in".to_owned(), "Set HOME."));
        }
        let _lock = self.latest()?;
        let known = self.saved.contexts.iter_mut().find(|context| match name {
            Some(name) => context.name == name,
            None => context.url == url,
        });
        let name = match known {
            Some(context) => {
                context.token = Some(token.clone());
                context.expires_at = expires_at;
                context.name.clone()
            }
            None => {
                let name = self.free_name(url);
                let token = Some(token.clone());
                let context = Context { name: name.clone(), url: url.to_owned(), token, expires_at };
                self.saved.contexts.push(context);
                self.saved.contexts.sort_by(|a, b| a.name.cmp(&b.name));
                name
            }
        };
        self.save()?;
        if let Some(folder) = &self.folder {
            let shared = Shared {
                token: token.clone(),
                expires_at: expires_at.map(|at| at.to_string()),
                url: Some(url.to_owned()),
                rest: Map::new(),
            };
            write(folder, &folder.join("auth.json"), &shared)?;
        }
        Ok(name)
    }

    /// Forgets the login at this server; whether there was one.
    pub fn forget(&mut self, url: &str) -> Result<bool, Report> {
        if self.folder.as_ref().is_none_or(|folder| !folder.exists()) {
            return Ok(false);
        }
        let _lock = self.latest()?;
        self.forget_login(url)
    }

    fn forget_login(&mut self, url: &str) -> Result<bool, Report> {
        let mut was = false;
        for context in self.saved.contexts.iter_mut().filter(|context| context.url == url) {
            was |= context.token.take().is_some();
            context.expires_at = None;
        }
        if was {
            self.save()?;
        }
        if let Some(folder) = &self.folder {
            let path = folder.join("auth.json");
            if read::<Shared>(&path)?.is_some_and(|shared| shared.url.is_none_or(|own| own == url)) {
                std::fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
                was = true;
            }
        }
        Ok(was)
    }

    /// A name for a server: its host's, with a number behind it if that is taken.
    fn free_name(&self, url: &str) -> String {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', ':']).next().unwrap_or("");
        let plain: String =
            host.chars().map(|c| if is_name_letter(c) { c } else { '-' }).collect::<String>().to_lowercase();
        let base = if plain.is_empty() || plain == LOCAL { "server".to_owned() } else { plain };
        let is_free = |name: &String| !self.saved.contexts.iter().any(|context| context.name == *name);
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        std::iter::once(base.clone()).chain(numbered).find(is_free).unwrap_or(base)
    }

    /// Reads what is known by now, and keeps others from changing it until the answer is dropped.
    fn latest(&mut self) -> Result<Option<OwnedFd>, Report> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let lock = lock(folder)?;
        self.saved = read(&folder.join("contexts.json"))?.unwrap_or_default();
        Ok(Some(lock))
    }

    fn save(&self) -> Result<(), Report> {
        let Some(folder) = &self.folder else {
            return Err(Report::usage("no home folder is known to keep contexts in".to_owned(), "Set HOME."));
        };
        write(folder, &folder.join("contexts.json"), &self.saved)
    }
}

fn is_name_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn check_name(name: &str) -> Result<(), Report> {
    let is_good = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_name_letter);
    match is_good && name != LOCAL {
        true => Ok(()),
        false => Err(Report::usage(
            format!("'{}' is no name for a context", name.escape_default()),
            "Take letters, digits and - _ ., and not local, which is the server of this machine.",
        )),
    }
}

/// A server's URL as somebody has given it.
pub fn checked_url(text: &str, place: &str) -> Result<String, Report> {
    config::url(text).ok_or_else(|| {
        Report::usage(
            format!("{place}: '{}' is not a URL of a server", text.escape_default()),
            "Write it like https://agents.example.com or http://127.0.0.1:8080.",
        )
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Report> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, &error)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        // The parser's own words may quote a token.
        Err(error) => Err(Report::usage(
            format!("cannot use {}: line {} makes no sense", path.display(), error.line()),
            "Mend it, or move it away and log in anew.",
        )),
    }
}

/// Keeps other commands from changing what is in there until it is dropped. Makes the folder, for its owner alone.
fn lock(folder: &Path) -> Result<OwnedFd, Report> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    use std::os::unix::fs::DirBuilderExt;
    let locked = || -> io::Result<OwnedFd> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(folder, flags, Mode::empty())?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    };
    locked().map_err(|error| failed("write to", folder, &error))
}

/// Whole or not at all, and for its owner alone; whoever calls it holds the lock.
fn write(folder: &Path, path: &Path, value: &impl Serialize) -> Result<(), Report> {
    let written = || -> io::Result<()> {
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written().map_err(|error| failed("write", path, &error))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Report {
    Report { message: format!("cannot {doing} {}: {error}", path.display()), ..Report::io(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        folder: tempfile::TempDir,
        config: Config,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = Config::load().expect("settings");
            config.login_folder = Some(folder.path().join("login"));
            (config.api_url, config.api_key) = (None, None);
            Self { folder, config }
        }

        fn contexts(&self) -> Contexts {
            Contexts::load(&self.config).expect("contexts")
        }

        fn token(&self, choice: &Choice) -> Option<String> {
            match self.contexts().target(&self.config, choice).expect("a target") {
                Target::Local => Some("local".to_owned()),
                Target::Remote { token, .. } => token.map(|token| token.reveal().to_owned()),
            }
        }

        fn at(&self, url: &str) -> Option<String> {
            self.token(&Choice { url: Some(url.to_owned()), context: None })
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join("login").join(name)
        }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_token_goes_to_its_own_server_alone() {
        let mut world = World::new();
        let mut contexts = world.contexts();
        assert_eq!(contexts.log_in(None, "http://one", &secret("1"), None).expect("a login"), "one");
        assert_eq!(contexts.log_in(None, "http://two:80", &secret("2"), None).expect("a login"), "two");
        assert_eq!(world.token(&Choice::default()).as_deref(), Some("local"), "a login changes no default");
        assert_eq!(world.at("http://one/").as_deref(), Some("1"));
        assert_eq!(world.at("http://two:80").as_deref(), Some("2"));
        for other in ["https://one", "http://one:81", "http://two", "http://three"] {
            assert_eq!(world.at(other), None, "{other}");
        }
        world.config.api_url = Some("http://three".into());
        world.config.api_key = Some(secret("3"));
        assert_eq!(world.token(&Choice::default()).as_deref(), Some("3"));
        assert_eq!(world.at("http://one").as_deref(), Some("1"), "the environment's is for its own URL");
        let named = Choice { context: Some("two".into()), url: None };
        assert_eq!(world.token(&named).as_deref(), Some("2"));
        world.config.api_url = None;
        assert_eq!(world.at("http://four").as_deref(), Some("3"), "given for the URL that is named with it");
        assert_eq!(world.token(&Choice::default()).as_deref(), Some("local"));
    }

    #[test]
    fn a_login_of_the_original_is_bound_to_the_first_server() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        std::fs::create_dir(world.folder.path().join("login")).expect("a folder");
        std::fs::write(world.file("auth.json"), r#"{"token":"t","refresh_token":"r","more":1}"#)
            .expect("a file");
        assert_eq!(world.at("http://one").as_deref(), Some("t"));
        assert_eq!(world.at("http://two"), None);
        let text = std::fs::read_to_string(world.file("auth.json")).expect("a file");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["refresh_token"], "r");
        assert_eq!(value["more"], 1);
        let mode = world.file("auth.json").metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut contexts = world.contexts();
        assert!(contexts.forget("http://one").expect("forgotten"));
        assert!(!contexts.forget("http://one").expect("forgotten"));
        assert!(!world.file("auth.json").exists());
    }

    #[test]
    fn contexts_are_kept_and_forgotten() {
        let world = World::new();
        let mut contexts = world.contexts();
        contexts.add("team", "http://one").expect("a context");
        assert_eq!(contexts.add("team", "http://two").expect_err("taken").exit, error::CONFLICT);
        for name in ["", "local", "-x", "a b", "a/b"] {
            assert_eq!(contexts.add(name, "http://x").expect_err(name).exit, error::USAGE);
        }
        contexts.use_named("team").expect("in use");
        assert_eq!(world.contexts().current(), "team");
        assert!(contexts.use_named("nobody").is_err());
        assert_eq!(contexts.log_in(None, "http://one", &secret("1"), None).expect("a login"), "team");
        assert_eq!(world.token(&Choice::default()).as_deref(), Some("1"));
        contexts.remove("team").expect("gone");
        assert_eq!(world.contexts().current(), LOCAL);
        assert!(!world.file("auth.json").exists(), "its login is gone too");
    }

    #[test]
    fn what_makes_no_sense_is_told_and_left() {
        let world = World::new();
        std::fs::create_dir(world.folder.path().join("login")).expect("a folder");
        std::fs::write(world.file("contexts.json"), "{\"contexts\": [\"ss_secret\"]}").expect("a file");
        let report = Contexts::load(&world.config).expect_err("nonsense");
        assert!(!report.message.contains("ss_secret"), "{}", report.message);
        assert!(world.file("contexts.json").exists());
    }
}
