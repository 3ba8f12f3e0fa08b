//! Many kinds of agents, none of which knows of us: no turn of theirs ends early, and nothing is lost.

use futures_util::future::join_all;

use super::stage::*;
use super::*;

const SH: &[&str] = &["sh", "-c"];
const PYTHON: &[&str] = &["/usr/bin/python3", "-c"];
const NODE: &[&str] = &["/usr/bin/node", "-e"];
const PERL: &[&str] = &["/usr/bin/perl", "-e"];

/// Agents that answer a message of numbers by sleeping so many seconds before each line `got NUMBER`, then add a
/// byte to the truth. Without numbers they say nothing.
pub(super) const KINDS: &[(&str, &[&str], &str)] = &[
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
        "python half lines",
        PYTHON,
        r#"
import os, sys, time
for line in sys.stdin:
    words = line.split()
    for n, s in enumerate(words):
        sys.stdout.write('go'); sys.stdout.flush()
        time.sleep(float(s)); sys.stdout.write('t ' + s + ('\n' if n + 1 < len(words) else ''))
    sys.stdout.flush()
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python workers",
        PYTHON,
        r#"
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
def work(line):
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
for line in sys.stdin: pool.submit(work, line)
"#,
    ),
    (
        "perl",
        PERL,
        r#"$| = 1; while (<STDIN>) { for my $s (split) { select(undef, undef, undef, $s); print "got $s\n" }
           open(my $truth, '>>', $ENV{TRUTH}); print $truth 'x'; close($truth) }"#,
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

