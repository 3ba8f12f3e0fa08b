//! The language: values, errors, limits, modules, exits, the REPL.

use super::super::check;
use super::*;

#[test]
fn plain_values_print_as_they_are() {
    let plain = Options::default();
    for (expression, expected) in [
        ("40 + 2", "42\n"),
        ("\"text\"", "text\n"),
        ("()", ""),
        ("2.hours + 30.minutes", "2h 30m\n"),
        ("duration(\"2d\") == 48.hours", "true\n"),
        ("time(\"2026-03-09T10:15:00Z\") < now()", "true\n"),
        ("now() - time(\"2026-03-09T10:15:00Z\")", "4m\n"),
        ("ago(1.days)", "2026-03-08T10:19:00Z\n"),
        ("[3, 1, 2].sort_by(|x| -x).map(|x| x * 2)", "[\n  6,\n  4,\n  2\n]\n"),
        ("[1, 2, 3, 4].filter(|x| x > 2).sum()", "7\n"),
        ("[1.5, 2].avg()", "1.75\n"),
        ("[#{ a: 1 }, #{ a: 5 }].max(\"a\")", "5\n"),
        ("[1, 2, 2, 3].unique().len", "3\n"),
        ("[2.days, 3.hours].sum()", "2d 3h\n"),
        ("[].min() == ()", "true\n"),
        ("\"remember to buy milk\".shorten(10)", "remembe...\n"),
        ("env(\"HOME\")", "/home/ann\n"),
        ("env(\"NOTHING\") == ()", "true\n"),
        ("to_json(#{ a: [1, 2.days, ()] })", "{\"a\":[1,\"2d\",null]}\n"),
    ] {
        assert_eq!(eval(plain, expression).printed(), expected, "{expression}");
    }
    let json = Options { json: true, ..plain };
    assert_eq!(eval(json, "\"text\"").printed(), "\"text\"\n");
    assert_eq!(eval(json, "()").printed(), "null\n");
    assert_eq!(
        eval(json, "list().count_by(\"status\")").printed(),
        "{\n  \"active\": 1,\n  \"ended\": 1,\n  \"idle\": 2\n}\n"
    );
}

#[test]
fn ctrl_c_stops_a_script_that_says_what_it_did() {
    let server = FakeServer::start();
    let interrupt = |_: &FakeTerminal, host: &Host| {
        *server.held.hangs.lock().expect("not poisoned") = Some(host.interrupt.clone());
    };
    let script = "end(\"5a3f\"); end(\"9e5f\"); try { get(\"11aa\").send(\"hang\"); } catch (e) { print(\"caught\"); } loop { }";
    let ran = run_with(Some(&server), Options::default(), interrupt, script);
    assert_eq!(ran.out, "");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done.starts_with("ended 2 sessions")));
    let ran = run_with(None, Options::default(), |_, host| host.interrupt.set(), "loop { }");
    assert!(matches!(ran.error(), Error::Interrupted { done } if done.is_empty()));
    let ran = run_with(None, Options::default(), |_, host| host.interrupt.set(), "sleep(1000);");
    assert!(matches!(ran.error(), Error::Interrupted { .. }));
}

#[test]
fn exit_ends_from_any_depth() {
    for (script, code) in [
        ("exit(3);", 3),
        ("exit();", 0),
        ("fn f() { try { [1].each(|x| exit(7)); } catch { } print(\"no\"); } f();", 7),
        ("[1, 2].sort_by(|x| exit(4));", 4),
    ] {
        let ran = run(script);
        assert_eq!((ran.result.expect("an exit"), ran.out.as_str()), (Outcome::Exit(code), ""), "{script}");
    }
    assert_eq!(run("exit(300);").error().to_string(), "an exit code is a whole number from 0 to 255");
}

#[test]
fn a_reader_that_has_gone_ends_the_script_quietly() {
    let ran =
        run_with(None, Options::default(), |fake, _| fake.out_is_closed.set(true), "loop { print(1); }");
    assert_eq!(ran.result.expect("an exit"), Outcome::Exit(0));
    let ran = run_with(None, Options::default(), |fake, _| fake.out_is_closed.set(true), "json(1); loop { }");
    assert_eq!(ran.result.expect("an exit"), Outcome::Exit(0));
}

