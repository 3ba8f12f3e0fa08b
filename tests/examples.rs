//! `examples/`: the agent of the README.

use std::path::{Path, PathBuf};

use crate::test::Test;

fn notes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/notes")
}

#[test]
fn notes_are_kept_and_told() {
    let test = Test::new();
    test.args(["run", notes().to_str().unwrap(), "remember to buy milk"])
        .stdout("Agent > Noted (1): remember to buy milk\n")
        .stderr("Deployed notes (revision 1)\n\nCompleted in TIME\n")
        .run();
    test.args(["sessions", "send", "@last", "what do you know?"])
        .stdout("I know:\n1. remember to buy milk\n")
        .run();
    test.stop_server();
    test.args(["sessions", "send", "@last", "call Ada"]).stdout("Noted (2): call Ada\n").run();
    for question in ["list", "What do you know?", "  what do you know  ", "LIST"] {
        test.args(["sessions", "send", "@last", question])
            .stdout("I know:\n1. remember to buy milk\n2. call Ada\n")
            .run();
    }
    test.args(["sessions", "send", "@last", "forget 1"]).stdout("Forgotten. Notes left: 1\n").run();
    test.args(["sessions", "send", "@last", "forget 7"]).stdout("There is no note 7.\n").run();
    test.args(["sessions", "send", "@last", "list"]).stdout("I know:\n1. call Ada\n").run();
    // Another session knows nothing of it.
    let other = test.create("notes");
    assert_eq!(test.send(&other, "list"), "I know nothing yet. Tell me something.\n");
}

#[test]
fn odd_notes_are_kept_to_the_letter() {
    let test = Test::new();
    test.deploy(notes());
    let id = test.create("notes");
    let odd =
        ["-n", "-e \\t", "back\\slash \\n", "%s %d", "$HOME `id` $(id)", "\"quoted\" 'twice'", "日本語", "*"];
    for (note, number) in odd.iter().zip(1..) {
        let reply = test.args(["sessions", "send", &id, "--", note]).any_stdout().run().stdout;
        assert_eq!(reply, format!("Noted ({number}): {note}\n"));
    }
    let all: String = odd.iter().zip(1..).map(|(note, number)| format!("{number}. {note}\n")).collect();
    assert_eq!(test.send(&id, "list"), format!("I know:\n{all}"));
}
