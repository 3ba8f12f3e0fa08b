//! `superserve script`, `eval` and `scripts`.

use std::os::unix::fs::PermissionsExt;

use crate::test::{Test, short};

#[test]
fn eval_prints_values_as_they_are() {
    let test = Test::new();
    for (expression, stdout) in [
        ("40+2", "42\n"),
        ("\"text\"", "text\n"),
        ("()", ""),
        ("let a = 1;", ""),
        ("true", "true\n"),
        ("1.5", "1.5\n"),
        ("2.days + 3.hours", "2d 3h\n"),
        ("[1, 2].len", "2\n"),
        ("-1", "-1\n"),
        ("let x = 20; x + 1", "21\n"),
    ] {
        test.args(["eval", expression]).stdout(stdout).run();
    }
    test.args(["eval", "\"text\"", "--json"]).stdout("\"text\"\n").run();
    test.args(["eval", "40+2", "--json"]).stdout("42\n").run();
    test.args(["eval", "()", "--json"]).stdout("null\n").run();
    test.args(["eval", "40+"]).stderr_part("✗ ").status(1).run();
    test.args(["eval", "nothing_of_this_name"]).stderr_part("nothing_of_this_name").status(1).run();
}

#[test]
fn eval_shows_sessions_as_a_table() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let table = test.args(["sessions", "list"]).any_stdout().run().stdout;
    test.args(["eval", "list()"]).stdout(&table).run();
    test.args(["eval", "list().filter(|s| s.message_count > 1)"]).stderr("No sessions.\n").run();
    let json = test.args(["sessions", "list", "--json"]).any_stdout().run().stdout;
    test.args(["eval", "list()", "--json"]).stdout(&json).run();
    test.args(["eval", "get(\"@last\").id"]).stdout(format!("{id}\n")).run();
    test.args(["eval", "get(\"@last\").short_id"]).stdout(format!("{}\n", short(&id))).run();
}

#[test]
fn the_functions_of_the_mission_are_global() {
    let test = Test::new();
    test.deploy("echo");
    test.deploy("history");
    let (a, b) = (test.begin("echo", "one"), test.begin("history", "two"));
    let prints = |expression: &str, expected: &str| {
        test.args(["eval", expression]).stdout(format!("{expected}\n")).run();
    };
    prints("list().len", "2");
    prints("sessions::list().len", "2");
    prints(&format!("get(\"{}\").agent", short(&a)), "echo");
    prints(&format!("resume(\"{b}\").status"), "idle");
    prints("filter(list(), |s| s.agent == \"history\").len", "1");
    prints("list(#{ agent: \"echo\" }).len", "1");
    prints("list(#{ status: \"ended\" }).len", "0");
    prints("list(#{ status: [\"idle\", \"ended\"] }).len", "2");
    prints("list().sum(\"message_count\")", "2");
    prints("list().count_by(\"agent\").echo", "1");
    prints("list().map(|s| s.title).len", "2");
    prints("agents::list().len", "2");
    prints("agents::get(\"echo\").name", "echo");
    prints(&format!("end(\"{}\").status", short(&a)), "ended");
    prints("list().end().ok", "2");
    test.args(["eval", "list(#{ stauts: \"idle\" })"]).stderr_part("status").status(1).run();
    test.args(["eval", "list(#{ status: \"sleeping\" })"]).stderr_part("sleeping").any_status().run();
}

#[test]
fn errors_of_the_server_can_be_caught() {
    let test = Test::new();
    let text = "try { get(\"ffff\"); } catch (e) { print(e.code + \": \" + e.message); }";
    test.args(["eval", text]).stdout("not_found: Session not found: no session matches 'ffff'\n").run();
    let path = test.write("uncaught.rhai", "let id = \"ffff\";\nget(id);\n");
    let output = test.args(["script", path.to_str().unwrap()]).any_stderr().status(3).run();
    assert!(output.stderr.starts_with("✗ Session not found: no session matches 'ffff'\n"), "{output:#?}");
    assert!(output.stderr.contains("uncaught.rhai:2:"), "{output:#?}");
    assert!(output.stderr.contains("get(id);"), "{output:#?}");
    assert!(output.stderr.contains("Run superserve sessions list to see your sessions."), "{output:#?}");
}