#[test]
fn questions_are_never_asked_of_nobody() {
    let script = "print(confirm(\"Sure?\"));";
    let error = run(script).error();
    assert!(matches!(error, Error::Usage { .. }));
    assert_eq!(error.hint(), Some("Give --yes to go on without being asked."));
    let yes = Options { yes: true, ..Options::default() };
    assert_eq!(run_with(None, yes, |_, _| {}, script).printed(), "true\n");
    for (answers, expected) in
        [(&["maybe", "Y"][..], "true\n"), (&[""], "false\n"), (&[], "false\n"), (&["no"], "false\n")]
    {
        let set = |fake: &FakeTerminal, _: &Host| {
            fake.in_is_terminal.set(true);
            fake.lines.borrow_mut().extend(answers.iter().map(|line| Line::Text((*line).to_owned())));
        };
        assert_eq!(run_with(None, Options::default(), set, script).printed(), expected, "{answers:?}");
    }
}

#[test]
fn args_are_seen_in_functions_too() {
    let (host, terminal) = host(None, Options { yes: true, ..Options::default() });
    let script = |text: &'static str| Script { name: "a.rhai".into(), path: None, text: text.into() };
    let mut engine = Engine::new(host);
    let text = "fn f() { args.agent } print(f()); print(args.all); print(args.status == ()); print(args.ids.len); print(args.yes);";
    let args = [
        ("agent", Arg::Text(Some("notes".into()))),
        ("all", Arg::Flag(true)),
        ("status", Arg::Text(None)),
        ("ids", Arg::Many(vec!["a".into(), "b".into()])),
    ];
    let named = Args::Named(args.into_iter().map(|(name, arg)| (name.to_owned(), arg)).collect());
    engine.run(&script(text), named).expect("to run");
    assert_eq!(terminal.out.take(), "notes\ntrue\ntrue\n2\ntrue\n");
    let list = Args::List(vec!["x".into(), "y".into()]);
    engine.run(&script("print(args[1]); print(args.len);"), list).expect("to run");
    assert_eq!(terminal.out.take(), "y\n2\n");
}

#[test]
fn errors_say_where_they_are() {
    let error = run("#!/usr/bin/env -S superserve script\n//! doc\nlet x = 1;\nlet y = x +;\n").error();
    assert_eq!(error.place().map(|place| (place.line, place.column)), Some((4, 12)));
    let error = run("fn f(x) {\n    x.nope()\n}\n[1].each(|x| f(x));").error();
    assert_eq!(error.to_string(), "there is no function `nope`");
    let place = error.place().expect("a place");
    assert_eq!((place.line, place.source.as_deref()), (2, Some("    x.nope()")));
    assert_eq!(run("print(nothing);").error().to_string(), "there is no variable `nothing`");
    let error = run("if true {\n").error();
    assert_eq!(error.hint(), Some("Is a bracket or a quote still open?"));
    assert_eq!(error.place().map(|place| place.line), Some(1));
    assert!(matches!(run("eval(\"1\");").error(), Error::Script { .. }));
}

