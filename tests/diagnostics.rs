//! What a script's mistakes look like, to the letter: the sentence, the place, the line, the caret, the hint.

use crate::test::Test;

/// A script, and what stderr says of it; the file's name stands as `FILE`.
const MISTAKES: &[(&str, i32, &str)] = &[
    (
        "let x = (1 + 2;\n",
        1,
        "✗ `)` is missing\n  --> FILE:1:15\n  |\n1 | let x = (1 + 2;\n  |               ^\n  Is a bracket or a quote still open?\n",
    ),
    (
        "let x = [1, 2;\n",
        1,
        "✗ `,` is missing in this array literal\n  --> FILE:1:14\n  |\n1 | let x = [1, 2;\n  |              ^\n  Is a comma or a bracket missing?\n",
    ),
    (
        "if true {\n  print(1);\n",
        1,
        "✗ `}` is missing\n  --> FILE:2:12\n  |\n2 |   print(1);\n  |            ^\n  Is a bracket or a quote still open?\n",
    ),
    (
        "let new = 1;\n",
        1,
        "✗ `new` is a reserved word\n  --> FILE:1:5\n  |\n1 | let new = 1;\n  |     ^\n  Choose another name.\n",
    ),
    (
        "let x = \"abc;\nprint(x);\n",
        1,
        "✗ a text's closing quote is missing\n  --> FILE:1:9\n  |\n1 | let x = \"abc;\n  |         ^\n  A text over several lines stands in backticks: `…`.\n",
    ),
    (
        "let 1x = 3;\n",
        1,
        "✗ a variable's name is missing\n  --> FILE:1:5\n  |\n1 | let 1x = 3;\n  |     ^\n  A name begins with a letter, and is no word of the language.\n",
    ),
    (
        "let x = 1\nlet y = 2\n",
        1,
        "✗ `;` is missing before this\n  --> FILE:2:1\n  |\n2 | let y = 2\n  | ^\n  Statements are divided by a semicolon.\n",
    ),
    (
        "let x = 1;\nif x = 5 { }\n",
        1,
        "✗ `=` can't stand here\n  --> FILE:2:6\n  |\n2 | if x = 5 { }\n  |      ^\n  Comparing takes two signs: ==.\n",
    ),
    (
        "print('ab');\n",
        1,
        "✗ single quotes hold one letter\n  --> FILE:1:7\n  |\n1 | print('ab');\n  |       ^\n  Text stands in double quotes: \"text\".\n",
    ),
    (
        "print(\"\\q\");\n",
        1,
        "✗ `\\q` is no escape\n  --> FILE:1:9\n  |\n1 | print(\"\\q\");\n  |         ^\n  Escapes are \\n \\t \\\" \\\\ and \\u1234; `…` takes text as it is.\n",
    ),
    (
        "break;\n",
        1,
        "✗ there is no loop to leave here\n  --> FILE:1:1\n  |\n1 | break;\n  | ^\n  A function is left with return, a script with exit().\n",
    ),
    (
        "const X = 1;\nX = 2;\n",
        1,
        "✗ `X` is a constant, and can't be changed\n  --> FILE:2:1\n  |\n2 | X = 2;\n  | ^\n  Make it a variable: let.\n",
    ),
    (
        "let l = list();\nl.fliter(|s| true);\n",
        1,
        "✗ there is no function `fliter` for a list of sessions\n  --> FILE:2:3\n  |\n2 | l.fliter(|s| true);\n  |   ^\n  Did you mean `filter`?\n",
    ),
    (
        "print(\"é\" + lsit());\n",
        1,
        "✗ there is no function `lsit`\n  --> FILE:1:13\n  |\n1 | print(\"é\" + lsit());\n  |             ^\n  Did you mean `list`?\n",
    ),
    (
        "list().filter(|s| s.mesage_count > 2);\n",
        1,
        "✗ a Session has no field `mesage_count`\n  --> FILE:1:21\n  |\n1 | list().filter(|s| s.mesage_count > 2);\n  |                     ^\n  Did you mean `message_count`?\n",
    ),
    (
        "let x = 1;\nfoo::bar(x);\n",
        1,
        "✗ there is no module `foo`\n  --> FILE:2:1\n  |\n2 | foo::bar(x);\n  | ^\n  Modules are sessions, agents and secrets; others are imported first: import \"std/foo\" as foo;\n",
    ),
    (
        "let count = 1;\nprint(cuont);\n",
        1,
        "✗ there is no variable `cuont`\n  --> FILE:2:7\n  |\n2 | print(cuont);\n  |       ^\n  Did you mean `count`?\n",
    ),
    (
        "\"abc\".shorten(\"x\");\n",
        1,
        "✗ `shorten` doesn't take (String, String)\n  --> FILE:1:7\n  |\n1 | \"abc\".shorten(\"x\");\n  |       ^\n  It is shorten(text: String, columns: Int) -> String.\n",
    ),
    (
        "\"abc\".shorten();\n",
        1,
        "✗ `shorten` doesn't take no arguments\n  --> FILE:1:7\n  |\n1 | \"abc\".shorten();\n  |       ^\n  It is shorten(text: String, columns: Int) -> String.\n",
    ),
    (
        "fn f(a) { a }\nf(1, 2);\n",
        1,
        "✗ `f` takes 1 argument, and is given 2\n  --> FILE:2:1\n  |\n2 | f(1, 2);\n  | ^\n",
    ),
    (
        "[1, 2].map(|a, b, c| a);\n",
        1,
        "✗ this function doesn't take 1 argument, which it is called with\n  --> FILE:1:8\n  |\n1 | [1, 2].map(|a, b, c| a);\n  |        ^\n  A function of one argument is written |x| …, one of two |x, y| ….\n",
    ),
    (
        "let m = #{ title: 1 };\nprint(m.titel);\n",
        1,
        "✗ the map has no `titel`\n  --> FILE:2:9\n  |\n2 | print(m.titel);\n  |         ^\n  Ask first whether it is there: \"titel\" in map.\n",
    ),
    (
        "let a = [1, 2];\nprint(a[5]);\n",
        1,
        "✗ the array has 2 elements: none is at 5\n  --> FILE:2:9\n  |\n2 | print(a[5]);\n  |         ^\n  The first is at 0, the last at 1, or at -1.\n",
    ),
    (
        "if 1 { print(1); }\n",
        1,
        "✗ true or false is wanted here, and this is a number\n  --> FILE:1:4\n  |\n1 | if 1 { print(1); }\n  |    ^\n  Compare it with something.\n",
    ),
    (
        "let x = \"\";\nif x { print(1); }\n",
        1,
        "✗ true or false is wanted here, and this is a String\n  --> FILE:2:4\n  |\n2 | if x { print(1); }\n  |    ^\n  Ask whether it is empty: .is_empty().\n",
    ),
    (
        "let n = 5;\nfor x in n { }\n",
        1,
        "✗ `for` can't go through this\n  --> FILE:2:10\n  |\n2 | for x in n { }\n  |          ^\n  It goes through arrays, lists, texts' `.chars()`, maps' `.keys()`, and numbers: 0..10.\n",
    ),
    (
        "print(1 / 0);\n",
        1,
        "✗ 1 / 0 is a division by zero\n  --> FILE:1:9\n  |\n1 | print(1 / 0);\n  |         ^\n  Ask first whether it is 0.\n",
    ),
    (
        "print(2.hours > 3);\n",
        1,
        "✗ these can't be compared\n  --> FILE:1:15\n  |\n1 | print(2.hours > 3);\n  |               ^\n  Compare with a duration: 2.hours, 30.minutes.\n",
    ),
    (
        "[1].map(|n| \"a\" - n);\n",
        1,
        "✗ `-` doesn't work on a String and an Int\n  --> FILE:1:17\n  |\n1 | [1].map(|n| \"a\" - n);\n  |                 ^\n",
    ),
    ("throw \"no more\";\n", 1, "✗ no more\n  --> FILE:1:1\n  |\n1 | throw \"no more\";\n  | ^\n"),
    ("throw 42;\n", 1, "✗ 42\n  --> FILE:1:1\n  |\n1 | throw 42;\n  | ^\n"),
    (
        "throw #{ message: \"too late\", hint: \"Come earlier.\" };\n",
        1,
        "✗ too late\n  --> FILE:1:1\n  |\n1 | throw #{ message: \"too late\", hint: \"Come earlier.\" };\n  | ^\n  Come earlier.\n",
    ),
    (
        "fn outer(x) {\n  inner(x)\n}\nfn inner(x) {\n  x.y.z\n}\n[#{ y: 1 }].each(|x| outer(x));\n",
        1,
        "✗ an Int has no field `z`\n  --> FILE:5:7\n  |\n5 |   x.y.z\n  |       ^\n  Fields: bits, days, hours, is_even, is_odd, is_zero, millis, minutes, seconds.\n",
    ),
    (
        "let id = \"ffff\";\nget(id);\n",
        3,
        "✗ Session not found: no session matches 'ffff'\n  --> FILE:2:1\n  |\n2 | get(id);\n  | ^\n  Run superserve sessions list to see your sessions.\n",
    ),
    (
        "sh(\"ls\");\n",
        2,
        "✗ this script may not run other programs\n  --> FILE:1:1\n  |\n1 | sh(\"ls\");\n  | ^\n  Allow it if you trust the script: --allow-sh\n",
    ),
    (
        "print(read_file(\"none.txt\"));\n",
        3,
        "✗ cannot read none.txt: No such file or directory\n  --> FILE:1:7\n  |\n1 | print(read_file(\"none.txt\"));\n  |       ^\n",
    ),
    (
        "fn f(n) {\n  f(n + 1)\n}\nf(0);\n",
        1,
        "✗ the script was stopped: functions call each other more than 256 levels deep\n  --> FILE:2:5\n  |\n2 |   f(n + 1)\n  |     ^\n  Is there a function that calls itself for ever?\n",
    ),
];

