//! Any text as `--where` takes it: it is compiled and checked, or refused with a sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod engine;

fuzz_target!(|text: &str| {
    engine::with(|engine| {
        if let Err(error) = engine.check_expression(text) {
            assert!(!error.to_string().is_empty());
        }
    });
});
