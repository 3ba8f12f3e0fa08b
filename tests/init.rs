//! `superserve init`: a folder becomes an agent that runs as it is.

use std::fs;

use crate::skipped::has;
use crate::test::{Test, told};

/// What init says of the files that it has written, and what to do next.
fn next(what: &str, folder: &str, name: &str) -> String {
    let (path, dir) = match folder {
        "." => (".".to_owned(), String::new()),
        "My Agent" => ("'./My Agent'".to_owned(), " --dir 'My Agent'".to_owned()),
        folder => (format!("./{folder}"), format!(" --dir {folder}")),
    };
    format!(
        "✓ {what}\n  Talk with it:  superserve run {path} \"hello\"\n  Deploy it:     superserve deploy{dir}\n  Then:          superserve run {name} \"hello\"\n"
    )
}

/// A session with what was made: two messages, of which the second shows that the first was remembered.
fn talks(test: &Test, folder: &str, name: &str) {
    test.args(["run", folder, "good morning", "--single"])
        .stdout("Agent > Hello! You said: good morning\n")
        .stderr_part(&format!("Deployed {name} (revision 1)\n"))
        .run();
    assert_eq!(test.send("@last", "and again"), "You said: and again (and before that: good morning)\n");
    test.args(["deploy", "--dir", folder])
        .stderr(format!("✓ Agent {name} is up to date (revision 1)\n"))
        .run();
}

#[test]
fn an_empty_folder_becomes_a_python_agent_that_runs() {
    if !has("python3") {
        skip!("there is no python3");
    }
    let test = Test::new();
    test.args(["init", "greeter"]).stderr(next("Wrote superserve.yaml and agent.py", ".", "greeter")).run();
    let config = fs::read_to_string(test.work().join("superserve.yaml")).unwrap();
    assert!(config.contains("\nname: greeter\ncommand: python3 agent.py\n"), "{config}");
    talks(&test, ".", "greeter");
}

#[test]
fn without_python_it_is_a_shell_script() {
    let test = Test::new();
    test.args(["init", "--dir", "My Agent"])
        .env("PATH", "/nowhere")
        .stderr(next("Wrote superserve.yaml and agent.sh", "My Agent", "my-agent"))
        .run();
    assert!(!test.work().join("My Agent/agent.py").exists());
    fs::rename(test.work().join("My Agent"), test.work().join("mine")).unwrap();
    talks(&test, "./mine", "my-agent");
}

#[test]
fn the_agent_that_is_there_is_found() {
    let test = Test::new();
    for (files, command) in [
        (&["agent.py", "main.py", "other.py"][..], "python3 ./agent.py"),
        (&["index.js", "helper.js"], "node ./index.js"),
        (&["talk.sh", "README.md", "notes.txt"], "sh ./talk.sh"),
        (&["main.ts"], "node --import tsx ./main.ts"),
        (&["two words.sh"], "\"sh './two words.sh'\""),
        (&["a.js", "package.json", "z.js"], "node ./z.js"),
    ] {
        let folder = test.work().join("here");
        for file in files {
            let text = if *file == "package.json" { "{\"main\": \"./z.js\"}" } else { "" };
            test.write(&format!("here/{file}"), text);
        }
        let made = test.json(["init", "found", "--dir", "here", "--json"]);
        assert_eq!(made["files"], serde_json::json!(["superserve.yaml"]), "{files:?}");
        let config = fs::read_to_string(folder.join("superserve.yaml")).unwrap();
        assert!(config.contains(&format!("\nname: found\ncommand: {command}\n")), "{files:?}: {config}");
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, files.len() + 1, "nothing else is written");
        test.args(["deploy", "--dir", "here", "--no-wait"]).any_stderr().run();
        fs::remove_dir_all(folder).unwrap();
    }
    test.write("one/#!.sh", "#!/usr/bin/env bash\n");
    assert_eq!(test.json(["init", "one", "--dir", "one", "--json"])["command"], "bash './#!.sh'");
    test.write("two/a.py", "");
    test.write("two/b.sh", "");
    test.args(["init", "two", "--dir", "two"])
        .stderr(told(
            "it can't be told which script is the agent: a.py, b.sh",
            "Write a superserve.yaml with its command, such as command: sh agent.sh, or rename it to agent.py or agent.sh.",
        ))
        .status(2)
        .run();
    assert_eq!(fs::read_dir(test.work().join("two")).unwrap().count(), 2);
}

#[test]
fn a_found_agent_runs() {
    let test = Test::new();
    test.write("talker/talk.sh", "while read -r line; do echo \"heard: $line\"; done\n");
    test.args(["init", "--dir", "talker"])
        .stderr(next("Wrote superserve.yaml, which runs talk.sh", "talker", "talker"))
        .run();
    test.args(["run", "./talker", "hello", "--single"]).stdout("Agent > heard: hello\n").any_stderr().run();
}

#[test]
fn nothing_is_overwritten() {
    let test = Test::new();
    let config = test.write("superserve.yaml", "name: mine\n");
    test.args(["init", "other"])
        .stderr(told(
            "there is a superserve.yaml already: ./superserve.yaml",
            "The folder is an agent: superserve deploy.",
        ))
        .status(5)
        .run();
    assert_eq!(fs::read_to_string(config).unwrap(), "name: mine\n");
    // Nor is anything written through a link that leads nowhere.
    std::os::unix::fs::symlink("nowhere", test.work().join("agent.sh")).unwrap();
    fs::remove_file(test.work().join("superserve.yaml")).unwrap();
    test.args(["init", "other"]).env("PATH", "/nowhere").stderr_part("cannot use .").status(1).run();
    assert!(!test.work().join("superserve.yaml").exists() && !test.work().join("nowhere").exists());
    test.write("file", "");
    test.args(["init", "other", "--dir", "file"]).stderr_part("cannot use file: ").status(1).run();
}

#[test]
fn a_dry_run_only_tells() {
    let test = Test::new();
    test.args(["init", "mine", "--dir", "new", "--dry-run"])
        .env("PATH", "/nowhere")
        .stdout("would write new/superserve.yaml\nwould write new/agent.sh\n")
        .run();
    assert_eq!(fs::read_dir(test.work()).unwrap().count(), 0);
    let output =
        test.args(["init", "mine", "--dir", "new", "--json"]).env("PATH", "/nowhere").any_stdout().run();
    assert_eq!(
        output.stdout,
        "{\n  \"name\": \"mine\",\n  \"path\": \"new\",\n  \"command\": \"sh agent.sh\",\n  \"files\": [\n    \"superserve.yaml\",\n    \"agent.sh\"\n  ]\n}\n"
    );
}

#[test]
fn a_name_must_be_an_agents() {
    let test = Test::new();
    let hint = "A name begins with a-z, goes on with a-z, 0-9 and -, and has at most 63 characters";
    test.args(["init", "My Agent"])
        .stderr_part("'My Agent' is no name for an agent\n")
        .stderr_part(hint)
        .status(2)
        .run();
    test.args(["init", "--dir", "123"]).stderr_part("'123' is no name for an agent\n").status(2).run();
    assert_eq!(fs::read_dir(test.work()).unwrap().count(), 0);
}