#[test]
fn a_script_of_its_own_has_a_header_that_is_its_interface() {
    let test = Test::new();
    let path = test.write(
        "greet.rhai",
        "//! Greet somebody.\n//!\n//! @arg name         Whom\n//! @arg more...?     Whom else\n//! @option how-often <N>  How many times\n\
         //! @flag loud         Shout\n//! @example superserve script greet.rhai Ada\n\n\
         let n = if args.how_often == () { 1 } else { parse_int(args.how_often) };\n\
         for i in 0..n { let text = `hello ${args.name}`; print(if args.loud { text.to_upper() } else { text }); }\n\
         for name in args.more { print(`and ${name}`); }\n",
    );
    let file = path.to_str().unwrap();
    test.args(["script", file, "Ada"]).stdout("hello Ada\n").run();
    test.args(["script", file, "Ada", "--loud", "--how-often", "2"]).stdout("HELLO ADA\nHELLO ADA\n").run();
    test.args(["script", file, "Ada", "Bob", "Cyd"]).stdout("hello Ada\nand Bob\nand Cyd\n").run();
    test.args(["script", file]).stderr_part("NAME").status(2).run();
    test.args(["script", file, "Ada", "--quiet"]).stderr_part("--quiet").status(2).run();
    test.args(["script", file, "--help"])
        .stdout_part("Greet somebody.")
        .stdout_part("--how-often <N>")
        .stdout_part("How many times")
        .stdout_part("superserve script greet.rhai Ada")
        .stdout_part("--dry-run")
        .run();
}

#[test]
fn a_script_without_a_header_takes_any_words() {
    let test = Test::new();
    let path = test.write("words.rhai", "for word in args { print(word); }\nprint(args.len);\n");
    test.args(["script", path.to_str().unwrap(), "a", "--b", "c d"]).stdout("a\n--b\nc d\n3\n").run();
}

#[test]
fn a_header_that_takes_what_belongs_to_all_is_an_error() {
    let test = Test::new();
    for flag in ["@flag json  X", "@option color <C>  X", "@flag dry-run  X", "@flag yes  X", "@flag help  X"]
    {
        let path = test.write("greedy.rhai", &format!("//! Greedy.\n//!\n//! {flag}\n"));
        test.args(["script", path.to_str().unwrap()])
            .stderr_part("✗ ")
            .stderr_part("greedy.rhai:3")
            .status(2)
            .run();
    }
}

#[test]
fn a_file_can_be_run_by_its_first_line() {
    let test = Test::new();
    let path = test.write(
        "tool",
        "#!/usr/bin/env -S superserve script\n//! A tool.\n//!\n//! @arg word  A word\n\nprint(args.word);\n",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    test.shell("./tool hello").stdout("hello\n").run();
    test.shell("./tool --help").stdout_part("A tool.").run();
    // The lines are counted from the first one.
    let path = test.write("broken", "#!/usr/bin/env -S superserve script\nlet a = ;\n");
    test.args(["script", path.to_str().unwrap()]).stderr_part("broken:2:").status(1).run();
}

#[test]
fn exit_codes_are_the_scripts_own() {
    let test = Test::new();
    test.args(["eval", "exit(42)"]).status(42).run();
    test.args(["eval", "exit()"]).run();
    test.args(["eval", "[1, 2].each(|n| exit(7)); print(\"never\")"]).status(7).run();
    let path = test.write(
        "exits.rhai",
        "fn leave() { exit(3); }\ntry { leave(); } catch { print(\"never\"); }\nprint(\"never\");\n",
    );
    test.args(["script", path.to_str().unwrap()]).status(3).run();
}

#[test]
fn output_goes_where_it_belongs() {
    let test = Test::new();
    let path = test.write(
        "out.rhai",
        "print(\"out\"); warn(\"err\"); json(#{ b: [1, 2], a: \"x\" }); table([#{ n: 1, w: \"one\" }, #{ n: 2, w: \"two\" }], [\"w\", \"n\"]);\n",
    );
    test.args(["script", path.to_str().unwrap()])
        .stdout("out\n{\n  \"a\": \"x\",\n  \"b\": [\n    1,\n    2\n  ]\n}\nw    n\none  1\ntwo  2\n")
        .stderr("err\n")
        .run();
}

#[test]
fn questions_never_hang() {
    let test = Test::new();
    let path =
        test.write("asks.rhai", "if confirm(\"Really?\") { print(\"yes\"); } else { print(\"no\"); }\n");
    let file = path.to_str().unwrap();
    test.args(["script", file]).stderr_part("--yes").status(2).run();
    test.args(["--yes", "script", file]).stdout("yes\n").any_stderr().run();
    test.args(["-y", "script", file]).stdout("yes\n").any_stderr().run();
}

#[test]
fn imports_are_found_beside_the_file() {
    let test = Test::new();
    test.write("lib/words.rhai", "fn twice(word) { word + word }\n");
    test.write(
        "lib/more.rhai",
        "import \"words\" as words;\nfn thrice(word) { words::twice(word) + word }\n",
    );
    let path = test.write("main.rhai", "import \"lib/more\" as more;\nprint(more::thrice(\"a\"));\n");
    test.args(["script", path.to_str().unwrap()]).stdout("aaa\n").run();
    test.shell("cd / && superserve script \"$OLDPWD/main.rhai\"").stdout("aaa\n").run();
    let path = test.write("lost.rhai", "import \"nowhere\" as nowhere;\n");
    test.args(["script", path.to_str().unwrap()]).stderr_part("nowhere").any_status().run();
}

#[test]
fn limits_stop_what_would_never_end() {
    let test = Test::new();
    test.args(["eval", "fn f(n) { f(n + 1) } f(0)"]).stderr_part("✗ the script was stopped").status(1).run();
    for text in [
        "let s = \"x\"; loop { s += s; }",
        "let a = []; loop { a.push(a); }",
        "let m = #{}; loop { m = #{ a: m, b: m }; }",
    ] {
        test.args(["eval", "--max-memory", "100M", text])
            .stderr_part("✗ the script was stopped")
            .status(1)
            .run();
    }
}

#[test]
fn comparing_what_can_not_be_compared_is_an_error() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    for expression in ["s.idle > 2", "s.idle < \"2d\"", "s.idle != 2", "s.created_at > 5"] {
        let text = format!("end(list().filter(|s| {expression}))");
        test.args(["eval", &text]).stderr_part("✗ ").status(1).run();
    }
    assert_eq!(test.status_of(&id), "idle");
}