/// More of them, whose timers, threads and connections the kernel alone can't tell from work: they need the shims.
/// `$SERVER/SECONDS` answers `got SECONDS` after so long.
const HARD: &[(&str, &[&str], &str)] = &[
    (
        "python beat",
        PYTHON,
        r#"
import os, sys, time, threading
def beat():
    while True: time.sleep(0.2)
threading.Thread(target=beat, daemon=True).start()
for line in sys.stdin:
    for s in line.split():
        time.sleep(float(s)); print('got', s)
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python urllib",
        PYTHON,
        r#"
import os, urllib.request
while True:
    for s in input('> ').split():
        print(urllib.request.urlopen(os.environ['SERVER'] + '/' + s).read().decode())
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python kept connection",
        PYTHON,
        r#"
import http.client, os, sys
server = http.client.HTTPConnection(os.environ['SERVER'][len('http://'):])
for line in sys.stdin:
    for s in line.split():
        server.request('GET', '/' + s); print(server.getresponse().read().decode())
    open(os.environ['TRUTH'], 'a').write('x')
"#,
    ),
    (
        "python behind sh",
        SH,
        r#"/usr/bin/python3 -c '
import os, subprocess, time
while True:
    for s in input().split():
        subprocess.run(["/usr/bin/python3", "-c", "import time; time.sleep(" + s + ")"]); print("got", s)
    open(os.environ["TRUTH"], "a").write("x")
'; true"#,
    ),
    (
        "node fetch",
        NODE,
        r#"
const rl = require('readline').createInterface({ input: process.stdin });
rl.on('line', async (line) => {
    for (const s of line.split(' ').filter(Boolean)) {
        console.log(await (await fetch(process.env.SERVER + '/' + s)).text());
    }
    require('fs').appendFileSync(process.env.TRUTH, 'x');
});
"#,
    ),
    (
        "node kept connection",
        NODE,
        r#"
const http = require('http');
const agent = new http.Agent({ keepAlive: true });
const get = (s) => new Promise((done) => http.get(process.env.SERVER + '/' + s, { agent }, (answer) => {
    let text = '';
    answer.on('data', (piece) => { text += piece; }).on('end', () => done(text));
}));
const rl = require('readline').createInterface({ input: process.stdin });
(async () => {
    for await (const line of rl) {
        for (const s of line.split(' ').filter(Boolean)) console.log(await get(s));
        require('fs').appendFileSync(process.env.TRUTH, 'x');
    }
})();
"#,
    ),
    (
        "node interval",
        NODE,
        r#"
setInterval(() => {}, 50);
const rl = require('readline').createInterface({ input: process.stdin });
rl.on('line', async (line) => {
    for (const s of line.split(' ').filter(Boolean)) {
        await new Promise((done) => setTimeout(done, s * 1000));
        process.stdout.write('got ' + s + '\n');
    }
    require('fs').appendFileSync(process.env.TRUTH, 'x');
});
"#,
    ),
    (
        "node children",
        NODE,
        r#"
const { exec } = require('child_process');
process.stdin.on('data', async (data) => {
    for (const s of String(data).split(/\s+/).filter(Boolean)) {
        await new Promise((done) => exec('sleep ' + s, done));
        console.log('got', s);
    }
    require('fs').appendFileSync(process.env.TRUTH, 'x');
});
"#,
    ),
    (
        "node threads",
        NODE,
        r#"
const { promisify } = require('util');
const { pbkdf2 } = require('crypto');
const { appendFile } = require('fs/promises');
const question = (rl) => new Promise((done) => rl.question('> ', done));
(async () => {
    const rl = require('readline').createInterface({ input: process.stdin, output: process.stdout });
    for (;;) {
        for (const s of (await question(rl)).split(' ').filter(Boolean)) {
            await promisify(pbkdf2)('a', 'b', Math.ceil(s * 100000), 32, 'sha512');
            console.log('got', s);
        }
        await appendFile(process.env.TRUTH, 'x');
    }
})();
"#,
    ),
    (
        "node behind node",
        NODE,
        r#"
const code = `
    require('readline').createInterface({ input: process.stdin }).on('line', async (line) => {
        for (const s of line.split(' ').filter(Boolean)) {
            await new Promise((done) => setTimeout(done, s * 1000));
            console.log('got', s);
        }
        require('fs').appendFileSync(process.env.TRUTH, 'x');
    })`;
require('child_process').spawn(process.execPath, ['-e', code], { stdio: 'inherit' });
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

/// Answers `GET /SECONDS` with `got SECONDS` after so long, on connections that are kept.
fn serve() -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = |stream: std::net::TcpStream| {
        let mut out = stream.try_clone().unwrap();
        let (mut lines, mut path) = (BufReader::new(stream).lines(), String::new());
        while let Some(Ok(line)) = lines.next() {
            if let Some(rest) = line.strip_prefix("GET /") {
                path = rest.split(' ').next().unwrap_or_default().to_owned();
            } else if line.is_empty() {
                std::thread::sleep(std::time::Duration::from_secs_f64(path.parse().unwrap()));
                let body = format!("got {path}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

/// What became of some turns.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    turns: usize,
    /// Over before the agent was done.
    early: usize,
    /// With another reply than the agent gave.
    lost: usize,
    /// Over by the timer alone.
    late: usize,
}

async fn many_turns(seed: u64, kind: (&str, &[&str], &str), place: Place, turns: u64) -> (String, Tally) {
    let (name, argv, code) = kind;
    let mut tally = Tally::default();
    if argv[0].starts_with("/usr/bin/") && !installed(argv[0].trim_start_matches("/usr/bin/")) {
        return (name.to_owned(), tally);
    }
    let mut conversation = place.open(&[argv, &[code]].concat()).await;
    let mut row = Row(seed);
    for number in 1..=turns {
        let sleeps = row.sleeps();
        let expected: Vec<String> = sleeps.iter().map(|sleep| format!("got {sleep}")).collect();
        conversation.told = false;
        let (end, text) = say(&mut conversation, &sleeps.join(" "), number).await;
        assert_eq!(end, TurnEnd::Done, "{name}, turn {number}: {}", conversation.stderr_tail());
        tally.turns += 1;
        let (early, lost) = ((place.done() as u64) < number, text != expected.join("\n"));
        if early || lost || conversation.told {
            println!(
                "{name}, turn {number}: {sleeps:?} {text:?} early: {early}, late: {}",
                conversation.told
            );
        }
        tally.early += usize::from(early);
        tally.lost += usize::from(lost);
        tally.late += usize::from(conversation.told);
        // What came too early must not count against the turns after it as well.
        while (place.done() as u64) < number {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    conversation.kill().await;
    (name.to_owned(), tally)
}

/// All kinds at once, so many turns each: none may be early, lost or late.
async fn all_turns(
    kinds: &[(&'static str, &'static [&'static str], &'static str)],
    place: fn() -> Place,
    turns: u64,
) {
    let server = serve();
    let started = (1..).zip(kinds).map(|(seed, kind)| {
        let place = place().with("SERVER", &server);
        tokio::spawn(many_turns(seed, *kind, place, turns))
    });
    let mut all = Tally::default();
    for done in join_all(started).await {
        let (name, tally) = done.unwrap();
        println!("{name:<28} {tally:?}");
        all.turns += tally.turns;
        all.early += tally.early;
        all.lost += tally.lost;
        all.late += tally.late;
    }
    assert_eq!(all, Tally { turns: all.turns, ..Tally::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn no_turn_ends_early_and_nothing_is_lost() {
    all_turns(KINDS, Place::new, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_shims_no_turn_needs_the_timer() {
    let kinds = [KINDS, HARD].concat();
    all_turns(&kinds, Place::with_shims, 20).await;
}
