//! What an agent's files ask to have installed, and how that is done.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::start::SYSTEM_PATH;
use super::{Error, Result, command, runtimes};

/// What a `pyproject.toml` asks for, written out.
pub const WRITTEN: &str = ".superserve-requirements.txt";
/// The largest file that is read to find out what is asked for, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Installs for Python: `$PYTHON` is its program, `$VENV` an empty folder, `$UV` the program uv if there is one.
const PYTHON: &str = r#"
if [ -n "$UV" ]; then
    "$PYTHON" -m venv --without-pip "$VENV"
    if [ -n "$LOCKED" ]; then
        "$UV" export --frozen --no-dev --no-emit-project --output-file "$REQUIREMENTS"
    fi
    "$UV" pip install --python "$VENV/bin/python" -r "$REQUIREMENTS"
else
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check --no-cache-dir -r "$REQUIREMENTS"
fi
"#;
/// Installs for Node. Folders are copied, as a link to one would lead out of what is shown.
const NODE: &str = r#"
if [ -e package-lock.json ] || [ -e npm-shrinkwrap.json ]; then
    npm ci --install-links --no-audit --no-fund
else
    npm install --install-links --no-audit --no-fund --no-package-lock
fi
"#;

/// Installs what runs TypeScript. Here, and not where a folder above has packages too.
const TSX: &str =
    "npm install --prefix . --no-save --install-links --no-audit --no-fund --no-package-lock tsx\n";

/// What an agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of all that decides what is installed.
    pub hash: String,
    pub python: Option<Python>,
    /// What its `package.json` names.
    pub packages: bool,
    /// tsx, which its command runs and nothing else brings.
    pub tsx: bool,
}

/// What an agent asks for of Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// As the agent's command names it.
    pub program: String,
    /// The file that is installed from, in the agent's folder.
    pub requirements: &'static str,
    /// What is to be written to it first.
    pub written: Option<String>,
    /// Whether uv's lock file decides.
    pub locked: bool,
}

impl Plan {
    /// What the agent in `src` asks for; none if nothing. `path` is where programs are looked for. Blocks.
    ///
    /// Errors: a file that says so can't be read or is malformed.
    pub fn of(src: &Path, line: &str, path: &str, source_hash: &str) -> Result<Option<Self>> {
        let read = |name: &str| read_file(src, name);
        let (requirements, project) = (read("requirements.txt")?, read("pyproject.toml")?);
        let (package, uv_lock) = (read("package.json")?, read("uv.lock")?);
        let mut texts: Vec<(&str, String)> = Vec::new();
        let program = python_of(line, path);
        let python = if let Some(text) = requirements.filter(|text| asks(text)) {
            texts.push(("requirements.txt", text));
            Some(Python { program, requirements: "requirements.txt", written: None, locked: false })
        } else if let Some(listed) =
            project.as_deref().map(listed_in_project).transpose()?.filter(|l| !l.is_empty())
        {
            texts.push(("pyproject.toml", listed.clone()));
            let locked = uv_lock.is_some() && uv(path).is_some();
            texts.extend(uv_lock.filter(|_| locked).map(|text| ("uv.lock", text)));
            Some(Python { program, requirements: WRITTEN, written: Some(listed), locked })
        } else {
            None
        };
        let tsx = runs_tsx(line)
            && !package.as_deref().is_some_and(|text| text.contains("\"tsx\""))
            && !src.join("node_modules/tsx").exists();
        let packages = match package {
            Some(text) if asks_in_package(&text)? => {
                texts.push(("package.json", text));
                for name in ["package-lock.json", "npm-shrinkwrap.json", ".npmrc"] {
                    texts.extend(read(name)?.map(|text| (name, text)));
                }
                true
            }
            _ => false,
        };
        if texts.is_empty() && !tsx {
            return Ok(None);
        }
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(format!("1 {} {}", std::env::consts::OS, std::env::consts::ARCH).as_bytes());
        if texts.iter().any(|(_, text)| is_local(text)) {
            add(source_hash.as_bytes());
        }
        for (name, text) in &texts {
            add(name.as_bytes());
            add(text.as_bytes());
        }
        if tsx {
            add(b"tsx");
        }
        let node = (packages || tsx).then_some("node");
        let programs = python.iter().map(|python| python.program.as_str()).chain(node);
        for program in programs {
            add(edition(program, path).as_bytes());
        }
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Self { hash, python, packages, tsx }))
    }

    /// The shell's text that installs it all.
    pub fn script(&self) -> String {
        // Readable for the sessions, which have other uids; the server's own umask lets nobody else in.
        let mut script = String::from("exec 2>&1\nset -e\numask 022\n");
        if self.python.is_some() {
            script += PYTHON;
        }
        if self.packages {
            script += NODE;
        }
        if self.tsx {
            script += TSX;
        }
        script += "chmod -R a+rX .\n";
        script
    }
}