#[test]
fn runaways_are_stopped_and_their_line_is_told() {
    let stopped = |set: fn(&mut Limits), text: &str| {
        let (mut host, _) = host(None, Options::default());
        set(&mut host.limits);
        let script = Script { name: "a".into(), path: None, text: text.to_owned().into() };
        let error = Engine::new(host).run(&script, Args::default()).expect_err("to be stopped");
        (error.to_string(), error.code().to_owned(), error.place().map(|place| place.line))
    };
    let steps = |limits: &mut Limits| limits.operations = 10_000;
    for text in [
        "\nloop { }",
        "\nlet x = 0;",
        "fn f(x) {\nloop { x += 1; } }\nf(0);",
        "[1].map(|x| {\nwhile true { x += 1; } });",
    ] {
        let text = text.replace("let x = 0;", "let x = 0; while true { x += 1; }");
        let told = "the script was stopped: it took more than 10000 steps".to_owned();
        assert_eq!(stopped(steps, &text), (told, "limit".into(), Some(2)), "{text}");
    }
    let levels = |limits: &mut Limits| limits.call_levels = 16;
    let (message, code, line) = stopped(levels, "fn f() {\nf() }\nf();");
    assert_eq!(message, "the script was stopped: functions call each other more than 16 levels deep");
    assert_eq!((code.as_str(), line.is_some()), ("limit", true));
    let (_, _, line) = stopped(levels, "fn f(n) {\nf(n) }\nf(1);");
    assert_eq!(line, Some(2));
    let time = |limits: &mut Limits| limits.time = Some(std::time::Duration::from_millis(20));
    for text in [
        "\nloop { }",
        "\nsleep(1000);",
        "try {\nsleep(1000); } catch { }",
        "fn f(x) {\nloop { x += 1; } }\nf(1);",
        "fn f(x) {\nsleep(1000) }\nf(1);",
    ] {
        let told =
            ("the script was stopped: it took longer than 20ms".to_owned(), "timeout".to_owned(), Some(2));
        assert_eq!(stopped(time, text), told, "{text}");
    }
    let memory = |limits: &mut Limits| limits.memory = 512 << 20;
    for text in [
        "let s = \"x\";\nloop { s += s; }",
        "let s = \"xy\".to_blob();\nloop { s.append(s); }",
        "let a = [1];\nloop { a.append(a); }",
        "let s = \"x\";\ns.pad(1 << 40, 'x');",
        "let s = \"x\";\ns.pad(1 << 40, \"yz\");",
        "let a = [1];\na.pad(1 << 40, 1);",
        "\nblob(1 << 50);",
        "\nblob(1 << 50, 7);",
        "let b = blob(1);\nb.pad(1 << 50, 7);",
        "let s = \"x\"; s.pad(1 << 20, 'x');\ns.replace(\"x\", s);",
        "let s = \"x\"; s.pad(1 << 20, 'x');\ns.replace('x', s);",
    ] {
        let told =
            ("the script was stopped: it took more than 512 MiB of memory".to_owned(), "limit".to_owned());
        let (message, code, line) = stopped(memory, text);
        assert_eq!(((message, code), line), (told, Some(2)), "{text}");
    }
    let text = |limits: &mut Limits| limits.text = 10;
    assert!(stopped(text, "print(1); print(2);").0.contains("larger than a script may be"));
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{", "}"),
        ("!", ""),
        ("- ", ""),
        ("|x| ", ""),
        ("1+", "1"),
        ("1**", "1"),
        ("true && ", "true"),
        ("`${", "}`"),
        ("if true { ", " }"),
        ("if false { } else ", "{ }"),
        ("#{a:", "}"),
        ("switch 1 { 1 => ", " }"),
        ("list(", ")"),
        ("while true { ", " }"),
        ("try { ", " } catch { }"),
        ("do { ", " } while true"),
        ("for x in [1] { ", " }"),
        ("() ?? ", "()"),
        ("fn f() { ", " }"),
        ("a::", "b"),
        ("return ", ""),
    ] {
        let text = format!("let x = {}1{};", open.repeat(10_000), close.repeat(10_000));
        let error = on_script_thread(move || run(&text).error()).expect("a thread");
        assert!(error.place().is_some(), "{open}: {error}");
        let text = format!("{}{}", open.repeat(10_000), close.repeat(10_000));
        on_script_thread(move || run(&text).error()).expect("a thread");
    }
    for step in [".b", "[0]", ".b()", "?.b"] {
        let text = format!("let a = 1; a{};", step.repeat(10_000));
        let error = on_script_thread(move || run(&text).error()).expect("a thread");
        assert_eq!(error.to_string(), "this is nested too deeply", "{step}");
    }
}

#[test]
fn values_nested_deeply_are_given_back() {
    let ran = on_script_thread(|| {
        run("let f = || 0;\nfor i in 0..50000 { let g = f; f = || g.call(); }\nlet a = [];\nfor i in 0..3000 { a = [a]; }\nprint(\"done\");").printed()
    });
    assert_eq!(ran.expect("a thread"), "done\n");
}

#[test]
fn the_deepest_calls_fit_the_script_threads_stack() {
    let depth = on_script_thread(|| {
        let (host, terminal) = host(None, Options::default());
        let script = Script {
            name: "a".into(),
            path: None,
            text: "fn f(n) { if n == 0 { 0 } else { 1 + f(n - 1) } } print(f(250));".into(),
        };
        Engine::new(host).run(&script, Args::default()).expect("to run");
        terminal.out.take()
    });
    assert_eq!(depth.expect("a thread"), "250\n");
}