#[test]
fn every_mistake_has_its_sentence_its_place_and_its_hint() {
    let test = Test::new();
    for (script, status, told) in MISTAKES {
        let file = test.write("mistake.rhai", script);
        let file = file.to_str().unwrap();
        test.args(["script", file]).stderr(told.replace("FILE", file)).status(*status).run();
    }
}

#[test]
fn a_mistake_in_a_module_is_shown_there() {
    let test = Test::new();
    let module = test.write("lib/words.rhai", "fn first(words) {\n    words[0].upper()\n}\n");
    let file = test.write("main.rhai", "import \"lib/words\" as words;\nprint(words::first([]));\n");
    test.args(["script", file.to_str().unwrap()])
        .stderr(format!(
            "✗ the array has 0 elements: none is at 0\n  --> {}:2:11\n  |\n2 |     words[0].upper()\n  |           ^\n  Ask first whether it is empty: .is_empty().\n",
            module.display()
        ))
        .status(1)
        .run();
    let file = test.write("main.rhai", "print(1);\nimport \"lib/words\" as words;\nwords::frist([]);\n");
    test.args(["script", file.to_str().unwrap()])
        .stderr(format!(
            "✗ there is no function `words::frist`\n  --> {}:3:8\n  |\n3 | words::frist([]);\n  |        ^\n  Did you mean `first`?\n",
            file.display()
        ))
        .status(1)
        .run();
}