/// A file of the agent's folder, if it is there: a file itself, no link out of the folder.
fn read_file(src: &Path, name: &str) -> Result<Option<String>> {
    let path = src.join(name);
    let failed = |source| Error::Folder { doing: "read", path: path.clone(), source };
    let meta = match path.metadata() {
        Ok(meta) if meta.is_file() => meta,
        _ => return Ok(None),
    };
    if !path.canonicalize().map_err(failed)?.starts_with(src.canonicalize().map_err(failed)?) {
        return Ok(None);
    }
    if meta.len() > MAX_FILE {
        return Err(Error::TooLarge {
            what: "A file that lists the agent's dependencies",
            limit: format!("{} MiB", MAX_FILE >> 20),
        });
    }
    let bytes = std::fs::read(&path).map_err(failed)?;
    String::from_utf8(bytes).map(Some).map_err(|_| malformed(name, "it is not UTF-8"))
}

fn malformed(name: &str, why: &str) -> Error {
    Error::Invalid {
        message: format!("The agent's {name} cannot be read: {}", why.lines().next().unwrap_or_default()),
        hint: Some(format!("Correct it, or name it under ignore in superserve.yaml: {name}")),
    }
}

/// Whether a `requirements.txt` has more than comments.
fn asks(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The dependencies in a `pyproject.toml`, a line each.
fn listed_in_project(text: &str) -> Result<String> {
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| malformed("pyproject.toml", error.message()))?;
    let listed = table.get("project").and_then(|project| project.get("dependencies"));
    let mut lines = String::new();
    for item in listed.and_then(toml::Value::as_array).into_iter().flatten() {
        match item.as_str().filter(|item| !item.contains(['\n', '\r']) && !item.trim_start().starts_with('-'))
        {
            Some(item) => lines += &format!("{}\n", item.trim()),
            None => return Err(malformed("pyproject.toml", "a dependency is no requirement")),
        }
    }
    Ok(lines)
}

/// Whether a `package.json` names other packages.
fn asks_in_package(text: &str) -> Result<bool> {
    let package: Value =
        serde_json::from_str(text).map_err(|error| malformed("package.json", &error.to_string()))?;
    let names =
        |field: &str| package.get(field).and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    Ok(["dependencies", "devDependencies", "optionalDependencies"].into_iter().any(names))
}

/// Whether what is installed depends on other files of the agent than this one. Rather once too often.
fn is_local(text: &str) -> bool {
    const SIGNS: [&str; 8] =
        ["file:", "link:", "./", "../", "\"workspaces\"", "install\":", "\"prepare\"", "${"];
    SIGNS.iter().any(|sign| text.contains(sign))
        || text.lines().any(|line| line.trim_start().starts_with(['-', '/']))
}

/// Whether a command runs a script by tsx: the original's command line deploys TypeScript so, as its server had tsx.
fn runs_tsx(line: &str) -> bool {
    let argv = command::argv(line).unwrap_or_default();
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tsx", ..] => true,
        ["npx", rest @ ..] => rest.iter().find(|word| !word.starts_with('-')) == Some(&"tsx"),
        ["node", rest @ ..] => {
            rest.contains(&"--import=tsx") || rest.windows(2).any(|two| two == ["--import", "tsx"])
        }
        _ => false,
    }
}

/// The Python program that the agent's command runs, or the usual one.
fn python_of(line: &str, path: &str) -> String {
    let first = command::argv(line).ok().and_then(|argv| argv.into_iter().next()).unwrap_or_default();
    if is_python(&first) { known_as(&first, path).to_owned() } else { "python3".to_owned() }
}

/// The name under which a program is there: Debian has Python as `python3` alone, and the original's agents say `python`.
pub fn known_as<'a>(program: &'a str, path: &str) -> &'a str {
    let is_there = |name| program_on(name, path).is_some();
    if program == "python" && !is_there("python") && is_there("python3") { "python3" } else { program }
}

/// Whether it is a name of Python's program.
pub fn is_python(program: &str) -> bool {
    program.strip_prefix("python").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// uv, if the server has it.
pub fn uv(path: &str) -> Option<PathBuf> {
    program_on("uv", path)
}

/// The program of this name that would be run.
fn program_on(name: &str, path: &str) -> Option<PathBuf> {
    runtimes::find(name, path).map(|runtime| runtime.program).or_else(|| {
        SYSTEM_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|program| program.is_file())
    })
}

