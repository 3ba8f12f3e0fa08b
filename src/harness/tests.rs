//! Conversations with real processes: never ended early, nothing lost.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sandbox::{Exit, Process, Tree};

/// A process group without any isolation.
struct Group {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Tree for Group {
    fn root(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    fn root_is_init(&self) -> bool {
        false
    }

    fn exited(&self) -> BoxFuture<'_, Exit> {
        let mut exit = self.exit.clone();
        Box::pin(async move { exit.wait_for(Option::is_some).await.unwrap().unwrap() })
    }

    fn interrupt(&self) {
        let _ = kill_process_group(self.pid, Signal::INT);
    }

    fn terminate(&self) {
        let _ = kill_process(self.pid, Signal::TERM);
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        let _ = kill_process_group(self.pid, Signal::KILL);
        Box::pin(async move { _ = self.exited().await })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

/// A folder with the turn FIFO and the file `truth`, to which an agent adds a byte when it is done with a turn.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("turn"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        std::fs::write(folder.path().join("truth"), "").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn done(&self) -> usize {
        std::fs::read(self.path("truth")).unwrap().len()
    }

    #[expect(clippy::disallowed_methods, reason = "a sandbox for tests")]
    fn start(&self, argv: &[&str]) -> Process {
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .current_dir(self.0.path())
            .env("TRUTH", self.path("truth"))
            .env("SUPERSERVE_TURN", self.path("turn"))
            .env("PYTHONUNBUFFERED", "1")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ends = (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (stdin, stdout, stderr): (OwnedFd, OwnedFd, OwnedFd) =
            (ends.0.into(), ends.1.into(), ends.2.into());
        for fd in [&stdin, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true).unwrap();
        }
        let pid = Pid::from_child(&child);
        let (sender, exit) = watch::channel(None);
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
            let _ = sender.send(Some(exit));
        });
        Process { stdin, stdout, stderr, tree: Box::new(Group { pid, exit }) }
    }

    async fn try_open(&self, argv: &[&str], limits: Limits) -> Result<Conversation, OpenError> {
        Conversation::open(self.start(argv), &self.path("turn"), limits, "ses_test").await
    }

    async fn open(&self, argv: &[&str]) -> Conversation {
        self.try_open(argv, LIMITS).await.unwrap()
    }
}

const LIMITS: Limits = Limits {
    quiet: Duration::from_secs(5),
    turn: Duration::from_secs(60),
    startup: Duration::from_secs(30),
    cancel_grace: Duration::from_secs(2),
};

/// One turn: how it ended, and its text. Other output is in the text as `[…]`.
async fn say(conversation: &mut Conversation, content: &str, number: u64) -> (TurnEnd, String) {
    say_until(conversation, content, number, &CancellationToken::new()).await
}

async fn say_until(
    conversation: &mut Conversation,
    content: &str,
    number: u64,
    cancel: &CancellationToken,
) -> (TurnEnd, String) {
    let (sender, mut receiver) = mpsc::channel(16);
    let collect = async move {
        let mut text = String::new();
        while let Some(output) = receiver.recv().await {
            match output {
                Output::Text(piece) => text.push_str(&piece),
                other => write!(text, "[{other:?}]").unwrap(),
            }
        }
        text
    };
    let turn = async move { conversation.turn(content, "msg_1", number, &sender, cancel).await };
    tokio::join!(turn, collect)
}

async fn reply(conversation: &mut Conversation, content: &str, number: u64) -> String {
    let (end, text) = say(conversation, content, number).await;
    assert_eq!(end, TurnEnd::Done, "{text}");
    text
}

fn installed(program: &str) -> bool {
    let found = std::fs::exists(Path::new("/usr/bin").join(program)).unwrap_or(false);
    if !found {
        println!("skipped: no {program} in /usr/bin");
    }
    found
}

const SH: &[&str] = &["sh", "-c"];
const PYTHON: &[&str] = &["/usr/bin/python3", "-c"];
const NODE: &[&str] = &["/usr/bin/node", "-e"];

