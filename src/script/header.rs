//! A script's header: the comment at its beginning that is its interface.
//!
//! ```text
//! //! What it does, in a sentence; more sentences may follow.
//! //!
//! //! @arg name             a required argument     name?     an optional one
//! //! @arg name...          one or more             name...?  any number
//! //! @arg name <VALUE>     the same, with what its value is called in the usage instead of NAME
//! //! @option name <VALUE>  an option with a value  -n name <VALUE> with a short form; <EXPR> may begin with a dash
//! //! @flag name            a flag                  -f name         with a short form
//! //! @example superserve sessions list --status idle
//! ```
//!
//! What a value is called says what it is, and so how a shell completes it: `SESSION` or `ID`, `AGENT`, `STATUS`, `FIELD`,
//! `FIELDS` (several, with commas between), `EXPR` (over the fields of a session), `FILE` or `PATH`, `DIR`, `SCRIPT` (the name
//! of a command), `FUNCTION`. What has no capital letters is a word to choose. Several stand with `|` between: `<AGENT|PATH>`,
//! `<auto|native|none>`. Where it says nothing of these, the name of the argument itself counts: `agent <NAME>`, `id`.

/// The flags that belong to every script.
pub const RESERVED: [&str; 12] = [
    "allow-path",
    "allow-sh",
    "color",
    "dry-run",
    "help",
    "json",
    "max-memory",
    "max-operations",
    "max-time",
    "no-trunc",
    "version",
    "yes",
];
/// Their short forms.
const RESERVED_SHORT: [char; 3] = ['V', 'h', 'y'];

/// What a script says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Whether there is one: a script without takes any words as its arguments.
    pub is_present: bool,
    /// The text before the first tag.
    pub about: String,
    pub arguments: Vec<Argument>,
    pub examples: Vec<String>,
}

/// One argument, option or flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As it is typed, without dashes; inside the script `-` is `_`.
    pub name: String,
    pub kind: Kind,
    /// What the value of a positional is called in the usage, if that was given.
    pub value: Option<String>,
    pub short: Option<char>,
    pub about: String,
}

impl Argument {
    /// What its value is called; empty for a flag.
    pub fn value_name(&self) -> String {
        match &self.kind {
            Kind::Flag => String::new(),
            Kind::Option(value) => value.clone(),
            Kind::Positional { .. } => self.value.clone().unwrap_or_else(|| self.name.to_uppercase()),
        }
    }
}

/// What sort of argument it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Flag,
    /// With the name of its value.
    Option(String),
    Positional {
        required: bool,
        many: bool,
    },
}

/// A header that says something wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HeaderError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl Header {
    /// Reads the header of a script's text; a script without one gives an empty header.
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        let mut header = Self::default();
        for (line, number) in text.lines().zip(1..) {
            if number == 1 && line.starts_with("#!") {
                continue;
            }
            let Some(comment) = line.strip_prefix("//!") else { break };
            header.is_present = true;
            header.take(comment.trim()).map_err(|message| HeaderError { line: number, message })?;
        }
        header.about.truncate(header.about.trim_end().len());
        Ok(header)
    }

    /// The first line of the description.
    pub fn summary(&self) -> &str {
        self.about.lines().next().unwrap_or_default()
    }

    fn take(&mut self, comment: &str) -> Result<(), String> {
        let Some(tagged) = comment.strip_prefix('@') else {
            if self.arguments.is_empty() && self.examples.is_empty() {
                self.about.push_str(comment);
                self.about.push('\n');
            }
            return Ok(());
        };
        let (tag, rest) = split_word(tagged);
        match tag {
            "arg" => self.take_positional(rest),
            "example" => {
                self.examples.push(rest.to_owned());
                Ok(())
            }
            "flag" => {
                let (short, name, about) = named(rest)?;
                self.add(Argument { name, kind: Kind::Flag, value: None, short, about: about.to_owned() })
            }
            "option" => {
                let (short, name, rest) = named(rest)?;
                let value = rest
                    .strip_prefix('<')
                    .and_then(|rest| rest.split_once('>'))
                    .filter(|(value, _)| !value.trim().is_empty())
                    .ok_or_else(|| {
                        format!("@option {name} needs its value's name: @option {name} <VALUE> what it is")
                    })?;
                let kind = Kind::Option(value.0.to_owned());
                self.add(Argument { name, kind, value: None, short, about: value.1.trim().to_owned() })
            }
            _ => Err(format!("unknown tag '@{tag}': use @arg, @option, @flag or @example")),
        }
    }

    fn take_positional(&mut self, rest: &str) -> Result<(), String> {
        let (word, about) = split_word(rest);
        let (word, required) = word.strip_suffix('?').map_or((word, true), |word| (word, false));
        let (name, many) = word.strip_suffix("...").map_or((word, false), |word| (word, true));
        let last = self.arguments.iter().rev().find_map(|argument| match argument.kind {
            Kind::Positional { required, many } => Some((required, many)),
            _ => None,
        });
        match last {
            Some((_, true)) => {
                return Err(format!("@arg {name} stands behind one that takes all that follow"));
            }
            Some((false, _)) if required => {
                return Err(format!("@arg {name} is required and stands behind one that is not"));
            }
            _ => {}
        }
        let kind = Kind::Positional { required, many };
        let (value, about) = match value_name(about) {
            Some((value, about)) => (Some(value.to_owned()), about),
            None => (None, about),
        };
        self.add(Argument { name: checked(name)?, kind, value, short: None, about: about.to_owned() })
    }

    fn add(&mut self, argument: Argument) -> Result<(), String> {
        let name = &argument.name;
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("'{name}' belongs to every script and can't be declared"));
        }
        if self.arguments.iter().any(|other| other.name == *name) {
            return Err(format!("'{name}' is declared twice"));
        }
        if let Some(short) = argument.short
            && (RESERVED_SHORT.contains(&short)
                || self.arguments.iter().any(|other| other.short == Some(short)))
        {
            return Err(format!("'-{short}' is taken"));
        }
        self.arguments.push(argument);
        Ok(())
    }
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// What the value is called, if the text begins with that in angle brackets, and what follows. A description may begin with
/// something else in brackets.
fn value_name(text: &str) -> Option<(&str, &str)> {
    let (value, rest) = text.strip_prefix('<')?.split_once('>')?;
    let fits = !value.is_empty()
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'|' | b'.' | b':'))
        && (value.contains('|') || !value.bytes().any(|b| b.is_ascii_lowercase()))
        && (rest.is_empty() || rest.starts_with(char::is_whitespace));
    fits.then(|| (value, rest.trim_start()))
}