#[test]
fn limits_are_flags_and_what_passes_them_is_shown() {
    let test = Test::new();
    let file = test.write("loop.rhai", "let x = 0;\nwhile true {\n  x += 1;\n}\n");
    let file = file.to_str().unwrap();
    let place = format!("  --> {file}:3:3\n  |\n3 |   x += 1;\n  |   ^\n");
    test.args(["script", "--max-operations", "5000", file])
        .stderr(format!("✗ the script was stopped: it took more than 5000 steps\n{place}  Is there a loop that never ends? It may take more steps with --max-operations.\n"))
        .status(1)
        .run();
    test.args(["script", file, "--max-time", "50ms"])
        .stderr_part("✗ the script was stopped: it took longer than 50ms\n")
        .stderr_part(&format!("{file}:"))
        .stderr_part("It may take longer with --max-time.")
        .status(124)
        .run();
    let output = test.args(["script", file, "--max-time=50ms", "--json"]).any_stderr().status(124).run();
    assert_eq!(output.error()["code"], "timeout");
    test.args(["--max-memory", "64M", "eval", "let s = \"x\"; loop { s += s; }"])
        .stderr_part("✗ the script was stopped: it took more than 64 MiB of memory\n")
        .stderr_part("--max-memory")
        .status(1)
        .run();
    for (flag, value) in
        [("--max-time", "soon"), ("--max-memory", "much"), ("--max-memory", "1T"), ("--max-operations", "0")]
    {
        test.args(["eval", "1", flag, value]).stderr_part(value).status(2).run();
    }
}

#[test]
fn errors_of_the_server_are_values_with_a_code_a_status_a_message_and_a_hint() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "hello");
    let caught = |call: &str| {
        let text = format!(
            "try {{ {call}; }} catch (e) {{ print(`${{e.code}} ${{e.status}} ${{e.exit_code}}: ${{e.message}} (${{e.hint}})`); }}"
        );
        test.args(["eval", &text]).any_stdout().run().stdout
    };
    assert_eq!(
        caught("get(\"ffff\")"),
        "not_found 404 3: Session not found: no session matches 'ffff' (Run superserve sessions list to see your sessions.)\n"
    );
    assert_eq!(
        caught("get(\"ses_00000000000000000000000000000000\")"),
        "not_found 404 3: Session not found: no session matches 'ses_00000000000000000000000000000000' (Run superserve sessions list to see your sessions.)\n"
    );
    test.args(["sessions", "end", &id]).any_stderr().run();
    assert!(caught(&format!("get(\"{id}\").send(\"x\")")).starts_with("ended 409 5: "));
    assert!(caught("get(\"\")").starts_with("invalid 422 2: "));
    assert!(caught("agents::get(\"nobody\")").starts_with("not_found 404 3: "));
    assert!(
        caught("read_file(\"none\")")
            .starts_with("not_found 0 3: cannot read none: No such file or directory ()")
    );
    assert!(caught("sh(\"ls\")").starts_with("forbidden 0 2: "));
}