#[test]
fn modules_are_found_beside_the_file_that_imports_them() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("lib")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("lib/a.rhai", "import \"b\" as b;\nfn twice(x) { b::id(x) * 2 }");
    write("lib/b.rhai", "fn id(x) { x }\nfn broken() {\n  [][7]\n}");
    write("lib/wrong.rhai", "fn f(x) { x }\nfn g() {\n  f(1, 2)\n}");
    write("circle.rhai", "import \"circle\" as c;");
    let run = |text: &str| {
        let (host, terminal) = host(None, Options::default());
        let script = Script {
            name: "main.rhai".into(),
            path: Some(folder.path().join("main.rhai")),
            text: text.to_owned().into(),
        };
        let result = Engine::new(host).run(&script, Args::default());
        Ran { result, out: terminal.out.take(), err: terminal.err.take() }
    };
    assert_eq!(run("import \"lib/a\" as a; print(a::twice(21));").printed(), "42\n");
    assert_eq!(run("import \"std/check\" as check; check::equal(1, 1); print(\"ok\");").printed(), "ok\n");
    assert_eq!(
        run("import \"std/check\" as check; check::equal(1, 2);").error().to_string(),
        "found 1, wanted 2"
    );
    let error = run("import \"lib/b\" as b;\nb::broken();").error();
    let place = error.place().expect("a place");
    assert!(place.file.ends_with("lib/b.rhai"), "{place:?}");
    assert_eq!((place.line, place.source.as_deref()), (3, Some("  [][7]")));
    let error = run("print(1);\nimport \"lib/wrong\" as w;").error();
    let place = error.place().expect("a place");
    assert_eq!(error.to_string(), "`f` takes 1 argument, and is given 2");
    assert!(place.file.ends_with("lib/wrong.rhai") && place.line == 3, "{place:?}");
    assert!(run("import \"circle\" as c;").error().to_string().contains("imports itself"));
    assert_eq!(run("import \"std/chek\" as c;").error().hint(), Some("Did you mean `std/check`?"));
    assert!(
        run("import \"nothing\" as c;").error().to_string().starts_with("cannot read the module `nothing`")
    );
}

#[test]
fn the_repl_keeps_what_was_said() {
    let server = FakeServer::start();
    let (host, terminal) = host(Some(&server), Options::default());
    let mut engine = Engine::new(host);
    let mut line = |text: &str| {
        let result = engine.line(text).map_err(|error| error.to_string());
        (result, terminal.out.take())
    };
    let done = |out: &str| (Ok(Outcome::Done), out.to_owned());
    assert_eq!(line("let x = 20;"), done(""));
    assert_eq!(line("fn twice(n) { n * 2 }"), done(""));
    assert_eq!(line("twice(x) + 2"), done("42\n"));
    assert_eq!(line("fn twice(n) { n * 3 }"), done(""));
    assert_eq!(line("twice(x)"), done("60\n"));
    assert_eq!(line("let add = |n| n + x;"), done(""));
    assert_eq!(line("add.call(1)"), done("21\n"));
    assert_eq!(line("import \"std/check\" as check;"), done(""));
    assert_eq!(line("check::equal(1, 1)"), done(""));
    assert_eq!(line("nope(1)").0, Err("there is no function `nope`".into()));
    assert_eq!(
        line("print(1); print(unknown)"),
        (Err("there is no variable `unknown`".into()), String::new())
    );
    assert_eq!(line("twice(1, 2)").0, Err("`twice` takes 1 argument, and is given 2".into()));
    assert_eq!(line("check::equl(1, 1)").0, Err("there is no function `check::equl`".into()));
    assert_eq!(line("x"), done("20\n"));
    assert_eq!(line("list(#{ limit: 1 }).map(\"short_id\")[0]"), done("11aa00000000\n"));
    assert_eq!(line("exit(2)").0, Ok(Outcome::Exit(2)));
}