/// Agents that answer a message of numbers by sleeping so many seconds before each line `got NUMBER`, then add a
/// byte to the truth. Without numbers they say nothing.
const KINDS: &[(&str, &[&str], &str)] = &[
    (
        "sh loop",
        SH,
        r#"while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH; done"#,
    ),
    (
        "sh pipeline",
        SH,
        r#"cat | while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH; done"#,
    ),
    (
        "sh prompt",
        SH,
        r#"echo Welcome; while printf 'You: '; read -r line; do for s in $line; do sleep $s; echo "got $s"; done
           printf x >> $TRUTH; done"#,
    ),
    (
        "sh that signals",
        SH,
        r#"while read -r line; do for s in $line; do sleep $s; echo "got $s"; done; printf x >> $TRUTH
           echo turn_done > $SUPERSERVE_TURN; done"#,
    ),
    (
        "python input",
        PYTHON,
        r#"
import os, time
while True:
    line = input('You: ')
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python for line",
        PYTHON,
        r#"
import os, sys, time
for line in sys.stdin:
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python children",
        PYTHON,
        r#"
import os, sys, subprocess
for line in sys.stdin:
    for s in line.split():
        subprocess.run(['sh', '-c', 'sleep ' + s + '; echo got ' + s])
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python reader thread",
        PYTHON,
        r#"
import os, sys, time, threading, queue
lines = queue.Queue()
def read():
    for line in sys.stdin: lines.put(line)
threading.Thread(target=read, daemon=True).start()
while True:
    for s in lines.get().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python pool",
        PYTHON,
        r#"
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
for line in sys.stdin:
    for s in line.split():
        pool.submit(time.sleep, float(s)).result(); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python background thread",
        PYTHON,
        r#"
import os, time, threading
def beat():
    while True: time.sleep(0.02)
threading.Thread(target=beat, daemon=True).start()
while True:
    for s in input().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python select",
        PYTHON,
        r#"
import os, select, time
wait = select.poll(); wait.register(0, select.POLLIN)
turn = 0
while True:
    turn += 1
    if turn % 2: wait.poll()
    else: select.select([0], [], [])
    for s in os.read(0, 65536).decode().split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "asyncio reader",
        PYTHON,
        r#"
import asyncio, os, sys
async def main():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        for s in line.decode().split():
            await asyncio.sleep(float(s)); print('got', s)
        open(os.environ['TRUTH'], 'a').write('x')
asyncio.run(main())
"#,
    ),
    (
        "asyncio executor",
        PYTHON,
        r#"
import asyncio, os, sys
async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for s in line.split():
            await asyncio.sleep(float(s)); print('got', s)
        open(os.environ['TRUTH'], 'a').write('x')
asyncio.run(main())
"#,
    ),
    (
        "node line event",
        NODE,
        r#"
const rl = require('readline').createInterface({ input: process.stdin });
rl.on('line', async (line) => {
    for (const s of line.split(' ').filter(Boolean)) {
        await new Promise((done) => setTimeout(done, s * 1000));
        console.log('got', s);
    }
    require('fs').appendFileSync(process.env.TRUTH, 'x');
});
"#,
    ),
    (
        "node for await",
        NODE,
        r#"
const rl = require('readline').createInterface({ input: process.stdin });
(async () => {
    for await (const line of rl) {
        for (const s of line.split(' ').filter(Boolean)) {
            await new Promise((done) => setTimeout(done, s * 1000));
            console.log('got', s);
        }
        require('fs').appendFileSync(process.env.TRUTH, 'x');
    }
})();
"#,
    ),
];

/// A row of numbers that follows from its seed (an LCG).
struct Row(u64);

impl Row {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Up to three sleeps: mostly short, some long; one turn in ten has none.
    fn sleeps(&mut self) -> Vec<String> {
        if self.below(10) == 0 {
            return Vec::new();
        }
        let sleep = |row: &mut Self| if row.below(4) > 0 { row.below(50) } else { 100 + row.below(200) };
        (0..=self.below(3)).map(|_| format!("0.{:03}", sleep(self))).collect()
    }
}

