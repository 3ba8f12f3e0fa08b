//! The commands as man pages, from the tree of commands: what scripts' headers say goes in as it goes into `--help`.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::error::EXIT_CODES;
use crate::config::{self, KEYS};

/// The name of the main page.
pub const MAIN: &str = "superserve.1";

/// What stands above every page.
const MANUAL: &str = "Superserve Manual";

/// What the program reads of the environment besides its settings.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "SUPERSERVE_HOME",
        "The folder of all state; by default superserve in the platform's data folder, ~/.local/share.",
    ),
    ("NO_COLOR, CLICOLOR, CLICOLOR_FORCE", "Whether colours are used where --color is auto."),
    ("PATH", "Where the interpreters of agents are looked for."),
];

/// What lies in the home.
const FILES: [(&str, &str); 6] = [
    ("config.toml", "The settings. A setting with a dot is a key of a table: [turn] timeout = \"5m\"."),
    (
        "scripts/",
        "Your own commands: fleet/tidy.rhai is superserve fleet tidy, sessions/list.rhai goes before the bundled one.",
    ),
    ("superserve.db", "Agents, sessions and transcripts."),
    ("history", "The lines of the REPL."),
    ("server.log", "What the server has to say; superserve server logs prints its end."),
    ("run/server.sock", "The server's socket."),
];

/// One page: `superserve-sessions-list.1` and its roff.
#[derive(Clone, Debug)]
pub struct Page {
    pub name: String,
    pub text: String,
}

/// A page for each command and group of commands.
pub fn pages(tree: Command) -> Vec<Page> {
    let mut tree = tree;
    tree.build();
    let mut pages = Vec::new();
    collect(&tree, None, &mut pages);
    pages
}

fn collect(command: &Command, parent: Option<&str>, pages: &mut Vec<Page>) {
    pages.push(page(command, parent));
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, Some(&name), pages);
    }
}

fn page(command: &Command, parent: Option<&str>) -> Page {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone().subcommand_value_name("COMMAND"));
    // Without a day, so that the same program always writes the same pages.
    let version = env!("CARGO_PKG_VERSION");
    let mut bytes = format!(".TH \"{name}\" \"1\" \"\" \"superserve {version}\" \"{MANUAL}\"\n").into_bytes();
    // Writing into memory doesn't fail.
    let _ = man.render_name_section(&mut bytes);
    let _ = man.render_synopsis_section(&mut bytes);
    let _ = man.render_description_section(&mut bytes);
    let _ = man.render_options_section(&mut bytes);
    let mut roff = Roff::new();
    let below: Vec<&Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    if !below.is_empty() {
        let rows = below.iter().map(|one| {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            (vec![bold(format!("{name}-{}", one.get_name())), roman("(1)")], about)
        });
        section(&mut roff, "COMMANDS", rows);
    }
    let examples = examples(command);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for example in examples {
            roff.text([roman(example)]);
        }
        roff.control("fi", []);
    }
    if parent.is_none() {
        let rows = EXIT_CODES.iter().map(|(code, means)| (vec![bold(code.to_string())], (*means).to_owned()));
        section(&mut roff, "EXIT STATUS", rows);
        roff.control("PP", []);
        roff.text([roman("A script's own exit(n) goes before these.")]);
        let known = ENVIRONMENT.iter().map(|(name, about)| (vec![bold(*name)], (*about).to_owned()));
        let settings = KEYS.iter().map(|key| {
            let about = key.about.replace('`', "");
            let default = key.default.replace('`', "");
            let about = format!("The setting {}: {about}. By default {default}.", key.name);
            (vec![bold(config::variable(key.name))], about)
        });
        section(&mut roff, "ENVIRONMENT", known.chain(settings));
        let files = FILES
            .iter()
            .map(|(name, about)| (vec![italic("$SUPERSERVE_HOME/"), italic(*name)], (*about).to_owned()));
        section(&mut roff, "FILES", files);
    }
    let mut others: Vec<Inline> = Vec::new();
    let also = match parent {
        Some(parent) => vec![parent.to_owned()],
        None => below.iter().map(|one| format!("{name}-{}", one.get_name())).collect(),
    };
    for other in also {
        let comma = if others.is_empty() { "" } else { ", " };
        others.extend([roman(comma), bold(other), roman("(1)")]);
    }
    if !others.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        roff.text(others);
    }
    let _ = roff.to_writer(&mut bytes);
    Page { name: format!("{name}.1"), text: String::from_utf8_lossy(&bytes).into_owned() }
}

/// A heading and what it lists: what is told, and what it says.
fn section(roff: &mut Roff, heading: &str, rows: impl Iterator<Item = (Vec<Inline>, String)>) {
    roff.control("SH", [heading]);
    for (told, about) in rows {
        roff.control("TP", []);
        roff.text(told);
        roff.text([roman(about)]);
    }
}

/// The examples as `--help` shows them.
fn examples(command: &Command) -> Vec<String> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let Some(examples) = text.strip_prefix("Examples:\n") else { return Vec::new() };
    examples.lines().map(|line| line.trim_start().to_owned()).collect()
}