#[test]
fn every_function_is_documented_and_its_examples_run() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("agent.sh"), "#!/bin/sh\ncat\n").expect("a file");
    std::fs::write(folder.path().join("superserve.yaml"), "name: notes\ncommand: sh agent.sh\n")
        .expect("a file");
    let work = tempfile::tempdir().expect("a folder");
    std::fs::write(work.path().join("data.csv"), "a,b\n").expect("a file");
    let functions = Engine::new(host(None, Options::default()).0).functions();
    assert!(functions.len() > 150, "only {} functions", functions.len());
    for function in &functions {
        assert!(!function.doc.trim().is_empty(), "{} is not documented", function.signature);
        assert!(!function.examples.is_empty(), "{} has no example", function.signature);
        // Those of fixtures need a world: tests/suite.rs runs them in one.
        if function.module == "fixture" {
            continue;
        }
        for example in &function.examples {
            let server = FakeServer::start();
            let (mut host, terminal) = host(Some(&server), Options::default());
            host.access = Access { folder: work.path().to_owned(), sh: true, ..Access::default() };
            terminal.in_is_terminal.set(true);
            let text = example.replace("examples/notes", &folder.path().display().to_string());
            let script = Script { name: function.signature.clone(), path: None, text: text.into() };
            let result = Engine::new(host).run(&script, Args::default());
            assert!(result.is_ok(), "{}: {result:?}\n{example}", function.signature);
            // What an example says that it prints, it prints.
            let said: String = example
                .lines()
                .filter_map(|line| line.split_once("   // "))
                .map(|(_, said)| format!("{said}\n"))
                .collect();
            if !said.is_empty() {
                assert_eq!(*terminal.out.borrow(), said, "{}\n{example}", function.signature);
            }
        }
    }
}

#[test]
fn an_archive_that_is_not_whole_is_not_kept() {
    let work = tempfile::tempdir().expect("a folder");
    let server = FakeServer::start();
    let (mut host, _) = host(Some(&server), Options::default());
    host.access = Access { folder: work.path().to_owned(), ..Access::default() };
    let text = "sessions::create(\"notes\").archive(\"kept.tar.gz\")";
    let script = Script { name: "keep".into(), path: None, text: text.into() };
    let error = Engine::new(host).run(&script, Args::default()).expect_err("an error");
    assert!(format!("{error:?}").contains("would not be whole"), "{error:?}");
    assert_eq!(std::fs::read_dir(work.path()).expect("a folder").count(), 0);
}

#[test]
fn the_standard_library_is_read_from_its_own_text() {
    let engine = Engine::new(host(None, Options::default()).0);
    let functions = engine.functions();
    for (module, text) in super::super::resolver::STANDARD {
        let told: Vec<&super::super::FunctionDoc> =
            functions.iter().filter(|function| function.module == module).collect();
        let written = text.lines().filter(|line| line.starts_with("fn ")).count();
        assert!(written > 5 && told.len() == written, "{module}: {written} functions, {} told", told.len());
        for function in told {
            let call = format!("{}(", function.name);
            assert!(function.signature.starts_with(&call), "{module}: {}", function.signature);
            // What the documentation says of its parameters is what the text says.
            assert!(
                text.contains(&format!("\nfn {} {{", function.signature)),
                "{module}: {}",
                function.signature
            );
        }
    }
    assert!(functions.iter().all(|function| function.name != "shown"), "what is private is told");
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    for (script, sentence, hint) in [
        ("for s in [] { s.endd(); }", "there is no function `endd`", Some("Did you mean `end`?")),
        ("fn f() {\n lsit()\n}", "there is no function `lsit`", Some("Did you mean `list`?")),
        ("[1].map(|x| x.shortn(2));", "there is no function `shortn`", Some("Did you mean `shorten`?")),
        ("sessions::craete(1);", "there is no function `sessions::craete`", Some("Did you mean `create`?")),
        ("session::list();", "there is no module `session`", Some("Did you mean `sessions`?")),
        ("[1].map(|x| nowhere::f(x));", "there is no module `nowhere`", None),
        ("let count = 1; print(cuont);", "there is no variable `cuont`", Some("Did you mean `count`?")),
        ("[1].map(|x| x + yy);", "there is no variable `yy`", None),
        ("fn f() { z } f();", "there is no variable `z`", None),
        ("list;", "there is no variable `list`", Some("A function is called with brackets: list().")),
        ("list().filter(|s| s.titel == 1);", "a Session has no field `titel`", Some("Did you mean `title`?")),
        (
            "let n = 1; list().map(|s| s.titel + n);",
            "a Session has no field `titel`",
            Some("Did you mean `title`?"),
        ),
        (
            "for s in list().sort_by(\"idle\") { s.sned(\"x\"); }",
            "there is no function `sned` for a Session",
            Some("Did you mean `send`?"),
        ),
        (
            "get(\"x\").title();",
            "there is no function `title` for a Session",
            Some("It is a field: write it without brackets, .title."),
        ),
        (
            "list().map;",
            "a list of sessions has no field `map`",
            Some("It is a function: call it with brackets, .map(…)."),
        ),
        ("print(list()[0].idel);", "a Session has no field `idel`", Some("Did you mean `idle`?")),
        ("print(sh(\"x\").stdut);", "what `sh` answers has no field `stdut`", Some("Did you mean `stdout`?")),
        (
            "print(\"a\".trimed());",
            "there is no function `trimed` for a String",
            Some("Did you mean `trimmed`?"),
        ),
        ("print(2.day);", "an Int has no field `day`", Some("Did you mean `days`?")),
        ("fn f(a) { a } f(1, 2);", "`f` takes 1 argument, and is given 2", None),
        ("env(1, 2);", "`env` doesn't take 2 arguments", Some("It is env(name: String) -> value.")),
        (
            "import \"std/check\" as c; c::equl(1, 1);",
            "there is no function `c::equl`",
            Some("Did you mean `equal`?"),
        ),
        (
            "import \"std/chek\" as c;",
            "the standard library has no module `std/chek`",
            Some("Did you mean `std/check`?"),
        ),
        ("/* open", "a comment is not closed", Some("It begins with /* and ends with */.")),
    ] {
        let ran = run(&format!("print(1);\n{script}"));
        assert_eq!(ran.out, "", "{script}");
        let error = ran.error();
        assert_eq!(error.to_string(), sentence, "{script}");
        if hint.is_some() {
            assert_eq!(error.hint(), hint, "{script}");
        }
        assert!(error.place().is_some_and(|place| place.line >= 2), "{script}");
    }
}

