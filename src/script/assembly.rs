//! The engine's assembly: limits, what scripts can call, and what the language leaves out.

use rhai::{Dynamic, Engine, Position, exported_module};

use super::agents::{self, Agent, Agents};
use super::column;
use super::control;
use super::duration::{self, Span, refuse_mixed_comparisons};
use super::ending::{self, Done, DoneRow};
use super::failure::{self, Failure};
use super::files;
use super::fixture;
use super::growth;
use super::lists;
use super::message::{self, Message, Reply};
use super::output;
use super::progress::{self, Progress};
use super::resolver::{Resolver, Sources};
use super::runtime::{Passed, Runtime};
use super::secrets;
use super::server::{self, Server};
use super::session::{self, Session};
use super::sessions::{self, Sessions};
use super::shell::{self, Ran};
use super::stream::{self, Stream};
use super::text;
use super::time::{self, Moment};
use super::wait;
use super::watching;
use super::workspace;

/// How deep expressions may nest, at the top and in functions. The engine's own default is tiny in debug builds.
const EXPRESSION_DEPTH: usize = 128;

pub fn assemble(runtime: &Runtime, sources: &Sources) -> Engine {
    let mut engine = Engine::new();
    language(&mut engine, runtime, sources);
    types(&mut engine);
    functions(&mut engine);
    engine
}

fn language(engine: &mut Engine, runtime: &Runtime, sources: &Sources) {
    let limits = runtime.host().limits;
    engine
        .set_max_strings_interned(0)
        .set_max_call_levels(limits.call_levels)
        .set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH)
        // The engine's own limits of sizes count all that a value holds at every call on it, so that `push` gets slower with
        // each element; the runtime looks at the memory instead.
        .set_fail_on_invalid_map_property(true)
        // Unknown variables are found by the check before a script runs, all of them; `eval` would escape it.
        .disable_symbol("eval")
        .set_default_tag(Dynamic::from(runtime.clone()))
        .set_module_resolver(Resolver::new(sources.clone()));
    let at_progress = runtime.clone();
    engine.on_progress(move |_| at_progress.is_stopped().then_some(Dynamic::UNIT));
    let at_print = runtime.clone();
    engine.on_print(move |text| at_print.print(&format!("{text}\n")));
    let at_debug = runtime.clone();
    engine.on_debug(move |text, _, _| at_debug.err(&format!("{text}\n")));
    let at_variable = runtime.clone();
    let levels = limits.call_levels;
    // Functions don't see the script's variables; `args` is meant to be seen everywhere. What stops a script inside of a
    // function would be told with the place of the call alone: here it gets its own.
    #[expect(deprecated, reason = "the call is stable in all but name")]
    engine.on_var(move |name, _, context| {
        let level = context.call_level();
        if level >= levels && at_variable.passed().is_none() {
            at_variable.pass(Passed::Levels);
        }
        if let Some(passed) = at_variable.passed() {
            let failure = if level == 0 { Failure::Stopped } else { Failure::Passed(passed) };
            return Err(failure.at_position(Position::NONE));
        }
        Ok((name == "args" && !context.scope().contains("args")).then(|| at_variable.args()))
    });
}

fn types(engine: &mut Engine) {
    engine
        .register_type_with_name::<Agent>("Agent")
        .register_type_with_name::<Agents>("Agents")
        .register_type_with_name::<Done>("Done")
        .register_type_with_name::<DoneRow>("DoneRow")
        .register_type_with_name::<Failure>("Error")
        .register_type_with_name::<Message>("Message")
        .register_type_with_name::<Moment>("Time")
        .register_type_with_name::<Progress>("Progress")
        .register_type_with_name::<Ran>("Ran")
        .register_type_with_name::<Reply>("Reply")
        .register_type_with_name::<Server>("Server")
        .register_type_with_name::<Session>("Session")
        .register_type_with_name::<Sessions>("Sessions")
        .register_type_with_name::<Span>("Duration")
        .register_type_with_name::<Stream>("Stream")
        .register_iterator::<Agents>()
        .register_iterator::<Done>()
        .register_iterator_result::<Sessions, Dynamic>()
        .register_iterator_result::<Stream, Dynamic>();
    refuse_mixed_comparisons::<Span>(engine, "Compare with a duration: 2.hours, 30.minutes.");
    refuse_mixed_comparisons::<Moment>(
        engine,
        "Compare with a time: ago(2.days), time(\"2026-03-09T10:15:00Z\").",
    );
}

fn functions(engine: &mut Engine) {
    for module in [
        exported_module!(agents::agent_methods),
        exported_module!(duration::duration_methods),
        exported_module!(ending::ending_methods),
        exported_module!(failure::failure_methods),
        exported_module!(files::file_functions),
        exported_module!(growth::growing_functions),
        exported_module!(message::message_methods),
        exported_module!(output::output_functions),
        exported_module!(column::column_functions),
        exported_module!(control::control_functions),
        exported_module!(server::server_calls),
        exported_module!(server::server_methods),
        exported_module!(text::text_functions),
        exported_module!(lists::agent_list),
        exported_module!(lists::agent_sequence),
        exported_module!(lists::agent_source),
        exported_module!(lists::array_functions),
        exported_module!(lists::array_sequence),
        exported_module!(lists::array_source),
        exported_module!(lists::done_list),
        exported_module!(lists::done_sequence),
        exported_module!(lists::done_source),
        exported_module!(lists::session_list),
        exported_module!(lists::session_sequence),
        exported_module!(lists::session_source),
        exported_module!(lists::stream_source),
        exported_module!(session::session_methods),
        exported_module!(shell::shell_functions),
        exported_module!(sessions::session_calls),
        exported_module!(sessions::sessions_methods),
        exported_module!(stream::stream_functions),
        exported_module!(time::time_methods),
        exported_module!(progress::progress_functions),
        exported_module!(wait::wait_calls),
        exported_module!(workspace::workspace_methods),
    ] {
        engine.register_global_module(module.into());
    }
    let mut in_sessions = exported_module!(sessions::session_calls);
    in_sessions.combine(exported_module!(sessions::session_module));
    in_sessions.combine(exported_module!(wait::wait_calls));
    in_sessions.combine(exported_module!(watching::watch_functions));
    engine.register_static_module("sessions", in_sessions.into());
    engine.register_static_module("agents", exported_module!(agents::agent_module).into());
    engine.register_static_module("secrets", exported_module!(secrets::secret_module).into());
    engine.register_static_module("fixture", exported_module!(fixture::fixture_module).into());
}
