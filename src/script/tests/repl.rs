//! The REPL's side of the engine: what could stand where somebody types, `_`, types, documentation, saved scripts.

use proptest::prelude::*;

use super::*;

struct Repl {
    engine: Engine,
    terminal: std::rc::Rc<FakeTerminal>,
    server: FakeServer,
}

impl Repl {
    fn new() -> Self {
        let server = FakeServer::start();
        let (host, terminal) = host(Some(&server), Options::default());
        Self { engine: Engine::new(host), terminal, server }
    }

    /// With these lines behind it.
    fn after(lines: &[&str]) -> Self {
        let mut repl = Self::new();
        for line in lines {
            repl.line(line);
        }
        repl
    }

    /// What a line prints that goes well.
    #[track_caller]
    fn line(&mut self, line: &str) -> String {
        let result = self.engine.line(line);
        assert_eq!(result.map_err(|error| error.to_string()), Ok(Outcome::Done), "{line}");
        self.terminal.err.take();
        self.terminal.out.take()
    }

    #[track_caller]
    fn error(&mut self, line: &str) -> String {
        self.engine.line(line).expect_err(line).to_string()
    }

    /// What could stand at the `¦`, and where it would begin.
    #[track_caller]
    fn complete(&self, text: &str) -> (usize, Vec<String>) {
        let cursor = text.find('¦').expect("a cursor");
        let found = self.engine.complete(&text.replacen('¦', "", 1), cursor);
        (found.start, found.candidates.into_iter().map(|candidate| candidate.text).collect())
    }

    /// The same, once the server has answered: nobody is kept waiting for one that is too busy.
    #[track_caller]
    fn answered(&self, text: &str) -> Vec<String> {
        loop {
            let (_, found) = self.complete(text);
            if !found.is_empty() {
                return found;
            }
        }
    }

    #[track_caller]
    fn has(&self, text: &str, wanted: &[&str], unwanted: &[&str]) {
        let (_, found) = self.complete(text);
        for word in wanted {
            assert!(found.iter().any(|one| one == word), "{text}: no {word} in {found:?}");
        }
        for word in unwanted {
            assert!(!found.iter().any(|one| one == word), "{text}: {word} in {found:?}");
        }
    }

    #[track_caller]
    fn is(&self, text: &str, wanted: &[&str]) {
        assert_eq!(self.complete(text).1, wanted, "{text}");
    }
}

#[test]
fn functions_and_modules_are_completed() {
    let repl = Repl::after(&["fn twice(n) { n * 2 }", "let total = 1;", "import \"std/check\" as check;"]);
    assert_eq!(repl.complete("1 + li¦"), (4, ["list(", "list_files("].map(str::to_owned).to_vec()));
    repl.is("sessions::cr¦", &["create("]);
    repl.has("sessions::¦", &["list(", "create(", "each()", "last("], &["table(", "deploy("]);
    repl.has("agents::¦", &["get(", "deploy(", "list("], &["create("]);
    repl.is("twi¦", &["twice("]);
    repl.is("tot¦", &["total"]);
    repl.has("se¦", &["sessions::"], &["create("]);
    repl.is("ag¦", &["agents::", "ago("]);
    repl.has("check::¦", &["equal("], &["list("]);
    repl.is("whi¦", &["while"]);
    repl.is("fixt¦", &[]);
    repl.has("¦", &["list(", "let", "total", "now()"], &["_", "filter("]);
    repl.is("lis¦(x)", &["list", "list_files"]);
    repl.is("let li¦", &[]);
    repl.is("// li¦", &[]);
    repl.is("/* li¦", &[]);
    repl.is("\"li¦\"", &[]);
    repl.is("`${li¦", &["list(", "list_files("]);
    repl.is("#{ li¦", &[]);
    repl.has("#{ a: li¦", &["list("], &[]);
    repl.has("let longest = 1; lon¦", &["longest"], &[]);
}