#[test]
fn a_users_command_joins_the_others_and_goes_before_them() {
    let test = Test::new();
    test.command("fleet/tidy", "//! Tidy up.\n//!\n//! @option agent <NAME>  Whose\n//! @example superserve fleet tidy\n\nprint(`tidy ${args.agent}`);\n");
    test.args(["fleet", "tidy", "--agent", "a"]).stdout("tidy a\n").run();
    test.args(["fleet", "--help"]).stdout_part("tidy").stdout_part("Tidy up.").run();
    test.args(["scripts", "list"])
        .stdout_part("fleet tidy")
        .stdout_part("sessions list")
        .stdout_part("bundled")
        .run();
    test.command("sessions/list", "//! My list.\n//! @example superserve sessions list\nprint(\"mine\");\n");
    test.args(["sessions", "list"]).stdout("mine\n").run();
    test.args(["scripts", "show", "sessions", "list"]).stdout_part("My list.").run();
    let list = test.json(["scripts", "list", "--json"]);
    let mine = list.as_array().unwrap().iter().find(|row| row["name"] == "sessions list").unwrap();
    assert_eq!(mine["bundled"], false);
    assert!(mine["path"].as_str().unwrap().ends_with("scripts/sessions/list.rhai"));
    // One that is broken says so where it is called, and takes nothing else away.
    test.command("broken", "//! Broken.\n//! @flag json  Not allowed.\n");
    test.args(["broken"]).stderr_part("broken.rhai:2").status(2).run();
    test.args(["fleet", "tidy"]).any_stdout().run();
    test.command("syntax", "//! A syntax error.\n//! @example superserve syntax\nlet a = ;\n");
    test.args(["syntax"]).stderr_part("syntax.rhai:3").status(1).run();
}

#[test]
fn scripts_shows_the_text_of_a_bundled_one() {
    let test = Test::new();
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sessions/list.rhai")).unwrap();
    test.args(["scripts", "show", "sessions", "list"]).stdout(&text).run();
    test.args(["scripts", "show", "sessions list"]).stdout(&text).run();
    test.args(["scripts", "show", "nothing"]).stderr_part("nothing").status(3).run();
}

