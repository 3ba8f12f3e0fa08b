//! `superserve sessions list --watch`: drawn on a terminal, a line for each change elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

use rexpect::process::PtyProcess;
use rexpect::process::wait::WaitStatus;
use rustix::process::Signal;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::command::{Command, Running};
use crate::process::wait_until;
use crate::seed::seeded;
use crate::test::{Test, short, told};

/// Waits until the watch has begun.
fn begun(test: &Test) {
    wait_until("the watch", || test.requests().iter().any(|request| request.contains("/sessions/watch")));
}

/// A watch whose lines are read.
fn watching(test: &Test, flags: &[&str]) -> Running {
    let words: Vec<&str> = ["sessions", "list", "--watch"].iter().chain(flags).copied().collect();
    let watch = test.args(words).start();
    begun(test);
    watch
}

/// Leaves a watch; its lines.
#[track_caller]
fn lines(watch: Running) -> Vec<String> {
    watch.interrupt();
    let output = watch.finish();
    assert_eq!((output.status, output.stderr.as_str()), (130, ""), "{output:#?}");
    output.stdout.lines().map(str::to_owned).collect()
}

/// What a terminal shows of what was written to it: as much of one as the program asks for.
#[derive(Debug, Default)]
struct Shown {
    lines: Vec<String>,
    /// Whether it is a screen of its own.
    own: bool,
    no_cursor: bool,
}

impl Shown {
    fn of(text: &str) -> Self {
        let (mut shown, mut row, mut column) = (Self::default(), 0_usize, 0_usize);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\u{1b}' => {
                    assert_eq!(letters.next(), Some('['), "{text:?}");
                    let mut words = String::new();
                    while let Some(digit) = letters.next_if(|letter| !letter.is_ascii_alphabetic()) {
                        words.push(digit);
                    }
                    // The rest of a sequence may not have come yet.
                    let Some(last) = letters.next() else { break };
                    match (last, words.as_str()) {
                        ('H', place) => {
                            let (to, from) = place.split_once(';').unwrap_or((place, "1"));
                            (row, column) =
                                (to.parse::<usize>().unwrap() - 1, from.parse::<usize>().unwrap() - 1);
                        }
                        ('J', "2") => shown.lines.clear(),
                        ('J', "") => shown.lines.truncate(row),
                        ('K', "") => {
                            if let Some(line) = shown.lines.get_mut(row) {
                                *line = line.chars().take(column).collect();
                            }
                        }
                        ('h' | 'l', "?1049") => {
                            shown.own = last == 'h';
                            shown.lines.clear();
                        }
                        ('h' | 'l', "?25") => shown.no_cursor = last == 'l',
                        ('m', _) | ('h' | 'l', "?7" | "?2026") => {}
                        other => panic!("{other:?} in {text:?}"),
                    }
                }
                '\r' => column = 0,
                '\n' => row += 1,
                letter => {
                    if shown.lines.len() <= row {
                        shown.lines.resize(row + 1, String::new());
                    }
                    let line = &mut shown.lines[row];
                    let rest: String = line.chars().skip(column + 1).collect();
                    *line = line.chars().take(column).chain([letter]).collect::<String>() + rest.as_str();
                    column += 1;
                }
            }
        }
        shown
    }
}

