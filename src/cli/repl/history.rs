//! What was typed, kept from REPL to REPL in a file that nobody else may read, without secrets.

use std::path::{Path, PathBuf};

use rustyline::Editor;
use rustyline::history::FileHistory;

use super::editing::Editing;
use crate::script::carries_secret;

/// How many inputs are kept.
pub const SIZE: usize = 10_000;

/// The file of a REPL's history.
pub struct History {
    file: PathBuf,
}

impl History {
    /// Gives the editor what earlier REPLs have left. A history that can't be read or written is no reason to fail.
    pub fn open(file: &Path, editor: &mut Editor<Editing<'_>, FileHistory>) -> Self {
        // There is none at the first start.
        let _ = editor.load_history(file);
        Self { file: file.to_owned() }
    }

    /// Keeps an input at once, so that it is there whatever becomes of this REPL; not one that begins with a blank or
    /// looks as if it carries a secret.
    pub fn remember(&self, editor: &mut Editor<Editing<'_>, FileHistory>, input: &str) {
        if !is_kept(input) || !editor.add_history_entry(input).unwrap_or(false) {
            return;
        }
        if self.make().is_ok() {
            let _ = editor.append_history(&self.file);
        }
    }

    /// Makes the file, for its owner alone from the first byte on.
    fn make(&self) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        if let Some(folder) = self.file.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let is_new = !self.file.exists();
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.file)?;
        if is_new {
            // The editor's mark of a file in which a line may be many.
            std::io::Write::write_all(&mut &file, b"#V2\n")?;
        }
        Ok(())
    }
}

fn is_kept(input: &str) -> bool {
    !input.starts_with(char::is_whitespace) && !carries_secret(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_secrets_are_left_out() {
        assert!(is_kept("list()"));
        assert!(!is_kept(" list()"));
        assert!(!is_kept("let token = \"x\""));
        assert!(!is_kept(":type \"sk-abcdefgh12345678\""));
    }
}