#[test]
fn fields_and_functions_of_a_type_are_completed() {
    let repl = Repl::after(&[
        "let all = list();",
        "let one = list()[0];",
        "let wait = 2.hours;",
        "let many = [list()[0]];",
        "let m = #{ agent: \"notes\", deep: #{ inner: 1 }, \"not a word\": 2 };",
        "let text = \"a\";",
    ]);
    let session = ["title", "status", "idle", "send(", "end()", "messages()"];
    let list = ["filter(", "len", "sum(", "to_csv(", "sort_by(", "first"];
    for expression in [
        "one",
        "all[0]",
        "list()[0]",
        "list().filter(|s| true)[-1]",
        "all.first()",
        "all.first",
        "get(\"5a3f\")",
        "sessions::last()",
        "sessions::create(\"notes\")",
        "many[0]",
        "many.first()",
        "list().find(|s| true)",
        "get(\"5a3f\").refresh()",
        "(one)",
        "list().end()[0].session",
        "let x = list()[0]; x",
        "for s in list() { s",
        "list().filter(|s| s",
        "list().sort_by(|s| s.idle).each(|each| each",
        "sessions::each().map(|s| s",
        "`${one",
        "if one",
        "all.to_array()[0]",
    ] {
        repl.has(&format!("{expression}.¦"), &session, &["name", "revision", "sum(", "to_debug"]);
    }
    for expression in [
        "all",
        "list()",
        "list(#{ status: \"idle\" })",
        "sessions::list()",
        "all.reverse()",
        "list().end().sessions",
    ] {
        repl.has(&format!("{expression}.¦"), &list, &["title", "revision"]);
    }
    repl.has("sessions::each().¦", &["filter(", "map(", "to_list()"], &["to_csv(", "title"]);
    repl.has("sessions::each().to_list().¦", &["to_csv("], &[]);
    repl.has("agents::get(\"notes\").¦", &["name", "revision", "delete()"], &["title"]);
    repl.has("agents::list()[0].¦", &["name"], &["title"]);
    repl.has("list().end().¦", &["ok", "failed", "sessions"], &["title"]);
    repl.has("one.idle.¦", &["hours", "days"], &["title"]);
    repl.has("wait.¦", &["hours", "minutes"], &["title"]);
    repl.has("2.¦", &["hours", "days"], &["title"]);
    repl.has("one.send(\"hi\").¦", &["text", "duration"], &["title"]);
    repl.has("one.messages()[0].¦", &["role", "content"], &["title"]);
    repl.has("one.created_at.¦", &["millis"], &["title"]);
    repl.has("text.¦", &["shorten(", "upper()", "len", "contains("], &["list(", "env(", "title"]);
    repl.has("[1, 2].¦", &["sum(", "push(", "filter("], &["title", "print()"]);
    repl.has("m.¦", &["agent", "deep", "keys()"], &["not a word", "title"]);
    repl.is("m.deep.i¦", &["inner", "is_empty()"]);
    repl.is("m[\"¦", &["agent\"", "deep\"", "not a word\""]);
    repl.is("m[\"ag¦\"]", &["agent"]);
    repl.has("let n = #{ key: list()[0] }; n.¦", &["key"], &[]);
    repl.has("let n = #{ key: list()[0] }; n.key.¦", &["title"], &[]);
    repl.has("unknown.ti¦", &["title"], &[]);
    repl.is("unknown.¦", &[]);
    repl.is("1.5.ho¦", &[]);
}

#[test]
fn names_of_the_server_are_completed_inside_texts() {
    let repl = Repl::new();
    repl.answered("agents::get(\"¦");
    repl.answered("get(\"¦");
    for text in [
        "list(#{ agent: \"¦",
        "list(#{ agent: [\"writer\", \"¦",
        "agents::get(\"¦",
        "agents::delete(\"¦",
        "sessions::create(\"¦",
        "sessions::last(\"¦",
        "list().filter(|s| s.agent == \"¦",
    ] {
        repl.is(text, &["notes\"", "writer\""]);
    }
    repl.is("agents::get(\"no¦", &["notes\""]);
    repl.is("agents::get(\"no¦\")", &["notes"]);
    repl.is("agents::get(`no¦", &["notes`"]);
    let (ended, open) = ("9e5f7a2b4c3d\"", "5a3f7b9c2e1d\"");
    for text in ["get(\"¦", "sessions::get(\"¦"] {
        repl.has(text, &["@last\"", open], &[]);
    }
    for text in ["end(\"¦", "resume(\"¦", "end([\"11aa\", \"¦"] {
        repl.has(text, &["@last\"", open], &[ended]);
    }
    // One that is not among the latest.
    assert_eq!(repl.answered("get(\"9e5f¦"), [ended]);
    repl.is("end(\"9e5f¦", &[]);
    assert_eq!(repl.complete("get(\"5a¦\")"), (5, vec!["5a3f7b9c2e1d".to_owned()]));
    repl.is("get(\"ses_5a¦", &["ses_5a3f7b9c2e1d\""]);
    let shown = repl.engine.complete("get(\"5a", 7).candidates[0].shown.clone();
    assert_eq!(shown, "5a3f7b9c2e1d  notes  remember to buy milk");
    repl.is("get(\"@¦", &["@last\"", "@last:"]);
    repl.is("get(\"@last:w¦", &["@last:writer\""]);
    repl.is("list(#{ status: \"id¦", &["idle\""]);
    repl.is("list().filter(|s| s.status != \"en¦", &["ended\""]);
    repl.is("list().sort_by(\"-mess¦", &["message_count"]);
    repl.is("list().filter(\"idle > 2.hours && sta¦", &["status"]);
    repl.is("list(#{ where: \"sta¦", &["status"]);
    repl.is("import \"std/ch¦", &["std/check\""]);
    repl.is("print(\"no¦", &[]);
    repl.is("\"¦", &[]);
}