#[test]
fn a_check_tells_all_that_is_wrong_and_runs_nothing() {
    let test = Test::new();
    test.write("lib/words.rhai", "fn twice(word) { word + wrod }\n");
    let text = "//! Greet.\n//!\n//! @arg name  Whom\n\nimport \"lib/words\" as words;\nprint(args.nmae);\nwords::twice();\n\
                if false { lsit(); }\nwrite_file(\"made\", \"x\");\n";
    let file = test.write("greet.rhai", text);
    let file = file.to_str().unwrap();
    let module = test.work().join("lib/words.rhai");
    let output = test.args(["script", "--check", file]).any_stderr().status(1).run();
    let told = |sentence: &str, file: &str, line: usize, column: usize| {
        assert!(
            output.stderr.contains(&format!("✗ {sentence}\n  --> {file}:{line}:{column}\n")),
            "{sentence}: {}",
            output.stderr
        );
    };
    told("`args` has no `nmae`", file, 6, 12);
    told("`twice` takes 1 argument, and is given 0", file, 7, 8);
    told("there is no function `lsit`", file, 8, 12);
    told("there is no variable `wrod`", module.to_str().unwrap(), 1, 25);
    assert_eq!(output.stderr.matches("✗ ").count(), 4, "{}", output.stderr);
    assert!(!test.work().join("made").exists());
    let found = test.args(["script", "--check", file, "--json"]).any_stdout().status(1).run().stdout;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found.as_array().map(Vec::len), Some(4));
    assert_eq!(found[0]["hint"], "Did you mean `name`?");
    assert_eq!((found[0]["line"].as_u64(), found[0]["column"].as_u64()), (Some(6), Some(12)));
    // What is found stops the script before it does anything.
    test.args(["script", file, "Ada"]).stderr_part("`args` has no `nmae`").status(1).run();
    assert!(!test.work().join("made").exists());
    // One that is well, from stdin, and several at once.
    test.args(["script", "--check", "-"]).stdin("print(list().len);\n").run();
    test.args(["--json", "script", "--check", "-"]).stdin("print(1);\n").stdout("[]\n").run();
    let good = test.write("good.rhai", "print(1);\n");
    let syntax = test.write("syntax.rhai", "//! @flag json  Not allowed\nlet a = ;\n");
    let output = test
        .args(["script", "--check", good.to_str().unwrap(), syntax.to_str().unwrap(), "nowhere.rhai"])
        .stderr_part("syntax.rhai:1:1")
        .stderr_part("syntax.rhai:2:9")
        .stderr_part("nowhere.rhai")
        .status(1)
        .run();
    assert_eq!(output.stderr.matches("✗ ").count(), 3, "{}", output.stderr);
}

#[test]
fn a_script_is_read_from_stdin() {
    let test = Test::new();
    test.write("lib/words.rhai", "fn twice(word) { word + word }\n");
    let text = "//! @arg word  A word\nimport \"lib/words\" as words;\nprint(words::twice(args.word));\n";
    test.args(["script", "-", "ab"]).stdin(text).stdout("abab\n").run();
    test.args(["script", "-", "--help"]).stdin(text).stdout_part("A word").run();
    test.args(["script", "-"]).stdin("let a = ;\n").stderr_part("  --> stdin:1:9\n").status(1).run();
    test.args(["script", "-"]).stdin("").run();
}

#[test]
fn a_bundled_script_is_copied_to_be_changed() {
    let test = Test::new();
    let folder = test.home().join("scripts");
    test.args(["scripts", "path"]).stdout(format!("{}\n", folder.display())).run();
    test.args(["scripts", "path", "sessions", "list"])
        .stderr("✗ sessions list is bundled, and has no file\n  superserve scripts copy sessions list makes one that you can change.\n")
        .status(3)
        .run();
    let path = folder.join("sessions/list.rhai");
    test.args(["scripts", "copy", "sessions", "list", "--dry-run"])
        .stdout(format!("would copy sessions list to {}\n", path.display()))
        .run();
    assert!(!path.exists());
    test.args(["scripts", "copy", "sessions", "list"])
        .stderr(format!("✓ Copied to {}, which is what superserve sessions list runs now\n", path.display()))
        .run();
    let text = include_str!("../scripts/sessions/list.rhai");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    test.args(["scripts", "path", "sessions list"]).stdout(format!("{}\n", path.display())).run();
    std::fs::write(&path, "//! Mine.\nprint(\"mine\");\n").unwrap();
    test.args(["scripts", "copy", "sessions/list"])
        .stderr(format!(
            "✗ there is a file already: {}\n  Look at it first; --force replaces it.\n",
            path.display()
        ))
        .status(5)
        .run();
    test.args(["sessions", "list"]).stdout("mine\n").run();
    let copied = test.json(["scripts", "copy", "--force", "sessions list", "--json"]);
    assert_eq!(copied["path"], path.to_str().unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    test.args(["scripts", "copy", "sessions", "lst"])
        .stderr(
            "✗ Script not found: no command 'sessions lst' is a script\n  Did you mean `sessions list`?\n",
        )
        .status(3)
        .run();
    test.command("fleet/tidy", "//! Tidy.\n");
    test.args(["scripts", "copy", "fleet", "tidy"]).stderr_part("is your own already").status(5).run();
    test.args(["scripts", "path", "nothing"]).stderr_part("nothing").status(3).run();
}

#[test]
fn a_command_that_is_no_text_says_so_when_it_is_called() {
    let test = Test::new();
    let path = test.command("odd", "");
    std::fs::write(&path, b"//! Odd \xff\n").unwrap();
    test.args(["odd"]).stderr_part("✗ the script can't be read: it is not UTF-8\n").status(2).run();
    test.args(["scripts", "list"])
        .stdout_part("(unusable: line 1: the script can't be read: it is not UTF-8)")
        .run();
}