/// Which edition of a program it is, found out without running it.
fn edition(program: &str, path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    let found = program_on(program, path).and_then(|program| program.canonicalize().ok());
    let known = found.and_then(|program| Some((program.metadata().ok()?, program)));
    match known {
        Some((meta, program)) => format!("{} {} {}", program.display(), meta.len(), meta.mtime()),
        None => format!("{program}, which is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn plan(files: &[(&str, &str)], source_hash: &str) -> Result<Option<Plan>> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Plan::of(folder.path(), "python3 agent.py", PATH, source_hash)
    }

    fn hash(files: &[(&str, &str)], source_hash: &str) -> String {
        plan(files, source_hash).expect("readable").expect("a plan").hash
    }

    #[test]
    fn an_agent_that_asks_for_nothing_has_no_plan() {
        for files in [
            &[][..],
            &[("requirements.txt", "# nothing\n\n")],
            &[("pyproject.toml", "[project]\nname = 'x'\n")],
            &[("pyproject.toml", "[tool.black]\n")],
            &[("package.json", r#"{"name": "x", "dependencies": {}}"#)],
            &[("package-lock.json", "{}"), ("uv.lock", "")],
        ] {
            assert_eq!(plan(files, "").expect("readable"), None, "{files:?}");
        }
    }

    #[test]
    fn the_hash_is_of_all_that_decides() {
        let one = hash(&[("requirements.txt", "requests==2\n")], "a");
        assert_eq!(one, hash(&[("requirements.txt", "requests==2\n"), ("agent.py", "x")], "b"));
        assert_ne!(one, hash(&[("requirements.txt", "requests==3\n")], "a"));
        let package = ("package.json", r#"{"dependencies": {"x": "1"}}"#);
        let node = hash(&[package], "a");
        assert_eq!(node, hash(&[package], "b"));
        assert_ne!(node, hash(&[package, ("package-lock.json", "{}")], "a"));
        assert_ne!(node, one);
        for local in ["./x.whl\n", "-e .\n", "-r more.txt\n", "x @ file:///workspace/x\n", "/workspace/x\n"] {
            let files = [("requirements.txt", local)];
            assert_ne!(hash(&files, "a"), hash(&files, "b"), "{local}");
        }
    }

    #[test]
    fn dependencies_of_a_project_are_written_out() {
        let text = "[project]\ndependencies = ['requests>=2', ' rich ']\n";
        let python =
            plan(&[("pyproject.toml", text)], "").expect("readable").expect("a plan").python.expect("python");
        assert_eq!(python.written.as_deref(), Some("requests>=2\nrich\n"));
        // What is no requirement could be an option of pip.
        for wrong in [
            "[project",
            "[project]\ndependencies = ['-r /etc/passwd']",
            "[project]\ndependencies = [1]",
            "[project]\ndependencies = [\"a\\n--x\"]",
        ] {
            assert!(matches!(plan(&[("pyproject.toml", wrong)], ""), Err(Error::Invalid { .. })), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_malformed_or_lie_elsewhere_are_not_taken() {
        assert!(matches!(plan(&[("package.json", "{")], ""), Err(Error::Invalid { .. })));
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("requirements.txt")).expect("a link");
        assert_eq!(Plan::of(folder.path(), "python3 a.py", PATH, "").expect("readable"), None);
        std::fs::write(folder.path().join("package.json"), vec![b' '; (MAX_FILE + 1) as usize])
            .expect("a file");
        assert!(matches!(Plan::of(folder.path(), "sh", PATH, ""), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn tsx_is_brought_where_nothing_else_does() {
        let plan = |line: &str, files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().expect("a folder");
            for (name, text) in files {
                std::fs::create_dir_all(folder.path().join(name).parent().expect("a folder"))
                    .expect("a folder");
                std::fs::write(folder.path().join(name), text).expect("a file");
            }
            Plan::of(folder.path(), line, PATH, "").expect("readable")
        };
        let other = ("package.json", r#"{"dependencies": {"x": "1"}}"#);
        for line in ["npx tsx agent.ts", "npx -y tsx ./a.ts", "tsx a.ts", "node --import tsx ./a.ts"] {
            let alone = plan(line, &[]).expect(line);
            assert!(alone.tsx && !alone.packages && alone.script().contains("--no-save"), "{line}");
            let both = plan(line, &[other]).expect(line);
            assert!(both.tsx && both.packages && both.hash != alone.hash, "{line}");
            assert_eq!(plan(line, &[("node_modules/tsx/package.json", "{}")]), None, "{line}");
            let own = ("package.json", r#"{"devDependencies": {"tsx": "4"}}"#);
            assert!(!plan(line, &[own]).expect(line).tsx, "{line}");
        }
        for line in ["npx other tsx", "node agent.js", "node --import ./tsx.js a.js", "echo tsx"] {
            assert_eq!(plan(line, &[]), None, "{line}");
        }
    }

    #[test]
    fn the_commands_own_python_counts() {
        assert_eq!(python_of("python3.12 agent.py", ""), "python3.12");
        assert_eq!(python_of("sh run.sh", ""), "python3");
        assert_eq!(python_of("pythonic x", ""), "python3");
    }
}
