//! An agent's command line: split into words, or given to `sh` where it needs one.

use super::{Error, Result};

/// The program and arguments of a command line.
///
/// Errors: it is empty, or a quote in it is not closed.
pub fn argv(command: &str) -> Result<Vec<String>> {
    let command = command.trim();
    if command.contains('\0') {
        return Err(Error::Invalid {
            message: "The agent's command contains a NUL character".into(),
            hint: None,
        });
    }
    let words = shell_words::split(command).map_err(|_| Error::Invalid {
        message: format!("The agent's command has a quote that is not closed: {command}"),
        hint: Some("Correct command in superserve.yaml.".into()),
    })?;
    match words.first() {
        None => Err(no_command()),
        Some(program) if program.is_empty() => Err(no_command()),
        Some(_) if needs_shell(command) => Ok(vec!["sh".into(), "-c".into(), command.into()]),
        Some(_) => Ok(words),
    }
}

/// What is said of an agent without a command.
pub fn no_command() -> Error {
    Error::Invalid {
        message: "The agent has no command".into(),
        hint: Some(
            "Write one into superserve.yaml (command: python agent.py), or deploy a script: superserve deploy agent.py"
                .into(),
        ),
    }
}

/// Whether the words alone would not mean what a shell makes of the line.
fn needs_shell(command: &str) -> bool {
    let mut quote = None;
    let mut chars = command.chars();
    let mut at_word_start = true;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (Some(_), '$' | '`') => return true,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '~' | '#') if at_word_start => return true,
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '\n') => {
                return true;
            }
            (None, _) => {}
        }
        at_word_start = quote.is_none() && c.is_whitespace();
    }
    // `NAME=value program` sets a variable first.
    command.split_whitespace().next().is_some_and(|word| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        argv(command).expect("a command")
    }

    #[test]
    fn plain_words_need_no_shell() {
        assert_eq!(words("python agent.py"), ["python", "agent.py"]);
        assert_eq!(words(r#"sh './my agent.sh' "a;b" 'c$d'"#), ["sh", "./my agent.sh", "a;b", "c$d"]);
        assert_eq!(words(r"cat a\ b\;c"), ["cat", "a b;c"]);
    }

    #[test]
    fn what_a_shell_means_goes_to_a_shell() {
        for line in [
            "a | b",
            "a && b",
            "cat < x",
            "echo $HOME",
            "echo \"$HOME\"",
            "echo `date`",
            "A=1 python x",
            "ls *.py",
            "cat ~/x",
            "a;b",
            "a\nb",
        ] {
            assert_eq!(words(line), ["sh", "-c", line], "{line}");
        }
    }

    #[test]
    fn nothing_and_half_a_quote_are_refused() {
        for line in ["", "  ", "''", "echo 'a", "a\0b"] {
            assert!(matches!(argv(line), Err(Error::Invalid { .. })), "{line:?}");
        }
    }
}