/// A watch on a terminal.
struct OnTerminal {
    process: PtyProcess,
    terminal: File,
    text: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    fn start(command: Command<'_>, rows: u16, columns: u16) -> Self {
        let process = PtyProcess::new(command.for_terminal("xterm")).expect("a terminal");
        let terminal = process.get_file_handle().expect("a terminal");
        let text = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shared) = (terminal.try_clone().expect("a terminal"), text.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                shared.lock().expect("a lock").extend_from_slice(&piece[..count]);
            }
        });
        let started = Self { process, terminal, text };
        started.resize(rows, columns);
        started
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.terminal.as_fd(), size).expect("another size");
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("a lock")).into_owned()
    }

    /// Waits until it shows these lines and no others.
    #[track_caller]
    fn shows(&self, expected: &str) {
        let lines: Vec<&str> = expected.lines().collect();
        wait_until(&format!("the screen to show\n{expected}"), || Shown::of(&self.written()).lines == lines);
    }

    /// Ends it by this signal; its exit code. The terminal must be as it was.
    #[track_caller]
    fn ends(mut self, signal: rexpect::process::signal::Signal) -> i32 {
        assert!(Shown::of(&self.written()).own && Shown::of(&self.written()).no_cursor);
        let status = self.process.kill(signal).expect("an end");
        wait_until("the terminal's own screen", || {
            let shown = Shown::of(&self.written());
            !shown.own && !shown.no_cursor
        });
        match status {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_terminal_shows_the_list_as_it_is() {
    let test = Test::new();
    test.deploy("slow");
    let watch = OnTerminal::start(test.args(["sessions", "list", "--watch"]), 6, 70);
    watch.shows("No sessions.\n");
    test.create("slow");
    let list = || test.args(["sessions", "list"]).any_stdout().run().stdout;
    watch.shows(&list());
    let (run, id) = test.wait_in("slow");
    let active = list();
    assert!(active.contains("ACTIVE"), "{active}");
    watch.shows(&active);
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    run.finish();
    watch.shows(&list());
    // As many as the screen takes, and how many more there are.
    for _ in 0..5 {
        test.create("slow");
    }
    let all = list();
    let top = |rows: usize, more: usize| {
        let lines: Vec<&str> = all.lines().take(rows - 1).collect();
        format!("{}\n... and {more} more\n", lines.join("\n"))
    };
    watch.shows(&top(6, 3));
    watch.resize(5, 70);
    watch.shows(&top(5, 4));
    watch.resize(30, 70);
    watch.shows(&all);
    test.args(["sessions", "end", "--where", "true", "--yes"]).any_stderr().run();
    watch.shows(&list());
    test.args(["sessions", "delete", "--where", "true", "--yes"]).any_stderr().run();
    watch.shows("No sessions.\n");
    assert_eq!(watch.ends(rexpect::process::signal::Signal::SIGINT), 130);
}

#[test]
fn only_what_fits_is_drawn() {
    let test = Test::new();
    test.deploy("slow");
    test.deploy("echo");
    test.begin("echo", "hello");
    let flags =
        ["sessions", "list", "--status", "active", "--agent", "slow", "--sort", "title", "--limit", "2"];
    let watch = OnTerminal::start(test.args(flags.iter().chain(&["--watch"])), 20, 100);
    watch.shows("No sessions.\n");
    let list = || test.args(flags).any_stdout().any_stderr().run().stdout;
    let (run, id) = test.wait_in("slow");
    let active = list();
    assert!(active.starts_with("ID            Title"), "without the agent: {active}");
    watch.shows(&active);
    test.args(["sessions", "cancel", &id]).any_stderr().run();
    run.finish();
    watch.shows("No sessions.\n");
    // What is asked for is asked for in vain before anything is drawn.
    test.args(["sessions", "list", "--watch", "--agent", "nobody"])
        .stderr_part("no agent is called 'nobody'")
        .status(3)
        .run();
    // A signal that ends it leaves no drawing behind.
    assert_eq!(watch.ends(rexpect::process::signal::Signal::SIGTERM), 143);
}

#[test]
fn what_has_not_changed_is_not_written_again() {
    let test = Test::new();
    test.deploy("echo");
    let id = test.begin("echo", "remember the milk");
    let watch = OnTerminal::start(test.args(["sessions", "list", "--watch"]), 24, 80);
    watch.shows(&test.args(["sessions", "list"]).any_stdout().run().stdout);
    test.create("echo");
    wait_until("another row", || Shown::of(&watch.written()).lines.len() == 3);
    test.args(["sessions", "end", &id]).any_stderr().run();
    let list = test.args(["sessions", "list"]).any_stdout().run().stdout;
    watch.shows(&list);
    let text = watch.written();
    let header = text.matches("Last Active").count();
    // Once when it began and once when the terminal got its size, at most.
    assert!(header <= 3, "the header was written {header} times: {text:?}");
    assert!(!text.contains('\n'), "nothing scrolls: {text:?}");
    assert_eq!(watch.ends(rexpect::process::signal::Signal::SIGINT), 130);
}

#[test]
fn a_pipe_gets_a_line_for_each_change() {
    let test = Test::new();
    test.deploy("echo");
    test.begin("echo", "before");
    let watch = watching(&test, &[]);
    let id = test.create("echo");
    test.send(&id, "hello");
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.args(["sessions", "delete", &id]).any_stderr().run();
    wait_until("the last change", || watch.stdout().contains("DELETED"));
    let id = short(&id);
    assert_eq!(
        lines(watch),
        [
            format!("{id}  echo  PENDING  0"),
            format!("{id}  echo  ACTIVE  1  hello"),
            format!("{id}  echo  IDLE  1  hello"),
            format!("{id}  echo  ENDED  1  hello"),
            format!("{id}  echo  DELETED  1  hello"),
        ]
    );
}

#[test]
fn json_is_a_session_a_line() {
    let test = Test::new();
    test.deploy("echo");
    let (whole, fields) = (
        watching(&test, &["--json"]),
        test.args(["sessions", "list", "--watch", "--json=id,status"]).start(),
    );
    wait_until("both", || {
        test.requests().iter().filter(|request| request.contains("/sessions/watch")).count() == 2
    });
    let id = test.create("echo");
    test.args(["sessions", "end", &id]).any_stderr().run();
    test.args(["sessions", "delete", &id]).any_stderr().run();
    for watch in [&whole, &fields] {
        wait_until("three lines", || watch.stdout().lines().count() == 3);
    }
    let read = |line: &String| serde_json::from_str::<Value>(line).expect("JSON");
    let whole: Vec<Value> = lines(whole).iter().map(read).collect();
    assert!(
        whole.iter().all(|session| session["id"] == *id && session["agent_name"] == "echo"),
        "{whole:#?}"
    );
    let states: Vec<&Value> = whole.iter().map(|session| &session["status"]).collect();
    assert_eq!(states, ["pending", "ended", "ended"]);
    assert_eq!(
        whole.iter().map(|s| &s["deleted"]).collect::<Vec<_>>(),
        [&Value::Null, &Value::Null, &true.into()]
    );
    assert_eq!(
        lines(fields),
        [
            format!("{{\"id\":\"{id}\",\"status\":\"pending\"}}"),
            format!("{{\"id\":\"{id}\",\"status\":\"ended\"}}"),
            format!("{{\"id\":\"{id}\",\"status\":\"ended\",\"deleted\":true}}"),
        ]
    );
}

#[test]
fn the_other_flags_choose_whose_changes_are_told() {
    let test = Test::new();
    test.deploy("echo");
    test.deploy("oneshot");
    let busy = test.begin("echo", "one");
    test.send(&busy, "two");
    let flags: [&[&str]; 6] = [
        &["--agent", "oneshot"],
        &["--status", "completed"],
        &["--where", "message_count > 2", "--select", "short_id, message_count"],
        &["-q", "--where", "title == \"quiet\""],
        // The first one of the list is the one with the most messages, whatever else happens.
        &["--sort", "-message_count", "--limit", "1"],
        &["--select", "status", "--agent", "oneshot", "--json"],
    ];
    let watches: Vec<Running> = flags
        .iter()
        .map(|flags| test.args(["sessions", "list", "--watch"].iter().chain(flags.iter())).start())
        .collect();
    let count = || test.requests().iter().filter(|request| request.starts_with("GET /v1/sessions?")).count();
    let before = watches.len();
    wait_until("all of them", || count() >= before);
    test.send(&busy, "three");
    let quiet = test.begin("echo", "quiet");
    let done = test.begin("oneshot", "hello");
    // The last change of each is there.
    let last = test.create("oneshot");
    test.args(["sessions", "end", &last, &busy]).any_stderr().run();
    let ends = [
        format!("{}  oneshot  ENDED", short(&last)),
        "COMPLETED".to_owned(),
        format!("{}  3\n{}  3\n", short(&busy), short(&busy)),
        format!("{quiet}\n{quiet}\n"),
        format!("{}  echo  ENDED", short(&busy)),
        "{\"status\":\"ended\"}".to_owned(),
    ];
    for (watch, end) in watches.iter().zip(&ends) {
        wait_until(end, || watch.stdout().contains(end));
    }
    let printed: Vec<Vec<String>> = watches.into_iter().map(lines).collect();
    let (busy, done, last) = (short(&busy), short(&done), short(&last));
    assert_eq!(
        printed[0],
        [
            format!("{done}  oneshot  PENDING  0"),
            format!("{done}  oneshot  ACTIVE  1  hello"),
            format!("{done}  oneshot  COMPLETED  1  hello"),
            format!("{last}  oneshot  PENDING  0"),
            format!("{last}  oneshot  ENDED  0"),
        ]
    );
    assert_eq!(printed[1], [format!("{done}  oneshot  COMPLETED  1  hello")]);
    assert!(printed[2].iter().all(|line| *line == format!("{busy}  3")), "{printed:#?}");
    assert!(printed[3].iter().all(|line| *line == quiet), "{printed:#?}");
    assert!(printed[4].iter().all(|line| line.starts_with(busy)), "{printed:#?}");
    assert_eq!(printed[5].last().map(String::as_str), Some("{\"status\":\"ended\"}"));
}

#[test]
fn it_goes_on_with_a_server_that_comes_back() {
    let test = Test::new();
    test.deploy("slow");
    let (run, id) = test.wait_in("slow");
    let mut watch = watching(&test, &[]);
    let screen = OnTerminal::start(test.args(["sessions", "list", "--watch"]), 10, 100);
    let list = || test.args(["sessions", "list"]).any_stdout().run().stdout;
    screen.shows(&list());
    test.server().kill();
    drop(run);
    // Somebody starts it again, and what has become of the session meanwhile is told.
    let now = list();
    assert!(now.contains("FAILED"), "{now}");
    assert!(watch.is_running(), "{:#?}", watch.finish());
    wait_until("the failure", || {
        watch.stdout().contains(&format!("{}  slow  FAILED  1  wait\n", short(&id)))
    });
    screen.shows(&now);
    assert_eq!(screen.ends(rexpect::process::signal::Signal::SIGINT), 130);
    assert_eq!(lines(watch).len(), 1);
}

#[test]
fn a_server_that_stays_away_is_told() {
    let test = Test::new();
    let watch = watching(&test, &[]);
    test.stop_server();
    let output = watch.finish();
    assert_eq!(output.status, 6);
    assert_eq!(
        output.stderr,
        told("the server has gone", "superserve server logs shows why; the next command starts it again.")
    );
    test.args(["server", "status"])
        .stderr("No server is running. Any command that needs one starts it.\n")
        .run();
}

#[test]
fn who_reads_too_slowly_loses_no_sessions_end() {
    // More than the server keeps for a reader, and the socket and the pipe hold.
    let (test, sessions) = seeded(6000);
    let ids: BTreeSet<&str> = sessions
        .as_array()
        .unwrap()
        .iter()
        .filter(|session| session["status"] != "ended")
        .map(|session| session["id"].as_str().unwrap())
        .collect();
    let watch = watching(&test, &["--json=id,status"]);
    wait_until("the list", || {
        test.requests().iter().filter(|request| request.starts_with("GET /v1/sessions?")).count() >= 6
    });
    watch.signal(Signal::STOP);
    test.args(["sessions", "end", "--where", "true", "--yes"]).any_stderr().run();
    watch.signal(Signal::CONT);
    let ended = || -> BTreeSet<String> {
        let text = watch.stdout();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter(|row| row["status"] == "ended")
            .filter_map(|row| Some(row["id"].as_str()?.to_owned()))
            .collect()
    };
    wait_until("every end", || ended().len() == ids.len());
    assert!(ended().iter().map(String::as_str).eq(ids.iter().copied()));
    let watches = test.requests().iter().filter(|request| request.contains("/sessions/watch")).count();
    assert!(watches > 1, "it has missed changes, and looked again");
    lines(watch);
}

#[test]
fn scripts_watch_until_they_have_seen_enough() {
    let test = Test::new();
    test.deploy("echo");
    let path = test.write(
        "watch.rhai",
        "sessions::watch(#{ agent: \"echo\" }, |s| { print(`${s} ${s.status}`); s.status != \"idle\" });\nprint(\"enough\");\n",
    );
    let script = test.args(["script", path.to_str().unwrap()]).start();
    begun(&test);
    let id = test.begin("echo", "hello");
    let (output, id) = (script.finish(), short(&id));
    assert_eq!(
        (output.status, output.stdout),
        (0, format!("{id} pending\n{id} active\n{id} idle\nenough\n"))
    );
    for (options, told) in [
        ("#{ idle_over: 1.hours }", "watch has no option `idle_over`"),
        ("#{ colums: [] }", "has no option `colums`"),
        ("#{ changes: 0 }", "a whole number above 0"),
    ] {
        test.args(["eval", &format!("sessions::watch({options})")]).stderr_part(told).status(1).run();
    }
}

#[test]
fn a_reader_that_has_gone_ends_it() {
    let test = Test::new();
    test.deploy("echo");
    let line = test.shell("superserve sessions list --watch | head -n 1").start();
    begun(&test);
    // The second line finds nobody.
    let id = test.begin("echo", "hello");
    test.begin("echo", "again");
    let output = line.finish();
    assert_eq!(
        (output.status, output.stdout, output.stderr),
        (0, format!("{}  echo  PENDING  0\n", short(&id)), String::new())
    );
}
