//! Servers that a script names, beside the one that its command speaks to: `at("team").list()`.

use std::sync::Arc;

use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};

use super::ending::{self, Done};
use super::failure::{At, Failure, Fallible};
use super::listing::{self, Listing};
use super::runtime::Runtime;
use super::session::Session;
use super::sessions::{self, Sessions, Whose};
use super::stream::Stream;
use super::target::{Target, on_one_server};

/// A server by its context's name. `Server` in scripts. What it gives belongs to it: a session of it ends there.
#[derive(Clone, Debug)]
pub struct Server(Arc<str>);

impl Server {
    fn runtime(&self, context: &NativeCallContext) -> Fallible<Runtime> {
        Ok(Runtime::of(context)?.at(Some(self.0.clone())))
    }
}

fn named(name: &str) -> Result<Server, Failure> {
    match name.trim() {
        "" => Err(Failure::Usage {
            message: "the server's name is empty".into(),
            hint: Some("Give a context's name; superserve context list shows them.".into()),
        }),
        name => Ok(Server(name.into())),
    }
}

/// Naming a server.
#[export_module]
pub mod server_calls {
    /// The server of this name: a context of `superserve context list`, or `local`. Nothing is asked of it yet. Error: the
    /// name is empty; a name that nobody knows is an error of the first call.
    ///
    /// ```rhai
    /// print(at("local").list().len - list().len);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn at(ctx: NativeCallContext, server: &str) -> Fallible<Server> {
        super::named(server).at(&ctx)
    }
}

/// What can be asked of a server.
#[expect(clippy::unwrap_used, reason = "the macro writes them, of arguments whose types it has checked")]
#[export_module]
pub mod server_methods {
    /// What it is called.
    ///
    /// ```rhai
    /// print(at("local").name);   // local
    /// ```
    #[rhai_fn(get = "name", pure)]
    pub fn name(server: &mut Server) -> String {
        server.0.to_string()
    }

    /// Its name.
    ///
    /// ```rhai
    /// print(at("local"));   // local
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(server: &mut Server) -> String {
        server.0.to_string()
    }

    /// Its sessions, latest activity first, as of the global `list()`. Errors: those of any call; no server is known by
    /// this name.
    ///
    /// ```rhai
    /// table(at("local").list());
    /// ```
    #[rhai_fn(name = "list", pure, volatile, return_raw)]
    pub fn list_all(ctx: NativeCallContext, server: &mut Server) -> Fallible<Sessions> {
        let runtime = server.runtime(&ctx)?;
        Ok(Sessions::asked(&runtime, Listing::all(runtime.now())))
    }

    /// Those that options choose, as of the global `list(options)`. Errors: those of it.
    ///
    /// ```rhai
    /// print(at("local").list(#{ status: "idle" }).len);
    /// ```
    #[rhai_fn(name = "list", pure, volatile, return_raw)]
    pub fn list_some(ctx: NativeCallContext, server: &mut Server, options: Map) -> Fallible<Sessions> {
        let runtime = server.runtime(&ctx)?;
        let asked = listing::Options::read(&ctx, options, runtime.now())?;
        sessions::listed(&ctx, &runtime, asked)
    }

    /// All its sessions one after the other, in constant memory, as of `sessions::each()`. Errors: those of any call, when it
    /// is walked.
    ///
    /// ```rhai
    /// for s in at("local").each() { print(s.id); }
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn each(ctx: NativeCallContext, server: &mut Server) -> Fallible<Stream> {
        Ok(Stream::all(&server.runtime(&ctx)?))
    }

    /// The session with this ID. Errors: `not_found`, `ambiguous`.
    ///
    /// ```rhai
    /// print(at("local").get("5a3f").status);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn get(ctx: NativeCallContext, server: &mut Server, id: &str) -> Fallible<Session> {
        sessions::get(&server.runtime(&ctx)?, id.to_owned()).at(&ctx)
    }

    /// Makes a session ready for its next message. Errors: `ended`, `expired`, `busy`, `not_found`.
    ///
    /// ```rhai
    /// at("local").resume("5a3f").send("what do you know?");
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn resume(ctx: NativeCallContext, server: &mut Server, id: &str) -> Fallible<Session> {
        sessions::resume_session(&server.runtime(&ctx)?, id.to_owned()).at(&ctx)
    }

    /// Makes a session of an agent there. Error: `not_found`.
    ///
    /// ```rhai
    /// print(at("local").create("notes").send("remember to buy milk").text);
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn create(ctx: NativeCallContext, server: &mut Server, agent: &str) -> Fallible<Session> {
        sessions::create_session(&server.runtime(&ctx)?, Whose::Text(agent.to_owned()), None).at(&ctx)
    }

    /// Ends the session with this ID there. Errors: `not_found`, `ambiguous`.
    ///
    /// ```rhai
    /// at("local").end("5a3f");
    /// ```
    #[rhai_fn(pure, volatile, return_raw)]
    pub fn end(ctx: NativeCallContext, server: &mut Server, id: &str) -> Fallible<Session> {
        ending::one(&server.runtime(&ctx)?, Target::Text(id.to_owned())).at(&ctx)
    }

    /// Ends all sessions of an array there, in one request, as of the global `end(array)`. Error: the array holds something
    /// else than sessions and IDs, or a session of another server.
    ///
    /// ```rhai
    /// at("local").end(["5a3f"]);
    /// ```
    #[rhai_fn(name = "end", pure, volatile, return_raw)]
    pub fn end_array(ctx: NativeCallContext, server: &mut Server, ids: Array) -> Fallible<Done> {
        let targets = ids.into_iter().map(Target::read).collect::<Result<Vec<_>, _>>().at(&ctx)?;
        let runtime = server.runtime(&ctx)?;
        if on_one_server(&runtime, &targets).at(&ctx)?.server() != runtime.server() {
            return Err(Failure::hinted(
                format!("these sessions are not on {}", server.0),
                "Take those that this server has listed.",
            ))
            .at(&ctx);
        }
        ending::many(&runtime, targets).at(&ctx)
    }
}
