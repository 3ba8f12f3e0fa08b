//! Any text as a line of the REPL: its validator says whether more must follow.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod engine;

fuzz_target!(|text: &str| {
    engine::with(|engine| {
        engine.completeness(text);
    });
});