#[test]
fn the_server_is_asked_once_in_a_while_and_never_started() {
    let repl = Repl::new();
    repl.answered("agents::get(\"¦");
    assert!(!repl.server.requests().is_empty());
    repl.answered("agents::get(\"n¦");
    repl.answered("agents::get(\"no¦");
    assert!(repl.server.requests().is_empty(), "the answer holds for a while");
    let (host, _) = host(None, Options::default());
    let engine = Engine::new(host);
    assert!(engine.complete("agents::get(\"", 13).candidates.is_empty());
    assert!(engine.complete("get(\"", 5).candidates.is_empty());
}

#[test]
fn the_last_value_is_an_underscore() {
    let mut repl = Repl::new();
    assert_eq!(repl.line("_"), "");
    assert_eq!(repl.line("40"), "40\n");
    assert_eq!(repl.line("_ + 2"), "42\n");
    assert_eq!(repl.line("let x = 1;"), "");
    assert_eq!(repl.line("_"), "42\n");
    assert_eq!(repl.line("[_, _].sum()"), "84\n");
    assert_eq!(repl.line("switch _ { 84 => \"yes\", _ => \"no\" }"), "yes\n");
    assert_eq!(repl.line("`${_}!`"), "yes!\n");
    repl.error("nope()");
    assert_eq!(repl.line("_"), "yes!\n");
    assert_eq!(repl.line("let s = list()[0]; s"), repl.line("_"));
    assert_eq!(repl.line("_.title"), "count to ten\n");
    assert_eq!(repl.line("let ids = [1, 2].map(|n| n + _.len); ids.len"), "2\n");
    assert_eq!(repl.engine.completeness("_ + ("), Complete::Incomplete);
    assert_eq!(repl.engine.completeness("_"), Complete::Complete);
    repl.error("let _ = 1;");
    assert_eq!(repl.line("_"), "2\n");
}

#[test]
fn a_type_is_told_and_nothing_is_done() {
    let mut repl = Repl::after(&["let x = 1;", "7"]);
    for (expression, told) in [
        ("list()", "Sessions, a list of sessions"),
        ("list()[0]", "Session, a session"),
        ("list().end()", "Done, what was done"),
        ("x", "Int, a whole number"),
        ("1.5", "Float, a number"),
        ("\"a\"", "String, text"),
        ("()", "(), nothing"),
        ("|n| n", "Function, a function"),
        ("2.hours", "Duration, a duration"),
        ("[1]", "Array, an array"),
        ("#{}", "Map, a map"),
        ("_", "Int, a whole number"),
        ("x = 5; let y = 1; fn g() {} y", "Int, a whole number"),
        ("sessions::each()", "Stream, a stream"),
    ] {
        let found = repl.engine.type_of(expression).map_err(|error| error.to_string());
        assert_eq!(found, Ok(told.to_owned()), "{expression}");
    }
    assert!(!repl.engine.is_dry_run());
    assert_eq!(repl.terminal.out.take().matches("would end").count(), 4);
    assert!(
        !repl.server.requests().iter().any(|request| request.starts_with("POST")),
        "{:?}",
        repl.server.requests()
    );
    assert_eq!(repl.line("x"), "1\n");
    assert!(repl.error("y").contains("no variable `y`"));
    assert!(repl.error("g()").contains("no function `g`"));
    assert!(repl.engine.type_of("nope").is_err());
    assert!(!repl.engine.is_dry_run());
}

#[test]
fn a_dry_run_begins_and_ends() {
    let mut repl = Repl::new();
    repl.engine.set_dry_run(true);
    assert_eq!(repl.line("end(\"5a3f\"); ()"), "would end 5a3f7b9c2e1d\n");
    repl.engine.set_dry_run(false);
    assert_eq!(repl.line("end(\"5a3f\").status"), "ended\n");
}

