//! What agents keep secret: setting and deleting. No function gives a value back.

use std::collections::BTreeMap;

use rhai::plugin::*;
use rhai::{Array, ImmutableString, Map, NativeCallContext};

use super::Line;
use super::failure::{At, Failure, Fallible};
use super::runtime::{Change, Runtime};
use crate::render;
use crate::wire::Secret;
use crate::wire::secret::SetSecrets;

fn set(runtime: &Runtime, agent: &str, secrets: BTreeMap<String, Secret>) -> Result<(), Failure> {
    if runtime.options().dry_run {
        let agent = runtime.call(|client| async move { client.agent(agent).await })?;
        let keys = secrets.into_keys().collect::<Vec<_>>().join(", ");
        return runtime.would(&format!("set secrets of {}: {keys}", agent.name));
    }
    let count = secrets.len();
    runtime.call(|client| async move { client.set_secrets(agent, SetSecrets { secrets }).await })?;
    for _ in 0..count {
        runtime.changed(Change::SetSecret);
    }
    Ok(())
}

fn delete(runtime: &Runtime, agent: &str, key: &str) -> Result<(), Failure> {
    if runtime.options().dry_run {
        let agent = runtime.call(|client| async move { client.agent(agent).await })?;
        return runtime.would(&format!("delete the secret {key} of {}", agent.name));
    }
    runtime.call(|client| async move { client.delete_secret(agent, key).await })?;
    runtime.changed(Change::DeleteSecret);
    Ok(())
}

/// Functions in `secrets::`.
#[export_module]
pub mod secret_module {
    /// The keys of an agent's secrets, by its name or ID; nothing gives their values. Error: `not_found`.
    ///
    /// ```rhai
    /// for key in secrets::list("notes") { print(key); }
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn list(ctx: NativeCallContext, agent: &str) -> Fallible<Array> {
        let keys = Runtime::of(&ctx)?.call(|client| async move { client.secrets(agent).await }).at(&ctx)?;
        Ok(keys.into_iter().map(Dynamic::from).collect())
    }

    /// Sets a secret of an agent, by its name or ID: a variable of its environment from its next start on. Errors:
    /// `not_found`; the key is none, or one that superserve sets itself; the value is larger than 64 KiB.
    ///
    /// ```rhai
    /// secrets::set("notes", "API_KEY", secrets::ask("API key: "));
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn set(ctx: NativeCallContext, agent: &str, key: &str, value: &str) -> Fallible<()> {
        let secrets = BTreeMap::from([(key.to_owned(), Secret::new(value.to_owned()))]);
        super::set(&Runtime::of(&ctx)?, agent, secrets).at(&ctx)
    }

    /// Sets several secrets of an agent, all or none. Errors: those of `secrets::set` with one; a value that is no text.
    ///
    /// ```rhai
    /// let values = #{};
    /// for key in ["API_KEY", "API_USER"] { values[key] = secrets::ask(`${key}: `); }
    /// secrets::set("notes", values);
    /// ```
    #[rhai_fn(name = "set", volatile, return_raw)]
    pub fn set_many(ctx: NativeCallContext, agent: &str, values: Map) -> Fallible<()> {
        let read = |(key, value): (rhai::Identifier, Dynamic)| match value.into_immutable_string() {
            Ok(text) => Ok((key.to_string(), Secret::new(text.to_string()))),
            Err(_) => Err(Failure::script(format!("the value of {key} is no text"))),
        };
        let secrets = values.into_iter().map(read).collect::<Result<BTreeMap<_, _>, _>>().at(&ctx)?;
        super::set(&Runtime::of(&ctx)?, agent, secrets).at(&ctx)
    }

    /// Deletes a secret of an agent, by its name or ID. Error: `not_found`, also if the secret isn't set.
    ///
    /// ```rhai
    /// secrets::delete("notes", "API_KEY");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn delete(ctx: NativeCallContext, agent: &str, key: &str) -> Fallible<()> {
        super::delete(&Runtime::of(&ctx)?, agent, key).at(&ctx)
    }

    /// Asks for a text on the terminal, without showing what is typed. Where stdin is no terminal, all that is to be read
    /// from it, without a final new line. Errors: stdin can't be read, is no UTF-8, or has nothing.
    ///
    /// ```rhai
    /// let key = secrets::ask("API key: ");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn ask(ctx: NativeCallContext, question: &str) -> Fallible<ImmutableString> {
        let runtime = Runtime::of(&ctx)?;
        if runtime.options().dry_run {
            return Ok(ImmutableString::new());
        }
        let line = runtime.host().terminal.read_hidden(&render::clean(question)).at(&ctx)?;
        runtime.paused();
        match line {
            Line::Text(text) => Ok(text.into()),
            Line::End => Err(Failure::Usage {
                message: "a value is needed, and there is none to read".into(),
                hint: Some(
                    "Type it at a terminal, or pipe it in: printf %s \"$VALUE\" | superserve …".into(),
                ),
            }
            .at(&ctx)),
            Line::Interrupted => {
                runtime.host().interrupt.set();
                Err(Failure::Stopped.at(&ctx))
            }
        }
    }
}