/// A name that may have a short form before it, and what follows.
fn named(text: &str) -> Result<(Option<char>, String, &str), String> {
    let (word, rest) = split_word(text);
    let mut letters = word.chars();
    match (letters.next(), letters.next(), letters.next()) {
        (Some('-'), Some(short), None) if short.is_ascii_alphanumeric() => {
            let (name, rest) = split_word(rest);
            Ok((Some(short), checked(name)?, rest))
        }
        _ => Ok((None, checked(word)?, rest)),
    }
}

fn checked(name: &str) -> Result<String, String> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fits {
        Ok(name.to_owned())
    } else {
        Err(format!("'{name}' is no name: use a-z, 0-9 and -, a letter first"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, String) {
        let error = Header::parse(text).expect_err(text);
        (error.line, error.message)
    }

    #[test]
    fn every_tag_is_read() {
        let text = "#!/usr/bin/env -S superserve script\n//! End sessions.\n//! All of them.\n//!\n\
            //! @arg id...  Sessions\n//! @option -a agent <NAME>  Only this agent's\n//! @flag keep-it  Keep\n\
            //! @example superserve x 1\nlet x = 1;\n//! not here\n";
        let header = Header::parse(text).expect("a header");
        assert!(header.is_present);
        assert_eq!(
            (header.about.as_str(), header.summary()),
            ("End sessions.\nAll of them.", "End sessions.")
        );
        assert_eq!(header.examples, ["superserve x 1"]);
        let argument = |name: &str, kind, short, about: &str| Argument {
            name: name.to_owned(),
            kind,
            value: None,
            short,
            about: about.to_owned(),
        };
        assert_eq!(
            header.arguments,
            [
                argument("id", Kind::Positional { required: true, many: true }, None, "Sessions"),
                argument("agent", Kind::Option("NAME".to_owned()), Some('a'), "Only this agent's"),
                argument("keep-it", Kind::Flag, None, "Keep"),
            ]
        );
        assert!(!Header::parse("print(1)").expect("no header").is_present);
    }

    #[test]
    fn a_value_is_called_as_the_header_says() {
        let header = Header::parse(
            "//! @arg id <SESSION>  Which\n//! @arg way <fast|slow>\n//! @arg rest? <what is left>\n//! @option o <X>",
        )
        .expect("a header");
        let told: Vec<(String, &str)> =
            header.arguments.iter().map(|one| (one.value_name(), one.about.as_str())).collect();
        let expected = [("SESSION", "Which"), ("fast|slow", ""), ("REST", "<what is left>"), ("X", "")];
        assert_eq!(told, expected.map(|(value, about)| (value.to_owned(), about)));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert_eq!(
            error("//! x\n//! @flag json\n"),
            (2, "'json' belongs to every script and can't be declared".into())
        );
        assert_eq!(
            error("//! @opt a"),
            (1, "unknown tag '@opt': use @arg, @option, @flag or @example".into())
        );
        assert_eq!(error("//! @flag a\n//! @flag a").1, "'a' is declared twice");
        assert_eq!(error("//! @flag -y force").1, "'-y' is taken");
        assert_eq!(
            error("//! @arg a...\n//! @arg b").1,
            "@arg b stands behind one that takes all that follow"
        );
        assert_eq!(
            error("//! @arg a?\n//! @arg b").1,
            "@arg b is required and stands behind one that is not"
        );
        assert!(error("//! @option agent Only").1.contains("needs its value's name"));
        assert!(error("//! @option agent <>").1.contains("needs its value's name"));
        assert!(error("//! @arg A").1.contains("is no name"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(//! ?@?(arg|option|flag|example)? ?[-a-z<>?.]{0,9} ?.{0,9}\n){0,6}.{0,20}") {
            let _ = Header::parse(&text);
        }

        #[test]
        fn any_text_is_read_or_refused_with_its_line(text in any::<String>(), begins in any::<bool>()) {
            let text = if begins { format!("//! {text}") } else { text };
            match Header::parse(&text) {
                Ok(header) => prop_assert!(header.is_present || header == Header::default()),
                Err(error) => {
                    prop_assert!((1..=text.lines().count()).contains(&error.line));
                    prop_assert!(!error.message.is_empty());
                }
            }
        }
    }
}
