//! Any text as a script's header: it is read, or refused with a line that it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use superserve::script::header::Header;

fuzz_target!(|text: &str| {
    match Header::parse(text) {
        Ok(header) => {
            assert!(header.is_present || header == Header::default());
            for argument in &header.arguments {
                assert!(!argument.name.is_empty() && argument.name.is_ascii());
            }
        }
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line));
            assert!(!error.message.is_empty());
        }
    }
});