#[test]
fn all_mistakes_are_told_in_order_and_what_is_right_is_not() {
    let check = |text: &str, args: &[&str]| {
        let script = Script { name: "a".into(), path: None, text: text.to_owned().into() };
        let named = args.iter().map(|name| ((*name).to_owned(), Arg::Text(None))).collect();
        let args = if args.is_empty() { Args::default() } else { Args::Named(named) };
        let found = Engine::new(host(None, Options::default()).0).check(&script, args);
        found
            .iter()
            .map(|error| (error.place().map_or(0, |place| place.line), error.to_string()))
            .collect::<Vec<_>>()
    };
    let told = |told: &[(usize, &str)]| {
        told.iter().map(|(line, text)| (*line, (*text).to_owned())).collect::<Vec<_>>()
    };
    let text = "let a = b;\nif false {\n  nope();\n}\nfn f(x) {\n  x + c + args.agent\n}\nprint(args.agnet);\nlist().map(|s| s.titel);";
    assert_eq!(
        check(text, &["agent"]),
        told(&[
            (1, "there is no variable `b`"),
            (3, "there is no function `nope`"),
            (6, "there is no variable `c`"),
            (8, "`args` has no `agnet`"),
            (9, "a Session has no field `titel`"),
        ])
    );
    assert_eq!(check("let x = (1;\nnope();", &[]), told(&[(1, "`)` is missing")]));
    for right in [
        "let f = || 0;\nfor i in 0..2 { let g = f; f = || g.call(); }",
        "let x = 1; { let y = x; print(y); } for (a, i) in [1] { print(a + i); }",
        "let x = get(\"a\"); x = 5; print(x.days);",
        "let x = list(); if true { x = #{ more: 1 }; } print(x.more);",
        "try { get(\"a\") } catch (e) { print(e.code); print(e.anything); }",
        "fn each(list) { for x in list { print(x.whatever); } } each([#{ whatever: 1 }]);",
        "fn twice() { this * 2 } let n = 1; print(n.twice());",
        "switch 1 { 1 if true => print(1), 2..4 => print(2), _ => print(3) }",
        "let m = #{ f: |x| x }; m.f(1); m.anything.more; m[\"k\"].f();",
        "let s = \"a\"; print(s.len); print(s.to_upper()); print(s[0].to_int()); print(s + 1);",
        "sessions::each().map(|s| s.title).filter(|t| t.len > 3).take(2).each(|t| print(t.len));",
        "list().group_by(\"agent\").notes.len; list().map(|s| #{ a: s }).filter(|m| m.a.idle > 2.hours);",
        "import \"std/check\" as check; check::equal(1, 1); fn f() { check::equal(1, 1) } f();",
        "const LIMIT = 3; fn f() { global::LIMIT } print(f()); export LIMIT as limit;",
        "let a = [1, 2]; print(a[0].days); print(a.len); a[0] = \"x\"; print(a.map(|x| x.foo));",
        "let curried = Fn(\"f\").curry(1); fn f(a, b) { a + b } print(curried.call(2)); print(f!(1, 2));",
        "let x = 5; let y = `${x} ${if x > 3 { let z = 1; z } else { 0 }}`; print(y);",
        "let n = args.len; for word in args { print(word.len()); } print(args[0]);",
        "let t = now() - 2.hours; print((now() - t).hours); print(ago(1.days) < now());",
        "while true { let q = 1; if q == 1 { break; } } do { let w = 1; } until true; loop { break 5; };",
    ] {
        assert_eq!(check(right, &[]), told(&[]), "{right}");
    }
}