#[test]
fn functions_are_documented() {
    let repl = Repl::after(&["/// Twice as much.\nfn twice(n) { n * 2 }"]);
    let entries = |name: &str| match repl.engine.manual(name) {
        Ok(Page::Entries(entries)) => entries,
        other => panic!("{name}: {other:?}"),
    };
    let list = entries("list");
    assert_eq!(list.len(), 4, "two, and those of a server by name");
    assert_eq!(list[0].signature, "list() -> Sessions");
    assert!(list[0].doc.starts_with("All sessions") && !list[0].doc.contains("```"), "{}", list[0].doc);
    assert_eq!(list[0].examples, ["print(list().sum(\"message_count\"));"]);
    assert_eq!(entries("list()"), list);
    assert!(
        entries("sessions::create")
            .iter()
            .any(|one| one.signature == "sessions::create(agent: String) -> Session")
    );
    assert_eq!(entries("create").len(), 1, "a server's, which is called as a method");
    assert_eq!(entries("Session.idle")[0].signature, "Session.idle -> Duration");
    assert_eq!(entries("Sessions.filter"), entries("filter"));
    assert_eq!(
        entries("twice")[0],
        Entry { signature: "twice(n)".into(), doc: "Twice as much.".into(), examples: vec![] }
    );
    assert!(entries("to_upper")[0].signature.starts_with("to_upper("));
    let members = |name: &str| match repl.engine.manual(name) {
        Ok(Page::Members(members)) => members,
        other => panic!("{name}: {other:?}"),
    };
    assert!(
        members("Session").iter().any(
            |(signature, about)| signature == "Session.title -> String" && about.starts_with("The title")
        )
    );
    assert!(members("agents").iter().any(|(signature, _)| signature.starts_with("deploy(")));
    assert_eq!(repl.engine.manual("shortn"), Err(Some("Did you mean `shorten`?".into())));
    assert_eq!(repl.engine.manual("xyzzy"), Err(None));
    assert!(repl.engine.topics("Sess").contains(&"Session".to_owned()));
    assert!(repl.engine.topics("sessions::c").contains(&"sessions::create".to_owned()));
}

#[test]
fn what_was_typed_becomes_a_script_that_does_the_same() {
    let mut repl = Repl::after(&[
        "let n = 20;",
        "fn twice(n) { n * 2 }",
        "twice(n)",
        "_ + 2 // the answer",
        "let m = #{ a: _ }",
        "m.a",
        "for i in 0..2 { n += i }",
        "print(`${_} ${n}`)",
        "if n > 1 { \"more\" } else { \"less\" }",
        "print(_)",
    ]);
    repl.error("nope()");
    let script = repl.engine.transcript().expect("a script");
    assert!(!script.contains("nope"), "{script}");
    assert_eq!(run(&script).printed(), "42 21\nmore\n", "{script}");
}

#[test]
fn a_file_is_loaded_into_the_repl() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    write("near.rhai", "fn three() { 3 }");
    let path = write(
        "all.rhai",
        "#!/usr/bin/env superserve\nimport \"near\" as near;\nlet x = near::three();\nfn thrice(n) { n * near::three() }\nprint(x);\nx",
    );
    let mut repl = Repl::new();
    assert_eq!(repl.engine.load(&path).map_err(|error| error.to_string()), Ok(Outcome::Done));
    assert_eq!(repl.terminal.out.take(), "3\n");
    assert_eq!(repl.line("thrice(x)"), "9\n");
    assert_eq!(repl.line("near::three()"), "3\n");
    repl.is("near::t¦", &["three()"]);
    let exits = write("exits.rhai", "let y = 1;\nexit(3);");
    assert_eq!(repl.engine.load(&exits).map_err(|error| error.to_string()), Ok(Outcome::Exit(3)));
    let wrong = write("wrong.rhai", "let z = 1;\nnope(z);");
    let error = repl.engine.load(&wrong).expect_err("a wrong file");
    assert_eq!(
        error.place().map(|place| (place.file.clone(), place.line)),
        Some((wrong.display().to_string(), 2))
    );
    assert!(repl.engine.load(&folder.path().join("none.rhai")).is_err());
    assert_eq!(repl.line("x"), "3\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_typed_is_looked_at_without_harm(
        text in "([a-z]{1,4}|[0-9]{1,2}|list\\(\\)|sessions::|#\\{|\\|s\\||let a = |_|é|[\\[\\](){}.,;:=\"'`$/*\\\\|]| |\n){0,24}",
        place in any::<proptest::sample::Index>(),
    ) {
        thread_local! {
            static ENGINE: Engine = Engine::new(host(None, Options::default()).0);
        }
        let cursors: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let cursor = cursors[place.index(cursors.len())];
        ENGINE.with(|engine| {
            let found = engine.complete(&text, cursor);
            assert!(found.start <= cursor && text.is_char_boundary(found.start));
            let spans = engine.spans(&text);
            assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(spans.iter().all(|span| text.get(span.start..span.end).is_some()));
            if let Some(other) = matching_bracket(&text, cursor) {
                assert!(text.is_char_boundary(other));
            }
            engine.completeness(&text);
        });
    }

    #[test]
    fn any_text_at_all(text in any::<String>(), cursor in 0usize..200) {
        thread_local! {
            static ENGINE: Engine = Engine::new(host(None, Options::default()).0);
        }
        ENGINE.with(|engine| {
            engine.complete(&text, cursor);
            engine.spans(&text);
            engine.completeness(&text);
            let _ = engine.manual(&text);
        });
        matching_bracket(&text, cursor);
    }
}
