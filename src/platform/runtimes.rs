//! Interpreters outside the system's folders: where they really are, and what of the host a sandbox must show.
//!
//! Found without starting anything: by the PATH, by links, by `pyvenv.cfg` and by pyenv's version files. Not found:
//! programs behind other managers' wrapper scripts (asdf, mise, conda run), and those that a shell line or `env`
//! names, since only a command's first word is looked at.

use std::path::{Path, PathBuf};

/// Folders that every sandbox shows.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];
/// So many links are followed.
const MAX_LINKS: usize = 16;

/// A program outside the system's folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// What to run: an absolute path.
    pub program: PathBuf,
    /// What must be seen, read-only, for it to work.
    pub read_only: Vec<PathBuf>,
}

/// Where `program` is, if the first one on `path` lies outside the system's folders.
pub fn find(program: &str, path: &str) -> Option<Runtime> {
    let found = if program.contains('/') {
        // A relative path is one in the workspace.
        Some(PathBuf::from(program)).filter(|program| program.is_absolute())?
    } else {
        on_path(program, path)?
    };
    if is_system(&found) || !is_program(&found) {
        return None;
    }
    let program = behind_pyenv(&found).unwrap_or(found);
    let mut read_only = Vec::new();
    let mut at = program.clone();
    for _ in 0..MAX_LINKS {
        if !is_system(&at)
            && let Some(folder) = shown_for(&at)
            && !read_only.contains(&folder)
        {
            read_only.push(folder);
        }
        match std::fs::read_link(&at) {
            Ok(target) => at = at.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    if let Ok(real) = program.canonicalize()
        && !is_system(&real)
        && let Some(folder) = shown_for(&real)
        && !read_only.contains(&folder)
    {
        read_only.push(folder);
    }
    Some(Runtime { program, read_only })
}

fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|folder| path.starts_with(folder))
}

/// The first program of this name on a PATH, whose folders that are not absolute are passed over.
pub fn on_path(program: &str, path: &str) -> Option<PathBuf> {
    let mut folders = path.split(':').filter(|folder| folder.starts_with('/'));
    folders.find_map(|folder| Some(Path::new(folder).join(program)).filter(|candidate| is_program(candidate)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The folder to show for a program: its installation, or the folder that it is in alone. Never a whole home.
fn shown_for(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    let prefix = folder.parent().filter(|_| folder.ends_with("bin"));
    match prefix {
        Some(prefix) if is_installation(prefix) => Some(prefix.to_owned()),
        _ => Some(folder.to_owned()),
    }
}

fn is_installation(prefix: &Path) -> bool {
    // `~/.local` and homes have `bin` and `lib`, too, and much that is nobody's business.
    if prefix.ends_with(".local")
        || [".bashrc", ".profile", ".ssh", ".local"].iter().any(|name| prefix.join(name).exists())
    {
        return false;
    }
    prefix.parent().is_some() && (prefix.join("pyvenv.cfg").is_file() || prefix.join("lib").is_dir())
}

/// pyenv's shims are scripts that start the program of the version that is chosen: that program.
fn behind_pyenv(shim: &Path) -> Option<PathBuf> {
    let folder = shim.parent()?;
    let root = folder.parent().filter(|root| folder.ends_with("shims") && root.join("versions").is_dir())?;
    let name = shim.file_name()?;
    let chosen = std::fs::read_to_string(root.join("version")).unwrap_or_default();
    let chosen = chosen.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
    let mut all: Vec<String> = std::fs::read_dir(root.join("versions"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    all.sort();
    chosen
        .chain(all.into_iter().rev())
        .map(|version| root.join("versions").join(version).join("bin").join(name))
        .find(|program| is_program(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, "#!/bin/sh\n").expect("a program");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    #[test]
    fn what_the_system_has_is_left_to_it() {
        assert_eq!(find("sh", "/usr/bin:/bin"), None);
        assert_eq!(find("./agent", "/usr/bin"), None);
        assert_eq!(find("no-such-program", "/usr/bin"), None);
    }

    #[test]
    fn a_pyenv_shim_is_seen_through() {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().join(".pyenv");
        program(&root.join("shims/python3"));
        for version in ["3.11.4", "3.12.1"] {
            program(&root.join("versions").join(version).join("bin/python3"));
            std::fs::create_dir(root.join("versions").join(version).join("lib")).expect("a folder");
        }
        let path = format!("{}:/usr/bin", root.join("shims").display());
        let prefix = |version: &str| root.join("versions").join(version);
        let latest = find("python3", &path).expect("a runtime");
        assert_eq!(latest.program, prefix("3.12.1").join("bin/python3"));
        std::fs::write(root.join("version"), "3.11.4\n").expect("a choice");
        let chosen = find("python3", &path).expect("a runtime");
        assert_eq!(chosen.program, prefix("3.11.4").join("bin/python3"));
        assert_eq!(chosen.read_only, [prefix("3.11.4")]);
    }

    #[test]
    fn links_are_followed_and_a_home_is_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("a folder");
        program(&folder.join("node-20/bin/node"));
        std::fs::create_dir(folder.join("node-20/lib")).expect("a folder");
        std::fs::create_dir_all(folder.join("home/bin")).expect("a folder");
        std::fs::create_dir_all(folder.join("home/lib")).expect("a folder");
        std::fs::create_dir_all(folder.join("home/.ssh")).expect("a folder");
        symlink("../../node-20/bin/node", folder.join("home/bin/node")).expect("a link");
        let found = find("node", folder.join("home/bin").to_str().expect("a path")).expect("a runtime");
        assert!(found.read_only.contains(&folder.join("node-20")), "{found:?}");
        assert!(found.read_only.contains(&folder.join("home/bin")), "{found:?}");
        assert!(!found.read_only.contains(&folder.join("home")), "{found:?}");
    }
}