async fn many_turns(seed: u64, name: &str, argv: &[&str], code: &str) {
    if argv[0].starts_with("/usr/bin/") && !installed(argv[0].trim_start_matches("/usr/bin/")) {
        return;
    }
    let place = Place::new();
    let mut conversation = place.open(&[argv, &[code]].concat()).await;
    let mut row = Row(seed);
    for number in 1..=30 {
        let sleeps = row.sleeps();
        let expected: Vec<String> = sleeps.iter().map(|sleep| format!("got {sleep}")).collect();
        let (end, text) = say(&mut conversation, &sleeps.join(" "), number).await;
        assert_eq!(end, TurnEnd::Done, "{name}, turn {number}: {}", conversation.stderr_tail());
        assert_eq!(place.done() as u64, number, "{name}, turn {number} was over early: {text:?}");
        assert_eq!(text, expected.join("\n"), "{name}, turn {number}");
    }
    conversation.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_turn_ends_early_and_nothing_is_lost() {
    let kinds =
        (1..).zip(KINDS).map(|(seed, (name, argv, code))| tokio::spawn(many_turns(seed, name, argv, code)));
    for done in join_all(kinds).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cat_echoes() {
    let place = Place::new();
    let mut conversation = place.open(&["cat"]).await;
    assert_eq!(reply(&mut conversation, "hello", 1).await, "hello");
    assert_eq!(reply(&mut conversation, "two\nlines", 2).await, "two\\nlines");
    assert_eq!(reply(&mut conversation, "", 3).await, "");
    assert_eq!(reply(&mut conversation, "\u{1b}[31m\0 é", 4).await, "\u{1b}[31m\0 é");
    conversation.end(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_goes_there_and_back() {
    let place = Place::new();
    let mut conversation = place.open(&["cat"]).await;
    let big = "0123456789abcde\u{e9}".repeat(65_536 * 16 / 17);
    assert_eq!(reply(&mut conversation, &big, 1).await, big);
    assert_eq!(reply(&mut conversation, "after", 2).await, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_ends_the_turn_with_all_that_was_said() {
    let place = Place::new();
    let mut once =
        place.open(&["sh", "-c", "read -r l; echo got $l; head -c 60000 /dev/zero | tr '\\0' x"]).await;
    let (end, text) = say(&mut once, "hi", 1).await;
    assert_eq!((end, text.len()), (TurnEnd::Exited(Exit::Code(0)), 7 + 60_000));
    assert_eq!(once.idle().await, Exit::Code(0));
    assert!(!once.is_unread());

    let mut fails = place.open(&["sh", "-c", "read -r l; echo half; echo broken >&2; exit 3"]).await;
    let (end, text) = say(&mut fails, "hi", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Exited(Exit::Code(3)), "half"));
    assert_eq!(fails.stderr_tail(), "broken\n");

    // What it started lives on and holds its stdout.
    let mut leaves = place.open(&["sh", "-c", "read -r l; sleep 60 & echo $l"]).await;
    let (end, text) = say(&mut leaves, "hi", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Exited(Exit::Code(0)), "hi"));
    leaves.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_before_its_first_message_is_an_error() {
    let place = Place::new();
    match place.try_open(&["sh", "-c", "echo oh no >&2; exit 4"], LIMITS).await {
        Err(OpenError::Exited { exit, stderr }) => {
            assert_eq!((exit, stderr.as_str()), (Exit::Code(4), "oh no\n"));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    let limits = Limits { startup: Duration::from_millis(300), ..LIMITS };
    match place.try_open(&["sh", "-c", "echo wait >&2; sleep 60"], limits).await {
        Err(OpenError::TimedOut { stderr }) => assert_eq!(stderr, "wait\n"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// Cancels as soon as the agent has printed something.
async fn cancel_at_first_word(
    conversation: &mut Conversation,
    content: &str,
    number: u64,
) -> (TurnEnd, String) {
    let (sender, mut receiver) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let collect = async {
        let mut text = String::new();
        while let Some(output) = receiver.recv().await {
            let Output::Text(piece) = output else { continue };
            text.push_str(&piece);
            cancel.cancel();
        }
        text
    };
    let turn =
        async { (conversation.turn(content, "msg_1", number, &sender, &cancel).await, drop(sender)).0 };
    tokio::join!(turn, collect)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_agent_goes_on_or_ends() {
    let place = Place::new();
    let begin = Instant::now();
    let mut ends =
        place.open(&["sh", "-c", "while read -r l; do echo begun; sleep 60; echo end; done"]).await;
    let (end, text) = cancel_at_first_word(&mut ends, "x", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Cancelled { exited: true }, "begun"));

    let goes_on = "trap 'echo stopped' INT; while read -r l; do echo begun $l; [ $l = x ] && sleep 60; done";
    let mut goes_on = place.open(&["sh", "-c", goes_on]).await;
    let (end, text) = cancel_at_first_word(&mut goes_on, "x", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Cancelled { exited: false }, "begun x\nstopped"));
    assert_eq!(reply(&mut goes_on, "y", 2).await, "begun y");

    let limits = Limits { cancel_grace: Duration::from_millis(200), ..LIMITS };
    let ignores = "trap '' INT; while read -r l; do echo begun; sleep 60; done";
    let mut ignores = place.try_open(&["sh", "-c", ignores], limits).await.unwrap();
    let (end, text) = cancel_at_first_word(&mut ignores, "x", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Cancelled { exited: true }, "begun"));
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_done_survives_a_late_cancel() {
    if !installed("python3") {
        return;
    }
    let place = Place::new();
    let (_, argv, code) = KINDS.iter().find(|kind| kind.0 == "python background thread").unwrap();
    let mut agent = place.open(&[argv, &[*code][..]].concat()).await;
    // The word comes at once, and the end of the turn is seen 100 ms after it.
    let (end, text) = cancel_at_first_word(&mut agent, "0", 1).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Cancelled { exited: false }, "got 0"));
    assert_eq!(reply(&mut agent, "0", 2).await, "got 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_stderr_holds_nothing_up() {
    let place = Place::new();
    let mut agent = place.open(&["sh", "-c", "while read -r l; do seq 200000 >&2; echo $l; done"]).await;
    assert_eq!(reply(&mut agent, "x", 1).await, "x");
    assert!(agent.stderr_tail().ends_with("199999\n200000\n"));
    assert!(agent.stderr_tail().len() <= 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_takes_too_long_is_ended() {
    let place = Place::new();
    let limits =
        Limits { turn: Duration::from_millis(300), cancel_grace: Duration::from_millis(100), ..LIMITS };
    let mut slow =
        place.try_open(&["sh", "-c", "read -r l; echo begun; trap '' INT; sleep 60"], limits).await.unwrap();
    assert_eq!(say(&mut slow, "x", 1).await, (TurnEnd::TimedOut, "begun".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn characters_survive_their_cuts() {
    let place = Place::new();
    let code = r"while read -r l; do printf 'a\342'; sleep 0.05; printf '\202'; sleep 0.05; printf '\254b\377c\303\n'; done";
    let mut agent = place.open(&["sh", "-c", code]).await;
    assert_eq!(reply(&mut agent, "x", 1).await, "a\u{20ac}b\u{fffd}c\u{fffd}");
    assert_eq!(reply(&mut agent, "x", 2).await, "a\u{20ac}b\u{fffd}c\u{fffd}");
}

/// Speaks frames; what it does depends on what it is told.
const FRAMES: &str = r#"
echo 'a line of a library'
echo '{"type":"ready","protocol":1,"capabilities":["cancel"]}'
while read -r line; do case $line in
    *'"end"'*) echo "$line" >> ended; exit 0 ;;
    *'"cancel"'*) echo '{"type":"text","content":"stopped"}'; echo '{"type":"turn_done"}' ;;
    *wait*) echo '{"type":"text","content":"begun "}' ;;
    *late*) echo '{"type":"turn_done","turn":1}'; sleep 0.05; echo '{"type":"text","content":"in time"}'
        echo '{"type":"turn_done","turn":3}' ;;
    *fatal*) echo '{"type":"error","message":"no key","fatal":true}' ;;
    *bye*) echo '{"type":"text","content":"bye"}'; echo '{"type":"turn_done"}'; exit 0 ;;
    *) echo '{"type":"status","content":"thinking"}'; echo 'not a frame'; echo '{"type":"news"}'
        echo '{"type":"tool_start","id":"1","name":"ls","input":{"path":"/"}}'
        echo '{"type":"tool_end","id":"1","duration_ms":5}'; sleep 0.05
        echo '{"type":"text","content":"one\\n"}'; echo '{"type":"text","content":"two\\n"}'
        echo '{"type":"error","message":"slow","fatal":false}'
        echo '{"type":"turn_done"}'; echo '{"type":"text","content":"after the turn"}' ;;
esac; done"#;

#[tokio::test(flavor = "multi_thread")]
async fn frames_say_what_happens() {
    let place = Place::new();
    let mut agent = place.open(&["sh", "-c", FRAMES]).await;
    assert_eq!(
        reply(&mut agent, "hello\nthere", 1).await,
        "[Status(Object {\"content\": String(\"thinking\")})]\
         [ToolStart { tool: \"ls\", input: Object {\"path\": String(\"/\")} }][ToolEnd { duration_ms: 5 }]\
         one\ntwo\n[Status(Object {\"error\": String(\"slow\")})]"
    );
    let fatal = TurnEnd::Failed { message: "no key".into() };
    assert_eq!(say(&mut agent, "fatal", 2).await, (fatal, String::new()));
    assert_eq!(reply(&mut agent, "late", 3).await, "in time");
    // It waits for nothing but its stdin, and yet the turn is not over.
    let (end, text) = cancel_at_first_word(&mut agent, "wait", 4).await;
    assert_eq!((end, text.as_str()), (TurnEnd::Cancelled { exited: false }, "begun stopped"));
    assert_eq!(reply(&mut agent, "bye", 5).await, "bye");
    assert_eq!(agent.idle().await, Exit::Code(0));
    assert_eq!(say(&mut agent, "x", 6).await, (TurnEnd::Exited(Exit::Code(0)), String::new()));

    let agent = place.open(&["sh", "-c", FRAMES]).await;
    agent.end(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_before_it_comes() {
    let place = Place::new();
    let agent = place.open(&["sh", "-c", &format!("trap '' TERM; {FRAMES}")]).await;
    agent.end(Duration::from_secs(30)).await;
    assert_eq!(std::fs::read_to_string(place.path("ended")).unwrap(), "{\"type\":\"end\"}\n");
    let stubborn = place.open(&["sh", "-c", "trap '' TERM; while :; do read -r l; done"]).await;
    stubborn.end(Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_signal_on_the_fifo() {
    let place = Place::new();
    // Nothing but its signals can tell when it is ready and done: it always polls with a time-out.
    let code = r#"
import os, select, sys, time
def signal(line):
    with open(os.environ['SUPERSERVE_TURN'], 'w') as turn: turn.write(line + '\n')
time.sleep(0.05)
signal('{"type":"ready"}')
while True:
    while not select.select([0], [], [], 0.01)[0]: pass
    line = os.read(0, 65536).decode().strip()
    if not line: break
    signal('{"type":"status","content":"busy"}')
    for _ in range(30): select.select([0], [], [], 0.01)
    print('got ' + line)
    signal('turn_done')
"#;
    if !installed("python3") {
        return;
    }
    let limits = Limits { quiet: Duration::from_millis(100), ..LIMITS };
    let mut agent = place.try_open(&["/usr/bin/python3", "-c", code], limits).await.unwrap();
    for number in 1..=3 {
        let text = reply(&mut agent, "x", number).await;
        assert_eq!(text, "[Status(Object {\"content\": String(\"busy\")})]got x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_always_has_a_timer_is_done_when_it_is_quiet() {
    if !installed("python3") {
        return;
    }
    let place = Place::new();
    let code = r"
import os, select
while True:
    while not select.select([0], [], [], 0.01)[0]: pass
    line = os.read(0, 65536)
    if not line: break
    os.write(1, b'got ' + line)
";
    let limits = Limits { quiet: Duration::from_millis(100), ..LIMITS };
    let mut agent = place.try_open(&["/usr/bin/python3", "-c", code], limits).await.unwrap();
    assert_eq!(reply(&mut agent, "x", 1).await, "got x");
    assert_eq!(reply(&mut agent, "y", 2).await, "got y");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_outstanding_is_waited_for() {
    if !installed("python3") {
        return;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4];
            while stream.read_exact(&mut request).await.is_ok() {
                // Longer than the agent may be quiet.
                tokio::time::sleep(Duration::from_millis(700)).await;
                stream.write_all(b"word\n").await.unwrap();
            }
        }
    });
    let code = format!(
        r"
import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        there, back = await asyncio.open_connection('127.0.0.1', {port})
        back.write(b'ask?')
        print((await there.readline()).decode(), end='')
        back.close()
asyncio.run(main())
"
    );
    let place = Place::new();
    let limits = Limits { quiet: Duration::from_millis(100), ..LIMITS };
    let mut agent = place.try_open(&["/usr/bin/python3", "-c", &code], limits).await.unwrap();
    assert_eq!(reply(&mut agent, "x", 1).await, "word");
    assert_eq!(reply(&mut agent, "x", 2).await, "word");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_nothing_holds_up_neither_cancel_nor_limits() {
    let place = Place::new();
    let limits =
        Limits { turn: Duration::from_millis(300), cancel_grace: Duration::from_millis(100), ..LIMITS };
    let (sender, receiver) = mpsc::channel(1);
    let mut floods = place.try_open(&["sh", "-c", "read -r l; exec yes"], limits).await.unwrap();
    assert_eq!(floods.turn("x", "msg_1", 1, &sender, &CancellationToken::new()).await, TurnEnd::TimedOut);

    let limits = Limits { turn: Duration::from_secs(60), ..limits };
    let mut floods = place.try_open(&["sh", "-c", "read -r l; exec yes"], limits).await.unwrap();
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later.cancel();
    });
    let end = floods.turn("x", "msg_1", 1, &sender, &cancel).await;
    assert_eq!(end, TurnEnd::Cancelled { exited: true });

    drop(receiver);
    let mut agent = place.open(&["sh", "-c", "while read -r l; do seq 100000; done"]).await;
    assert_eq!(agent.turn("x", "msg_1", 1, &sender, &CancellationToken::new()).await, TurnEnd::Done);
    assert_eq!(reply(&mut agent, "x", 2).await.len(), 588_894);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_between_turns_is_in_no_reply() {
    let place = Place::new();
    // The last line comes from the background, after the turn.
    let code = "while read -r l; do echo got $l; echo turn_done > $SUPERSERVE_TURN; read -r go < go; echo late; echo x > said; done";
    let mut agent = place.open(&["sh", "-c", code]).await;
    for name in ["go", "said"] {
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, place.path(name), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    for number in 1..=3 {
        assert_eq!(reply(&mut agent, "x", number).await, "got x");
        let (go, said) = (place.path("go"), place.path("said"));
        let late = tokio::task::spawn_blocking(move || {
            std::fs::write(go, "x\n").unwrap();
            std::fs::read(said).unwrap();
        });
        tokio::select! {
            exit = agent.idle() => panic!("{exit:?}"),
            done = late => done.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_read_is_known() {
    let place = Place::new();
    let code = "read -r l; echo got $l; echo turn_done > $SUPERSERVE_TURN; read -r go < go";
    let mut agent = place.open(&["sh", "-c", code]).await;
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, place.path("go"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(reply(&mut agent, "x", 1).await, "got x");
    let go = place.path("go");
    let later = tokio::task::spawn_blocking(move || std::fs::write(go, "x\n").unwrap());
    assert_eq!(say(&mut agent, "y", 2).await, (TurnEnd::Exited(Exit::Code(0)), String::new()));
    assert!(agent.is_unread());
    later.await.unwrap();
}
