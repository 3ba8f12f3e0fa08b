//! `help functions` and `help man`.

use std::path::Path;
use std::rc::Rc;

use clap::Command;
use serde_json::Value;

use super::connection::{Route, Way};
use super::error::{self, Report};
use super::manual;
use super::server::Result;
use super::ui::{Colour, Ui};
use crate::config::{self, Config};
use crate::render;
use crate::script::reference::Entry;
use crate::script::{
    Access, Engine, Host, Interrupt, Limits, Options, Reference, Terminal, on_script_thread,
};

/// What `help` tells besides the help of a command.
pub const PAGES: [&str; 2] = ["functions", "man"];

/// The functions that scripts can call. Asks no server.
pub fn reference(config: &Config) -> std::io::Result<Reference> {
    let config = config.clone();
    on_script_thread(move || {
        let terminal = Rc::new(Ui::new(Colour::Never));
        let host = Host {
            connection: Rc::new(Route { way: Way::local(&config), terminal: terminal.clone() }),
            terminal,
            clock: config.clock,
            options: Options::default(),
            fields: Rc::new([]),
            interrupt: Interrupt::default(),
            limits: Limits::default(),
            shell: Rc::new(super::shell::LocalShell),
            access: Access::default(),
            env: Rc::new(config::environment),
        };
        Engine::new(host).reference()
    })
}

/// How `help functions` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// With these fields alone, if any are named.
    Json(&'a [String]),
    Markdown,
    Text,
}

/// Tells all functions in short, or those that `name` means in full.
pub fn functions(config: &Config, terminal: &dyn Terminal, name: Option<&str>, form: Form<'_>) -> Result {
    let reference = reference(config).map_err(|error| Report::io(&error))?;
    let text = match (name, form) {
        (None, Form::Json(fields)) => {
            let all: Vec<Value> = reference.entries().iter().map(Entry::json).collect();
            render::pretty(&render::only(all.into(), fields))
        }
        (None, Form::Markdown) => reference.markdown(),
        (None, Form::Text) => reference.overview(),
        (Some(name), form) => {
            let found = reference.find(name);
            if found.is_empty() {
                let hint = reference.suggestion(name);
                return Err(Report {
                    exit: error::NOT_FOUND,
                    code: "not_found",
                    ..Report::usage(
                        format!("Function not found: scripts can call nothing that is named '{name}'"),
                        hint.unwrap_or_else(|| "Run superserve help functions to see them all.".to_owned()),
                    )
                });
            }
            match form {
                Form::Json(fields) => {
                    let found: Vec<Value> = found.iter().map(|entry| entry.json()).collect();
                    render::pretty(&render::only(found.into(), fields))
                }
                Form::Markdown | Form::Text => {
                    found.iter().map(|entry| entry.text()).collect::<Vec<_>>().join("\n")
                }
            }
        }
    };
    terminal.out(&text).map(|()| 0).map_err(|error| Report::io(&error))
}

/// Writes a page for each command into a folder, which is made if it isn't there; without one prints the main page.
pub fn man(tree: Command, terminal: &dyn Terminal, folder: Option<&Path>, dry_run: bool) -> Result {
    let pages = manual::pages(tree);
    let Some(folder) = folder else {
        let main = pages.into_iter().find(|page| page.name == manual::MAIN).map(|page| page.text);
        return terminal.out(&main.unwrap_or_default()).map(|()| 0).map_err(|error| Report::io(&error));
    };
    if dry_run {
        terminal.err(&format!("would write {} pages to {}\n", pages.len(), folder.display()));
        return Ok(0);
    }
    let failed = |path: &Path, error: &std::io::Error| Report {
        exit: error::FAILED,
        code: "io",
        ..Report::usage(
            format!("cannot write {}: {error}", path.display()),
            "Name a folder that you may write.",
        )
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for page in &pages {
        let path = folder.join(&page.name);
        std::fs::write(&path, &page.text).map_err(|error| failed(&path, &error))?;
    }
    terminal.err(&format!("✓ {} pages written to {}\n", pages.len(), folder.display()));
    Ok(0)
}
