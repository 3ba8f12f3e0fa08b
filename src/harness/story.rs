//! Conversations with real processes: their beginnings, turns and ends.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kinds::KINDS;
use super::stage::*;
use super::*;
use crate::sandbox::Exit;

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
        printf '%s\n' '{"type":"turn_done"}' '{"type":"text","content":"after the turn"}' ;;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_signalled_too_late_is_waited_for_from_then_on() {
    if !installed("python3") {
        return;
    }
    let place = Place::new();
    let code = r#"
import os, select
def tick():
    return select.select([0], [], [], 0.01)[0]
while True:
    while not tick(): pass
    line = os.read(0, 65536)
    if not line: break
    for _ in range(40): tick()
    os.write(1, b'got ' + line)
    with open(os.environ['SUPERSERVE_TURN'], 'w') as turn: turn.write('turn_done\n')
    open('said', 'w').close()
"#;
    let limits = Limits { quiet: Duration::from_millis(50), ..LIMITS };
    let mut agent = place.try_open(&["/usr/bin/python3", "-c", code], limits).await.unwrap();
    assert_eq!(reply(&mut agent, "x", 1).await, "");
    let said = async {
        while !place.path("said").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        exit = agent.idle() => panic!("{exit:?}"),
        () = said => {}
    }
    assert_eq!(reply(&mut agent, "y", 2).await, "got y");
    assert_eq!(reply(&mut agent, "z", 3).await, "got z");
}