#[test]
fn what_a_map_holds_may_be_called() {
    let script = "fn f(x) { x + 1 } let m = #{ twice: |x| x * 2 }; m.more = |x| f(x); print(m.twice(2)); print(m.more(2)); \
                  let g = |x| x; print(g.call(1)); print(type_of(f(1))); print(Fn(\"f\").call(4)); print([1, 2].len());";
    assert_eq!(run(script).printed(), "4\n3\n1\ni64\n5\n2\n");
}

#[test]
fn every_bundled_script_calls_only_what_is_there() {
    let (host, _) = host(None, Options::default());
    let runtime = super::super::runtime::Runtime::new(host);
    let engine = super::super::assembly::assemble(&runtime, &super::super::resolver::Sources::default());
    let mut scope = rhai::Scope::new();
    scope.push("args", rhai::Map::new());
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts"))];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a script");
            let ast =
                engine.compile_with_scope(&scope, &text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let sources = super::super::resolver::Sources::default();
            let found = check::findings(&engine, &sources, &ast, None, None, check::Depth::Whole);
            assert!(found.is_empty(), "{path:?}: {found:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} scripts");
}

#[test]
fn no_text_breaks_the_engine() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, TestRunner};
    let (mut host, _) = host(None, Options::default());
    host.limits.operations = 10_000;
    let mut engine = Engine::new(host.clone());
    let runtime = super::super::runtime::Runtime::new(host);
    let inner = super::super::assembly::assemble(&runtime, &super::super::resolver::Sources::default());
    let word = prop::sample::select(vec![
        "idle",
        "status",
        "title",
        " > ",
        " == ",
        "&&",
        "2.hours",
        "\"idle\"",
        "(",
        ")",
        "{",
        "}",
        "|x|",
        "x",
        "[1]",
        ".",
        "filter",
        "sort_by",
        "fn f() ",
        "let y = ",
        ";",
        "\n",
        "/*",
        "`",
        "é",
        "#{",
        "a: 1",
        "\u{1b}",
        "list()",
        "args",
        "-1",
        "9223372036854775807",
        ".days",
        " * ",
        "/ 0",
        "throw ",
        "try {} catch (e) {}",
        "import \"x\" as x",
        "exit(1)",
    ]);
    let text = prop::collection::vec(word, 0..14).prop_map(|words| words.concat());
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&text, |text| {
            let _ = super::super::expression::Expression::compile(&inner, &text);
            let _ = engine.completeness(&text);
            Ok(())
        })
        .expect("no panic");
    // Text of any sort, as the public ways in take it.
    TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() })
        .run(&any::<String>(), |text| {
            if let Err(error) = engine.check_expression(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
            let _ = engine.completeness(&text);
            Ok(())
        })
        .expect("no panic");
    // The same texts as scripts: each ends, well or with an error that has a sentence.
    let mut runner = TestRunner::deterministic();
    for _ in 0..500 {
        let tree = text.new_tree(&mut runner).expect("a text");
        let script = Script { name: "a".into(), path: None, text: tree.current().into() };
        if let Err(error) = engine.run(&script, Args::default()) {
            assert!(!error.to_string().is_empty(), "{script:?}");
            if let Some(place) = error.place() {
                assert!(place.line > 0 && place.column > 0, "{place:?}");
            }
        }
    }
}
